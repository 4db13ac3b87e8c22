"""The Delta MLP's mixing layer: a deep feed-forward network whose weights are delta memories."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fastweights.layers.initialization import linear, split_heads
from fastweights.layers.layer import SequenceLayer
from fastweights.ops.delta_rule import delta_rule
from fastweights.ops.feature_maps import elu_features
from fastweights.ops.precision import widest_dtype


class DeltaMLPState(NamedTuple):
    """Of every fast block, the weights of its two layers; F = expansion D."""

    up: tuple[Tensor, ...]  # [B, H, D, F]
    down: tuple[Tensor, ...]  # [B, H, F, D]


class DeltaMLP(SequenceLayer):
    """Delta MLP (Irie, Schlag, Csordas, Schmidhuber, 2021): `fast_depth` blocks

        h = h + f(f(norm(h)) W_up) W_down,   f = elu + 1, divided by the sum

    with h = the query at first, whose W are memories of the delta rule, each with its own key,
    value and write strength; the norm (slow weights) is one for all heads. No other biases, no
    positions.

    The official code projects to twice as many keys and values and never reads the second half; it
    is left out.

    Args:
        dim: D.
        num_heads: H; `head_dim` defaults to dim / num_heads.
        fast_depth: number of blocks of the fast network.
        expansion: hidden width of a fast block, in widths of a head.
        generator: of the initial weights; PyTorch's default one if None.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 4,
        head_dim: int | None = None,
        fast_depth: int = 1,
        expansion: int = 4,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if fast_depth < 1 or expansion < 1:
            raise ValueError(
                f"fast_depth and expansion must be >= 1, got {fast_depth} and {expansion}"
            )
        self.num_heads = num_heads
        self.head_dim = head_dim = split_heads(dim, num_heads, head_dim)
        self.hidden_dim = expansion * head_dim
        # Of one fast block: keys and values of both layers, their write strengths.
        self.parts = [head_dim, self.hidden_dim, self.hidden_dim, head_dim, 2]
        size = head_dim + fast_depth * sum(self.parts)
        self.input_projection = linear(dim, num_heads * size, bias=False, generator=generator)
        self.output_projection = linear(num_heads * head_dim, dim, bias=False, generator=generator)
        self.fast_norms = nn.ModuleList(nn.LayerNorm(head_dim) for _ in range(fast_depth))

    def initial_state(self, batch_size: int) -> DeltaMLPState:
        weight = self.output_projection.weight
        sizes = self.head_dim, self.hidden_dim

        def zeros(rows: int, columns: int) -> tuple[Tensor, ...]:
            shape = batch_size, self.num_heads, rows, columns
            dtype = widest_dtype(weight)
            return tuple(weight.new_zeros(shape, dtype=dtype) for _ in self.fast_norms)

        return DeltaMLPState(zeros(*sizes), zeros(*reversed(sizes)))

    def forward(
        self, x: Tensor, state: DeltaMLPState | None = None
    ) -> tuple[Tensor, DeltaMLPState]:
        depth = len(self.fast_norms)
        nothing: tuple[Any, ...] = ((None,) * depth,) * 2
        heads = self.input_projection(x).unflatten(-1, (self.num_heads, -1))
        h, *blocks = heads.split([self.head_dim, *[sum(self.parts)] * depth], -1)
        ups, downs = [], []
        for norm, block, up, down in zip(self.fast_norms, blocks, *(state or nothing), strict=True):
            up_k, up_v, down_k, down_v, beta = block.split(self.parts, -1)
            up_beta, down_beta = beta.sigmoid().unbind(-1)
            hidden, up = delta_rule(elu_features(norm(h)), elu_features(up_k), up_v, up_beta, up)
            y, down = delta_rule(
                elu_features(hidden), elu_features(down_k), down_v, down_beta, down
            )
            h = h + y
            ups.append(up)
            downs.append(down)
        return self.output_projection(h.flatten(-2)), DeltaMLPState(tuple(ups), tuple(downs))
