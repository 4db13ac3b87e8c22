"""The LSTM as a layer."""

import torch
from torch import Tensor, nn

from fastweights.layers.layer import SequenceLayer
from fastweights.ops.lstm import LSTMState, LSTMWeights, lstm


class LSTM(SequenceLayer):
    """One layer of `torch.nn.LSTM`: two biases, everything uniform within 1/sqrt(dim), no special
    bias of the forget gate, as in Irie et al. (2023).

    Args:
        dim: D, width of the input and of the hidden state.
        generator: of the initial weights; PyTorch's default one if None.
    """

    def __init__(self, dim: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        bound = dim**-0.5

        def draw(*shape: int) -> nn.Parameter:
            return nn.Parameter(
                nn.init.uniform_(torch.empty(shape), -bound, bound, generator=generator)
            )

        self.dim = dim
        self.input_weight = draw(4 * dim, dim)
        self.hidden_weight = draw(4 * dim, dim)
        self.input_bias = draw(4 * dim)
        self.hidden_bias = draw(4 * dim)

    def initial_state(self, batch_size: int) -> LSTMState:
        zeros = self.input_weight.new_zeros(batch_size, self.dim)
        return LSTMState(zeros, zeros)

    def forward(self, x: Tensor, state: LSTMState | None = None) -> tuple[Tensor, LSTMState]:
        weights = LSTMWeights(
            self.input_weight, self.hidden_weight, self.input_bias, self.hidden_bias
        )
        return lstm(x, weights, state)
