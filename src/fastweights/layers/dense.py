"""The dense two-layer feed-forward network."""

import torch
from torch import Tensor, nn

from fastweights.layers.initialization import linear
from fastweights.layers.layer import FeedForward


class Dense(FeedForward):
    """`W2 dropout(relu(W1 x + b1)) + b2`.

    Args:
        dim: D.
        ff_dim: F, the hidden width.
        dropout: probability, after the ReLU.
        generator: of the initial weights; PyTorch's default one if None.
    """

    def __init__(
        self,
        dim: int,
        ff_dim: int,
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if ff_dim < 1:
            raise ValueError(f"ff_dim must be >= 1, got {ff_dim}")
        self.up = linear(dim, ff_dim, bias=True, generator=generator)
        self.down = linear(ff_dim, dim, bias=True, generator=generator)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.down(self.dropout(self.up(x).relu())), x.new_zeros(())
