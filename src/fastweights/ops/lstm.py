"""The long short-term memory of Hochreiter and Schmidhuber (1997) with the forget gate of Gers et
al. (2000), in the parametrisation of `torch.nn.LSTM` (two biases, gate order i, f, g, o)."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear

from fastweights.kernels.backend import Backend, resolve_backend


class LSTMState(NamedTuple):
    output: Tensor  # [B, F]
    cell: Tensor  # [B, F]


class LSTMWeights(NamedTuple):
    """D input width, F hidden width; gates in the order input, forget, cell, output."""

    input: Tensor  # [4 F, D]
    hidden: Tensor  # [4 F, F]
    input_bias: Tensor  # [4 F]
    hidden_bias: Tensor  # [4 F]


def lstm_step(x: Tensor, weights: LSTMWeights, state: LSTMState) -> tuple[Tensor, LSTMState]:
    """One time step: the definition. x `[B, D]` -> output `[B, F]`."""
    gates = linear(x, weights.input, weights.input_bias) + linear(
        state.output, weights.hidden, weights.hidden_bias
    )
    i, f, g, o = gates.chunk(4, -1)
    cell = f.sigmoid() * state.cell + i.sigmoid() * g.tanh()
    output = o.sigmoid() * cell.tanh()
    return output, LSTMState(output, cell)


def lstm_recurrent(
    x: Tensor, weights: LSTMWeights, state: LSTMState | None = None
) -> tuple[Tensor, LSTMState]:
    """The loop over steps: the reference. Arguments as in `lstm`."""
    state = _initial(x, weights) if state is None else state
    ys = []
    for x_t in x.unbind(1):
        y, state = lstm_step(x_t, weights, state)
        ys.append(y)
    return torch.stack(ys, 1), state


def lstm(
    x: Tensor, weights: LSTMWeights, state: LSTMState | None = None, *, backend: Backend = "auto"
) -> tuple[Tensor, LSTMState]:
    """LSTM over a sequence, by PyTorch's own fused implementation.

    Args:
        x: `[B, T, D]`.
        weights: see `LSTMWeights`.
        state: output and cell `[B, F]`; zeros if None.
        backend: see `fastweights.kernels.backend`.

    Returns:
        Outputs `[B, T, F]` and the state after the last step.

    Raises:
        ValueError: if shapes do not fit, or the named backend cannot serve the tensors.
    """
    resolve_backend(backend, "lstm", x.device, x.dtype)
    width = weights.input.shape[-1]
    if x.dim() != 3 or not x.shape[1] or x.shape[-1] != width:
        raise ValueError(f"lstm: x must be [B, T, {width}], T >= 1, got {list(x.shape)}")
    state = _initial(x, weights) if state is None else state
    y, output, cell = torch.lstm(
        x, (state.output[None], state.cell[None]), list(weights), True, 1, 0.0, False, False, True
    )
    return y, LSTMState(output[0], cell[0])


def _initial(x: Tensor, weights: LSTMWeights) -> LSTMState:
    zeros = x.new_zeros(x.shape[0], weights.hidden.shape[-1])
    return LSTMState(zeros, zeros)
