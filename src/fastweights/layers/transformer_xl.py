"""Transformer-XL's attention as a layer: relative positions, earlier inputs as its state."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from fastweights.layers.initialization import linear, split_heads
from fastweights.layers.layer import SequenceLayer
from fastweights.ops.relative_attention import distance_sinusoids, relative_attention


class TransformerXLState(NamedTuple):
    """The last inputs of the layer, at most `memory_length` of them."""

    memory: Tensor  # [B, M, D]


class TransformerXL(SequenceLayer):
    """Causal multi-head attention with relative positions and a memory (Dai et al., 2019).

        score = scale ((q + content_bias) . k + (q + position_bias) . W_r R_distance)

    in the variant of Csordas, Irie, Schmidhuber (2023): the scale is learned, the two biases start
    at 0 and belong to this layer alone, and the projections have none. Those start as
    `torch.nn.Linear`, theirs from a normal distribution whose variance falls with the number of
    layers. A query sees the whole memory and the inputs up to its own.

    Every call computes the keys and values of the whole memory anew, also to decode a single token.
    Kept in the state, they would be those of older weights after a training step; and where a
    training loop detaches the state, the projections would get no gradients from the memory, which
    they do here as in the published code.

    A call over T steps equals calls over pieces of them as long as the memory has room for all the
    inputs before the last piece; a full memory forgets the oldest, so that a query sees back
    `memory_length` inputs from the start of its piece. The state is not detached.

    In the published code the memory holds what enters the block, and its norm is applied to it
    again; here it holds the inputs of the layer, which a pre-norm block has normed already. In
    evaluation that is the same. In training the published memory is normed with the newest weights
    of the norm, which get gradients from it.

    Args:
        dim: D.
        num_heads: H; `head_dim` defaults to dim / num_heads.
        memory_length: inputs kept in the state; 0: none. It can be changed between calls.
        generator: of the initial weights; PyTorch's default one if None.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 4,
        head_dim: int | None = None,
        memory_length: int = 512,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if memory_length < 0:
            raise ValueError(f"memory_length must be >= 0, got {memory_length}")
        self.num_heads = num_heads
        self.head_dim = split_heads(dim, num_heads, head_dim)
        self.memory_length = memory_length
        width = num_heads * self.head_dim
        self.query_projection = linear(dim, width, bias=False, generator=generator)
        self.key_value_projection = linear(dim, 2 * width, bias=False, generator=generator)
        self.distance_projection = linear(dim, width, bias=False, generator=generator)
        self.output_projection = linear(width, dim, bias=False, generator=generator)
        self.content_bias = nn.Parameter(torch.zeros(num_heads, self.head_dim))
        self.position_bias = nn.Parameter(torch.zeros(num_heads, self.head_dim))
        # Not a scalar, of which fully sharded processes could not have a part each.
        self.scale = nn.Parameter(torch.full((1,), self.head_dim**-0.5))

    def initial_state(self, batch_size: int) -> TransformerXLState:
        weight = self.output_projection.weight
        return TransformerXLState(weight.new_zeros(batch_size, 0, weight.shape[0]))

    def forward(
        self, x: Tensor, state: TransformerXLState | None = None
    ) -> tuple[Tensor, TransformerXLState]:
        seen = x if state is None else torch.cat([state.memory.to(x.dtype), x], 1)
        q = self._heads(self.query_projection(x))
        k, v = self._heads(self.key_value_projection(seen)).chunk(2, -1)
        distances = distance_sinusoids(seen.shape[1], x.shape[-1], like=x)
        y = relative_attention(
            self.scale * (q + self.content_bias),
            self.scale * (q + self.position_bias),
            k,
            v,
            self._heads(self.distance_projection(distances)),
        )
        forgotten = max(seen.shape[1] - self.memory_length, 0)
        return self.output_projection(y.flatten(-2)), TransformerXLState(seen[:, forgotten:])

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1))
