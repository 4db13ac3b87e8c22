"""The Delta-Delta network's mixing layer: a delta memory that programs a second one."""

from typing import NamedTuple

import torch
from torch import Tensor

from fastweights.layers.initialization import linear, split_heads
from fastweights.layers.layer import SequenceLayer
from fastweights.ops.delta_rule import delta_rule
from fastweights.ops.feature_maps import elu_features
from fastweights.ops.precision import widest_dtype


class DeltaDeltaNetState(NamedTuple):
    outer: Tensor  # [B, H, D, 3 D + 1]
    inner: Tensor  # [B, H, D, D]


class DeltaDeltaNet(SequenceLayer):
    """Delta-Delta network (Irie, Schlag, Csordas, Schmidhuber, 2021): what is read from
    an outer memory are query, key, value and write strength of an inner one.

    Both are written by the delta rule, queries and keys through elu + 1, divided by their sum. No
    biases, no positions.

    Args:
        dim: D.
        num_heads: H; `head_dim` defaults to dim / num_heads.
        generator: of the initial weights; PyTorch's default one if None.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 4,
        head_dim: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = head_dim = split_heads(dim, num_heads, head_dim)
        width = num_heads * head_dim
        self.input_projection = linear(
            dim, 5 * width + 2 * num_heads, bias=False, generator=generator
        )
        self.output_projection = linear(width, dim, bias=False, generator=generator)

    def initial_state(self, batch_size: int) -> DeltaDeltaNetState:
        weight = self.output_projection.weight
        shape = batch_size, self.num_heads, self.head_dim, 3 * self.head_dim + 1
        outer = weight.new_zeros(shape, dtype=widest_dtype(weight))
        return DeltaDeltaNetState(outer, outer.new_zeros(*shape[:3], self.head_dim))

    def forward(
        self, x: Tensor, state: DeltaDeltaNetState | None = None
    ) -> tuple[Tensor, DeltaDeltaNetState]:
        outer, inner = (None, None) if state is None else state
        D = self.head_dim
        heads = self.input_projection(x).unflatten(-1, (self.num_heads, -1))
        q, k, v, beta = heads.split([D, D, 3 * D + 1, 1], -1)
        read, outer = delta_rule(
            elu_features(q), elu_features(k), v, beta.squeeze(-1).sigmoid(), outer
        )
        q, k, v, beta = read.split([D, D, D, 1], -1)
        y, inner = delta_rule(
            elu_features(q), elu_features(k), v, beta.squeeze(-1).sigmoid(), inner
        )
        return self.output_projection(y.flatten(-2)), DeltaDeltaNetState(outer, inner)
