"""The dense two-layer feed-forward network."""

import torch
from torch import Tensor, nn

from fastweights.layers.arguments import check_probability
from fastweights.layers.initialization import LinearInitialization, two_layers
from fastweights.layers.layer import FeedForward


class Dense(FeedForward):
    """`W2 dropout(relu(W1 x + b1)) + b2`.

    Args:
        dim: D.
        ff_dim: F, the hidden width.
        dropout: probability, after the ReLU.
        initialization: "uniform", as `torch.nn.Linear`, or "scaled", as published: see
            `fastweights.layers.initialization.two_layers`.
        num_layers: L, of the model; "scaled" divides variances by it.
        generator: of the initial weights; PyTorch's default one if None.
    """

    def __init__(
        self,
        dim: int,
        ff_dim: int,
        dropout: float = 0.0,
        initialization: LinearInitialization = "uniform",
        num_layers: int = 1,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_probability("dropout", dropout)
        self.up, self.down = two_layers(dim, ff_dim, initialization, num_layers, generator)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.down(self.dropout(self.up(x).relu())), x.new_zeros(())
