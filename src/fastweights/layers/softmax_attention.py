"""Softmax attention as a layer."""

import torch
from torch import Tensor, nn

from fastweights.layers.initialization import linear, split_heads
from fastweights.layers.layer import AssociativeLayer
from fastweights.ops.softmax_attention import SoftmaxAttentionState, softmax_attention


class SoftmaxAttention(AssociativeLayer):
    """Causal multi-head attention without positions (Vaswani et al., 2017), scaled by
    1/sqrt(head_dim).

    With biases (the default) it is `torch.nn.MultiheadAttention`, initialised as there: input
    projections Xavier-uniform over their joint matrix, biases zero.

    Args:
        dim: D.
        num_heads: H; `head_dim` defaults to dim / num_heads.
        bias: biases on all projections.
        memory_length: keys and values kept in the state, the newest; None: all. A query sees those
            beside the inputs of its own call, as in `TransformerXL`. It can be changed between
            calls.
        generator: of the initial weights; PyTorch's default one if None.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 4,
        head_dim: int | None = None,
        bias: bool = True,
        memory_length: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if memory_length is not None and memory_length < 0:
            raise ValueError(f"memory_length must be >= 0, got {memory_length}")
        self.memory_length = memory_length
        self.num_heads = num_heads
        self.head_dim = split_heads(dim, num_heads, head_dim)
        width = num_heads * self.head_dim
        self.input_projection = linear(dim, 3 * width, bias=bias, generator=generator)
        self.output_projection = linear(width, dim, bias=bias, generator=generator)
        if bias:
            nn.init.xavier_uniform_(self.input_projection.weight, generator=generator)
            nn.init.zeros_(self.input_projection.bias)
            nn.init.zeros_(self.output_projection.bias)

    def initial_state(self, batch_size: int) -> SoftmaxAttentionState:
        empty = self.output_projection.weight.new_zeros(
            batch_size, 0, self.num_heads, self.head_dim
        )
        return SoftmaxAttentionState(empty, empty)

    def forward(
        self, x: Tensor, state: SoftmaxAttentionState | None = None
    ) -> tuple[Tensor, SoftmaxAttentionState]:
        q, k, v = self.input_projection(x).unflatten(-1, (3, self.num_heads, -1)).unbind(-3)
        y, state = softmax_attention(q * self.head_dim**-0.5, k, v, state)
        if self.memory_length is not None:
            forgotten = max(state.key.shape[1] - self.memory_length, 0)
            state = SoftmaxAttentionState(state.key[:, forgotten:], state.value[:, forgotten:])
        return self.output_projection(y.flatten(-2)), state

    def association(self, x: Tensor, state: SoftmaxAttentionState) -> tuple[Tensor, Tensor]:
        _, k, v = self.input_projection(x).unflatten(-1, (3, self.num_heads, -1)).unbind(-3)
        return k, v

    def read(self, keys: Tensor, state: SoftmaxAttentionState) -> Tensor:
        scores = torch.einsum("bmhk,bshk->bhms", keys * self.head_dim**-0.5, state.key)
        return torch.einsum("bhms,bshv->bmhv", scores.softmax(-1), state.value)
