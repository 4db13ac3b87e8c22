"""Where norms, residuals and dropout go around a sequence layer and a feed-forward layer.

All placements but one (`NormedInputBlock`) are those of Irie et al. (2023). The norm in front of
the output layer, where there is one, belongs to the sequence model.
"""

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn

from fastweights.layers.layer import FeedForward, SequenceLayer


class Block(nn.Module, ABC):
    """A sequence layer with what surrounds it."""

    layer: SequenceLayer

    @abstractmethod
    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any, Tensor]:
        """`x [B, T, D]` and the layer's state -> `y [B, T, D]`, the next state, the balance loss of
        the feed-forward layer (a scalar)."""


class PlainBlock(Block):
    """`y = layer(x)`, nothing else: LSTM and e-LSTM as published."""

    def __init__(self, layer: SequenceLayer, dropout: float = 0.0) -> None:
        super().__init__()
        self.layer = layer
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any, Tensor]:
        y, state = self.layer(x, state)
        return self.dropout(y), state, x.new_zeros(())


class ResidualBlock(Block):
    """A sequence layer and a feed-forward layer, each with a residual branch and a LayerNorm.

    Dropout follows each of the two layers.
    """

    def __init__(
        self, dim: int, layer: SequenceLayer, feed_forward: FeedForward, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.layer = layer
        self.feed_forward = feed_forward
        self.layer_norm = nn.LayerNorm(dim)
        self.feed_forward_norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)


class PreNormBlock(ResidualBlock):
    """`h = x + layer(norm(x))`, `y = h + feed_forward(norm(h))`: linear Transformer, DeltaNet and
    Recurrent Delta as published, and the pre-LN Transformer."""

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any, Tensor]:
        y, state = self.layer(self.layer_norm(x), state)
        x = x + self.dropout(y)
        y, balance_loss = self.feed_forward(self.feed_forward_norm(x))
        return x + self.dropout(y), state, balance_loss


class NormedResidualBlock(ResidualBlock):
    """`h = norm(x) + layer(x)`, `y = h + feed_forward(norm(h))`: SRWM as published.

    The residual branch, not the layer, gets the normed input.
    """

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any, Tensor]:
        y, state = self.layer(x, state)
        x = self.layer_norm(x) + self.dropout(y)
        y, balance_loss = self.feed_forward(self.feed_forward_norm(x))
        return x + self.dropout(y), state, balance_loss


class NormedInputBlock(ResidualBlock):
    """`h = norm(x) + layer(norm(x))`, `y = h + feed_forward(norm(h))`: the language models of Irie,
    Schlag, Csordas, Schmidhuber (2021) without carried state, in the official code."""

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any, Tensor]:
        x = self.layer_norm(x)
        y, state = self.layer(x, state)
        x = x + self.dropout(y)
        y, balance_loss = self.feed_forward(self.feed_forward_norm(x))
        return x + self.dropout(y), state, balance_loss


class PostNormBlock(ResidualBlock):
    """`h = norm(x + layer(x))`, `y = norm(h + feed_forward(h))`: the Transformer as published."""

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any, Tensor]:
        y, state = self.layer(x, state)
        x = self.layer_norm(x + self.dropout(y))
        y, balance_loss = self.feed_forward(x)
        return self.feed_forward_norm(x + self.dropout(y)), state, balance_loss
