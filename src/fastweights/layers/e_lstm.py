"""The element-wise LSTM as a layer."""

from typing import NamedTuple

import torch
from torch import Tensor

from fastweights.layers.initialization import linear, normal
from fastweights.layers.layer import SequenceLayer
from fastweights.ops.e_lstm import e_lstm
from fastweights.ops.precision import widest_dtype


class ELSTMState(NamedTuple):
    cell: Tensor  # [B, D]


class ELSTM(SequenceLayer):
    """e-LSTM (Irie et al., 2023): element-wise recurrence, output gate from `[x, new cell]`.

    Initialisation as published: all weights and biases of candidate and forget gate from
    N(0, 0.1^2); the output gate as PyTorch's Linear.

    Args:
        dim: D.
        generator: of the initial weights; PyTorch's default one if None.
    """

    def __init__(self, dim: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.dim = dim
        self.input_weight = normal(2 * dim, dim, std=0.1, generator=generator)
        self.input_bias = normal(2 * dim, std=0.1, generator=generator)
        self.peephole_z = normal(dim, std=0.1, generator=generator)
        self.peephole_f = normal(dim, std=0.1, generator=generator)
        self.output_gate = linear(2 * dim, dim, bias=True, generator=generator)

    def initial_state(self, batch_size: int) -> ELSTMState:
        weight = self.peephole_z
        return ELSTMState(weight.new_zeros(batch_size, self.dim, dtype=widest_dtype(weight)))

    def forward(self, x: Tensor, state: ELSTMState | None = None) -> tuple[Tensor, ELSTMState]:
        z, f = torch.nn.functional.linear(x, self.input_weight, self.input_bias).chunk(2, -1)
        cell = None if state is None else state.cell
        cells, cell = e_lstm(z, f, self.peephole_z, self.peephole_f, cell)
        gate = self.output_gate(torch.cat([x, cells], -1)).sigmoid()
        return gate * cells, ELSTMState(cell)
