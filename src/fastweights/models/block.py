"""Where norms, residuals and dropout go around a sequence layer and a feed-forward layer.

This is the only place that has them. The four placements are the ones of Irie et al. (2023).
"""

from typing import Any

import torch
from torch import Tensor, nn

from fastweights.layers.layer import FeedForward, SequenceLayer


class Block(nn.Module):
    """A sequence layer, then a feed-forward layer where there is one.

    `forward(x [B, T, D], state) -> (y [B, T, D], state, balance_loss)`.
    """

    def __init__(
        self, dim: int, layer: SequenceLayer, feed_forward: FeedForward | None, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.layer = layer
        self.feed_forward = feed_forward
        self.dropout = nn.Dropout(dropout)

    def feed(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The feed-forward layer's output, through dropout, and its balance loss."""
        if self.feed_forward is None:
            raise ValueError(f"{type(self).__name__} has no feed-forward layer")
        y, balance_loss = self.feed_forward(x)
        return self.dropout(y), balance_loss

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any, Tensor]:
        raise NotImplementedError


class PreNormBlock(Block):
    """`h = x + layer(norm(x))`, `y = h + feed_forward(norm(h))`: linear Transformer, DeltaNet and
    Recurrent Delta as published, and the pre-LN Transformer."""

    def __init__(
        self, dim: int, layer: SequenceLayer, feed_forward: FeedForward | None, dropout: float = 0.0
    ) -> None:
        super().__init__(dim, layer, feed_forward, dropout)
        self.layer_norm = nn.LayerNorm(dim)
        self.feed_forward_norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any, Tensor]:
        y, state = self.layer(self.layer_norm(x), state)
        x = x + self.dropout(y)
        y, balance_loss = self.feed(self.feed_forward_norm(x))
        return x + y, state, balance_loss


class NormedResidualBlock(PreNormBlock):
    """`h = norm(x) + layer(x)`, then the rest of `PreNormBlock`: SRWM as published.

    The residual branch, not the layer, gets the normed input.
    """

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any, Tensor]:
        y, state = self.layer(x, state)
        x = self.layer_norm(x) + self.dropout(y)
        y, balance_loss = self.feed(self.feed_forward_norm(x))
        return x + y, state, balance_loss


class PostNormBlock(PreNormBlock):
    """`h = norm(x + layer(x))`, `y = norm(h + feed_forward(h))`: the Transformer as published."""

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any, Tensor]:
        y, state = self.layer(x, state)
        x = self.layer_norm(x + self.dropout(y))
        y, balance_loss = self.feed(x)
        return self.feed_forward_norm(x + y), state, balance_loss


class PlainBlock(Block):
    """`y = layer(x)`, nothing else: LSTM and e-LSTM as published."""

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any, Tensor]:
        y, state = self.layer(x, state)
        return self.dropout(y), state, torch.zeros((), device=x.device)
