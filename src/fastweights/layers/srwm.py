"""The self-referential weight matrix as a layer."""

import torch
from torch import Tensor

from fastweights.layers.initialization import linear, normal, repeat_for_batch, split_heads
from fastweights.layers.layer import AssociativeLayer
from fastweights.ops.self_reference import (
    NUM_WRITE_STRENGTHS,
    SelfReferenceState,
    self_reference,
)


class SRWM(AssociativeLayer):
    """Self-referential weight matrix (Irie et al., 2022; 2023).

    The slow weights are the initial fast weights of every sequence; x is cut into heads as it is,
    without a projection. Two quirks of the published code are kept: the query part starts 100 times
    smaller than the others (`query_scale`; 1 in the 2022 code), and the write-strength part, a
    weight and not a bias, has mean -1. A third belongs to the block: the residual branch carries
    the normed input, and the layer sees the raw one (`NormedResidualBlock`).

    Args:
        dim: D, divisible by num_heads.
        num_heads: H.
        query_scale: standard deviation of the query part, as a multiple of 1/sqrt(head_dim).
        generator: of the initial weights; PyTorch's default one if None.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 4,
        query_scale: float = 0.01,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = head_dim = split_heads(dim, num_heads, None)
        std = head_dim**-0.5
        shape = num_heads, head_dim, head_dim
        self.output = normal(*shape, std=std, generator=generator)
        self.query = normal(*shape, std=query_scale * std, generator=generator)
        self.key = normal(*shape, std=std, generator=generator)
        self.write_strength = normal(
            num_heads, head_dim, NUM_WRITE_STRENGTHS, mean=-1.0, std=std, generator=generator
        )
        self.output_projection = linear(dim, dim, bias=False, generator=generator)

    def initial_state(self, batch_size: int) -> SelfReferenceState:
        parts = self.output, self.query, self.key, self.write_strength
        return SelfReferenceState(*(repeat_for_batch(part, batch_size) for part in parts))

    def forward(
        self, x: Tensor, state: SelfReferenceState | None = None
    ) -> tuple[Tensor, SelfReferenceState]:
        state = self.initial_state(x.shape[0]) if state is None else state
        y, state = self_reference(x.unflatten(-1, (self.num_heads, self.head_dim)), state)
        return self.output_projection(y.flatten(-2)), state

    def association(self, x: Tensor, state: SelfReferenceState) -> tuple[Tensor, Tensor]:
        """The value is what the query of this step reads from all parts: the write moves what the
        key reads towards it."""
        x = x.unflatten(-1, (self.num_heads, self.head_dim))
        query, key = (
            torch.einsum("bhk,bhkv->bhv", x, part).softmax(-1) for part in (state.query, state.key)
        )
        return key, torch.einsum("bhk,bhkv->bhv", query, torch.cat(state, -1))

    def read(self, keys: Tensor, state: SelfReferenceState) -> Tensor:
        return torch.einsum("bmhk,bhkv->bmhv", keys, torch.cat(state, -1))
