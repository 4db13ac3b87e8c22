"""The element-wise LSTM: gradients, steps, pieces, and its bound."""

import pytest
import torch
from torch import Tensor

from fastweights.ops.e_lstm import e_lstm, e_lstm_recurrent, e_lstm_step


def make_inputs(B=2, T=5, D=3, dtype=torch.float64) -> list[Tensor]:
    """z, f, the two peepholes and a cell."""
    g = torch.Generator().manual_seed(0)
    sizes = [(B, T, D), (B, T, D), (D,), (D,), (B, D)]
    return [torch.randn(size, generator=g, dtype=dtype).requires_grad_() for size in sizes]


def test_step_is_the_published_equation():
    z, f, w_z, w_f, cell = make_inputs()
    keep = torch.sigmoid(f[:, 0] + w_f * cell)
    want = keep * cell + (1 - keep) * torch.tanh(z[:, 0] + w_z * cell)
    torch.testing.assert_close(e_lstm_step(z[:, 0], f[:, 0], w_z, w_f, cell), want)


@pytest.mark.parametrize("T", [1, 2, 33])
def test_recurrent_equals_steps(T):
    z, f, w_z, w_f, cell = make_inputs(T=T)
    cells, last = e_lstm(z, f, w_z, w_f, cell)
    carried = cell
    for t in range(T):
        carried = e_lstm_step(z[:, t], f[:, t], w_z, w_f, carried)
        torch.testing.assert_close(cells[:, t], carried)
    torch.testing.assert_close(last, carried)


def test_gradcheck():
    assert torch.autograd.gradcheck(e_lstm_recurrent, make_inputs(B=1, T=4, D=2))


def test_pieces_equal_the_whole():
    z, f, w_z, w_f, _ = make_inputs(T=9)
    cell, parts = None, []
    for piece in (slice(0, 4), slice(4, 5), slice(5, 9)):
        cells, cell = e_lstm(z[:, piece], f[:, piece], w_z, w_f, cell)
        parts.append(cells)
    torch.testing.assert_close((torch.cat(parts, 1), cell), e_lstm(z, f, w_z, w_f))


def test_the_cell_stays_below_one_and_in_float32():
    z, f, w_z, w_f, _ = make_inputs(T=200, dtype=torch.bfloat16)
    cells, last = e_lstm(10 * z, f, w_z, w_f)
    assert cells.abs().max() <= 1
    assert (cells.dtype, last.dtype) == (torch.bfloat16, torch.float32)


def test_message_names_the_shapes():
    z, f, w_z, w_f, _ = make_inputs()
    with pytest.raises(ValueError, match=r"got \[2, 5, 3\] and \[2, 4, 3\]"):
        e_lstm(z, f[:, :4], w_z, w_f)
