"""The Delta LSTM as a layer: three feed-forward and three recurrent memories of the delta rule."""

from typing import NamedTuple

import torch
from torch import Tensor

from fastweights.layers.initialization import linear, split_heads
from fastweights.layers.layer import SequenceLayer
from fastweights.layers.scale import Scale
from fastweights.ops.delta_lstm import NUM_GATES, DeltaLSTMState, delta_lstm
from fastweights.ops.delta_rule import delta_rule
from fastweights.ops.feature_maps import elu_features, softmax_features
from fastweights.ops.precision import widest_dtype


class DeltaLSTMMemories(NamedTuple):
    feed_forward: Tensor  # [B, 3 H, D, D]
    recurrent: DeltaLSTMState


class DeltaLSTM(SequenceLayer):
    """Delta LSTM (Irie, Schlag, Csordas, Schmidhuber, 2021): `fastweights.ops.delta_lstm`
    whose feed-forward parts are DeltaNet's memories with elu + 1, divided by the sum.

    No slow recurrent weights, no biases, no positions.

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
            dim, NUM_GATES * (5 * width + 2 * num_heads), bias=False, generator=generator
        )
        self.output_projection = linear(width, dim, bias=False, generator=generator)

    def initial_state(self, batch_size: int) -> DeltaLSTMMemories:
        weight = self.output_projection.weight
        shape = batch_size, self.num_heads, self.head_dim
        output = weight.new_zeros(shape, dtype=widest_dtype(weight))
        recurrent = output.new_zeros(batch_size, NUM_GATES, *shape[1:], self.head_dim)
        state = DeltaLSTMState(recurrent, output, output.clone())
        return DeltaLSTMMemories(recurrent.flatten(1, 2).clone(), state)

    def forward(
        self, x: Tensor, state: DeltaLSTMMemories | None = None
    ) -> tuple[Tensor, DeltaLSTMMemories]:
        memory, recurrent = (None, None) if state is None else state
        gates = NUM_GATES, self.num_heads
        heads = self.input_projection(x).unflatten(-1, (*gates, -1))
        q, k, v, recurrent_k, recurrent_v, beta = heads.split([self.head_dim] * 5 + [2], -1)
        beta, recurrent_beta = beta.sigmoid().unbind(-1)
        q, k = elu_features(q), elu_features(k)
        q, k, v, beta = (part.flatten(2, 3) for part in (q, k, v, beta))
        z, memory = delta_rule(q, k, v, beta, memory)
        y, recurrent = delta_lstm(
            z.unflatten(2, gates),
            softmax_features(recurrent_k),
            recurrent_v,
            recurrent_beta,
            recurrent,
        )
        y = self.scale(y.flatten(-2))
        return self.output_projection(y), DeltaLSTMMemories(memory, recurrent)
