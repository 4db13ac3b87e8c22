"""The Delta RNN as a layer: a DeltaNet with a second memory that sees the previous output."""

from typing import NamedTuple

import torch
from torch import Tensor

from fastweights.layers.initialization import linear, split_heads
from fastweights.layers.layer import SequenceLayer
from fastweights.layers.scale import Scale
from fastweights.ops.delta_rnn import DeltaRNNState, delta_rnn
from fastweights.ops.delta_rule import delta_rule
from fastweights.ops.feature_maps import elu_features, softmax_features
from fastweights.ops.precision import widest_dtype


class DeltaRNNMemories(NamedTuple):
    feed_forward: Tensor  # [B, H, D, D]
    recurrent: DeltaRNNState


class DeltaRNN(SequenceLayer):
    """Delta RNN (Irie, Schlag, Csordas, Schmidhuber, 2021): `fastweights.ops.delta_rnn`
    whose feed-forward part is a DeltaNet's memory with elu + 1, divided by the sum.

    Nothing of it has slow recurrent weights: both memories are written by one projection of the
    input. No biases, no positions.

    Args:
        dim: D.
        num_heads: H; `head_dim` defaults to dim / num_heads.
        scale_output: multiply what is read by head_dim^-0.5, as the official language models do.
        generator: of the initial weights; PyTorch's default one if None.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 4,
        head_dim: int | None = None,
        scale_output: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = head_dim = split_heads(dim, num_heads, head_dim)
        self.scale = Scale.of_heads(head_dim, scale_output)
        width = num_heads * head_dim
        self.input_projection = linear(
            dim, 5 * width + 2 * num_heads, bias=False, generator=generator
        )
        self.output_projection = linear(width, dim, bias=False, generator=generator)

    def initial_state(self, batch_size: int) -> DeltaRNNMemories:
        weight = self.output_projection.weight
        shape = batch_size, self.num_heads, self.head_dim
        output = weight.new_zeros(shape, dtype=widest_dtype(weight))
        memory = output.new_zeros(*shape, self.head_dim)
        return DeltaRNNMemories(memory, DeltaRNNState(memory.clone(), output))

    def forward(
        self, x: Tensor, state: DeltaRNNMemories | None = None
    ) -> tuple[Tensor, DeltaRNNMemories]:
        memory, recurrent = (None, None) if state is None else state
        heads = self.input_projection(x).unflatten(-1, (self.num_heads, -1))
        q, k, v, recurrent_k, recurrent_v, beta = heads.split([self.head_dim] * 5 + [2], -1)
        beta, recurrent_beta = beta.sigmoid().unbind(-1)
        q, k = elu_features(q), elu_features(k)
        z, memory = delta_rule(q, k, v, beta, memory)
        recurrent_k = softmax_features(recurrent_k)
        y, recurrent = delta_rnn(z, recurrent_k, recurrent_v, recurrent_beta, recurrent)
        return self.output_projection(self.scale(y.flatten(-2))), DeltaRNNMemories(
            memory, recurrent
        )
