"""The LSTM equals `torch.nn.LSTM` and its own loop over steps."""

import pytest
import torch
from torch import Tensor, nn

from fastweights.ops.lstm import LSTMState, LSTMWeights, lstm, lstm_recurrent


def make_inputs(B=2, T=5, D=3, F=4) -> tuple[Tensor, LSTMWeights, LSTMState]:
    g = torch.Generator().manual_seed(0)
    sizes = [(B, T, D), (4 * F, D), (4 * F, F), (4 * F,), (4 * F,), (B, F), (B, F)]
    x, *rest = (
        torch.randn(size, generator=g, dtype=torch.float64).requires_grad_() for size in sizes
    )
    return x, LSTMWeights(*rest[:4]), LSTMState(*rest[4:])


@pytest.mark.parametrize("T", [1, 2, 33])
def test_fused_equals_recurrent_and_nn_lstm(T):
    x, weights, state = make_inputs(T=T)
    module = nn.LSTM(3, 4, batch_first=True).double()
    for parameter, weight in zip(module.parameters(), weights, strict=True):
        parameter.data.copy_(weight)
    y, (output, cell) = module(x, (state.output[None], state.cell[None]))
    want = y, LSTMState(output[0], cell[0])
    leaves = [x, *weights, *state]
    for got in (lstm(x, weights, state), lstm_recurrent(x, weights, state)):
        torch.testing.assert_close(got, want)
        loss = got[0].square().sum() + got[1].cell.sum()
        reference = lstm_recurrent(x, weights, state)
        reference_loss = reference[0].square().sum() + reference[1].cell.sum()
        torch.testing.assert_close(
            torch.autograd.grad(loss, leaves), torch.autograd.grad(reference_loss, leaves)
        )


def test_gradcheck():
    x, weights, state = make_inputs(B=1, T=3, D=2, F=2)

    def run(x: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        y, final = lstm_recurrent(x, LSTMWeights(*tensors[:4]), LSTMState(*tensors[4:]))
        return y, *final

    assert torch.autograd.gradcheck(run, (x, *weights, *state))


def test_pieces_equal_the_whole():
    x, weights, _ = make_inputs(T=9)
    state, ys = None, []
    for piece in (slice(0, 4), slice(4, 5), slice(5, 9)):
        y, state = lstm(x[:, piece], weights, state)
        ys.append(y)
    torch.testing.assert_close((torch.cat(ys, 1), state), lstm(x, weights))


def test_message_names_the_shape():
    x, weights, _ = make_inputs()
    with pytest.raises(ValueError, match=r"x must be \[B, T, 3\], T >= 1, got \[2, 5, 2\]"):
        lstm(x[..., :2], weights)
