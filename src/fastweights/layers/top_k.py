"""The two-layer feed-forward network of which only the K largest hidden units count."""

import torch
from torch import Tensor

from fastweights.layers.dense import Dense
from fastweights.layers.initialization import LinearInitialization
from fastweights.ops.sparse_read import sparse_read


class TopK(Dense):
    """`W2 dropout(top_k(relu(W1 x + b1))) + b2`, the other hidden units 0.

    The Top-K activation of Csordas, Irie, Schmidhuber (2023), Eqs. 6-7, initialised as `Dense`.
    Their code drops units before it takes the largest, so that others take their place in training;
    here the dropout comes after, and training and evaluation choose the same units.

    Args:
        top_k: K, the number of hidden units kept a token.
        dropout: probability, of the units kept.
        dim, ff_dim, initialization, num_layers, generator: see `Dense`.
    """

    def __init__(
        self,
        dim: int,
        ff_dim: int,
        top_k: int,
        dropout: float = 0.0,
        initialization: LinearInitialization = "uniform",
        num_layers: int = 1,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(dim, ff_dim, dropout, initialization, num_layers, generator)
        if not 1 <= top_k <= ff_dim:
            raise ValueError(f"top_k must be in 1 .. ff_dim = {ff_dim}, got {top_k}")
        self.top_k = top_k

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        value, index = self.up(x).relu().topk(self.top_k, sorted=False)
        y = sparse_read(self.down.weight.T, index, self.dropout(value))
        return y + self.down.bias.to(y.dtype), x.new_zeros(())

    def active_parameters(self) -> int:
        dim, ff_dim = self.down.weight.shape
        return super().active_parameters() - (ff_dim - self.top_k) * dim
