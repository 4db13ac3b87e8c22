"""The element-wise LSTM: the step is the definition, the kernel and the loop equal it."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from fastweights.ops.e_lstm import e_lstm, e_lstm_recurrent, e_lstm_step
from tests.ops.compare import assert_near, numbers_kept, with_gradients

KERNEL = partial(e_lstm, backend="cpu")
IN_TORCH = partial(e_lstm, backend="torch")


def make_inputs(B=2, T=5, D=3, dtype=torch.float64) -> list[Tensor]:
    """z, f, the two peepholes and a cell."""
    g = torch.Generator().manual_seed(0)
    sizes = [(B, T, D), (B, T, D), (D,), (D,), (B, D)]
    inputs = [torch.randn(size, generator=g, dtype=torch.float64) for size in sizes]
    return [x.to(dtype).requires_grad_() for x in inputs]


def test_step_is_the_published_equation():
    z, f, w_z, w_f, cell = make_inputs()
    keep = torch.sigmoid(f[:, 0] + w_f * cell)
    want = keep * cell + (1 - keep) * torch.tanh(z[:, 0] + w_z * cell)
    torch.testing.assert_close(e_lstm_step(z[:, 0], f[:, 0], w_z, w_f, cell), want)


@pytest.mark.parametrize("form", [KERNEL, IN_TORCH])
@pytest.mark.parametrize("T", [1, 2, 33])
def test_every_form_equals_steps(T, form):
    z, f, w_z, w_f, cell = make_inputs(T=T)
    cells, last = form(z, f, w_z, w_f, cell)
    carried = cell
    for t in range(T):
        carried = e_lstm_step(z[:, t], f[:, t], w_z, w_f, carried)
        torch.testing.assert_close(cells[:, t], carried)
    torch.testing.assert_close(last, carried)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("B", "D"), [(1, 1), (2, 3), (9, 8), (5, 24), (3, 65), (2, 200)])
@pytest.mark.parametrize("T", [1, 2, 33, 130])
def test_the_kernel_equals_the_reference(T, B, D, dtype):
    z, f, w_z, w_f, cell = make_inputs(B, T, D, dtype)
    inputs = [z, f, w_z / 2, w_f / 2, cell]  # with larger ones some cells are chaotic
    want = with_gradients(e_lstm_recurrent, [x.double() for x in inputs])
    assert_near(with_gradients(KERNEL, inputs), want)


def test_a_long_sequence_in_float32():
    """A gate of 1 - 1e-4: the last cell depends on thousands of steps."""
    z, f, w_z, w_f, cell = make_inputs(1, 16_384, 3, torch.float32)
    inputs = [z, f + 9, w_z / 2, w_f / 2, cell]
    want = with_gradients(e_lstm_recurrent, [x.double() for x in inputs])
    assert_near(with_gradients(KERNEL, inputs), want)


@pytest.mark.parametrize("form", [KERNEL, IN_TORCH])
def test_gates_at_their_limits(form):
    """A gate of 1 leaves the cell bit for bit, a gate of 0 forgets it."""
    z, f, w_z, w_f, cell = make_inputs(dtype=torch.float32)
    for extreme in (1e3, 1e30, torch.inf):
        kept, last = form(z, torch.full_like(f, extreme), w_z, w_f, cell)
        assert torch.equal(last, cell) and torch.equal(kept[:, 2], cell)
        cells, _ = form(z, torch.full_like(f, -extreme), w_z, torch.zeros_like(w_f), cell)
        torch.testing.assert_close(cells[:, 0], torch.tanh(z[:, 0] + w_z * cell))


def test_gradcheck():
    assert torch.autograd.gradcheck(e_lstm_recurrent, make_inputs(B=1, T=4, D=2))


@pytest.mark.parametrize("form", [KERNEL, IN_TORCH])
def test_pieces_equal_the_whole(form):
    z, f, w_z, w_f, _ = make_inputs(T=9)
    cell, parts = None, []
    for piece in (slice(0, 4), slice(4, 5), slice(5, 9)):
        cells, cell = form(z[:, piece], f[:, piece], w_z, w_f, cell)
        parts.append(cells)
    torch.testing.assert_close((torch.cat(parts, 1), cell), form(z, f, w_z, w_f))


@pytest.mark.parametrize("form", [KERNEL, IN_TORCH])
@pytest.mark.parametrize("T", [1, 9])
def test_masked_steps_do_not_count(T, form):
    """As if they were not there: the cells and every gradient."""
    inputs = make_inputs(B=3, T=T)
    mask = torch.rand(3, T, generator=torch.Generator().manual_seed(0)) < 0.6
    mask[0], mask[1] = False, True

    def without_masked_steps(
        z: Tensor, f: Tensor, w_z: Tensor, w_f: Tensor, cell: Tensor
    ) -> tuple[Tensor, Tensor]:
        cells, last = torch.zeros_like(z), []
        for b, counted in enumerate(mask):
            final = cell[b : b + 1]
            if counted.any():
                z_b, f_b = z[b : b + 1, counted], f[b : b + 1, counted]
                some, final = e_lstm_recurrent(z_b, f_b, w_z, w_f, final)
                cells[b, counted] = some[0]
            last.append(final)
        return cells, torch.cat(last)

    got = with_gradients(partial(form, mask=mask), inputs)
    torch.testing.assert_close(got, with_gradients(without_masked_steps, inputs))
    cells, last, dz, df = got[:4]
    assert all(x[~mask].abs().max() == 0 for x in (cells, dz, df))
    assert torch.equal(last[0], inputs[-1][0])


def test_a_mask_that_does_not_fit_is_named():
    z, f, w_z, w_f, _ = make_inputs()
    with pytest.raises(ValueError, match=r"mask must be bool \[2, 5\], got torch.float32 \[2, 5\]"):
        e_lstm(z, f, w_z, w_f, mask=torch.ones(2, 5))


def test_the_kernel_takes_views():
    *_, w_z, w_f, cell = make_inputs(D=8)
    projection = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0)).double()

    def split(form: Callable[..., Any]) -> Callable[..., Any]:
        return lambda x, *others: form(*x.chunk(2, -1), *others)

    for x in (projection, projection.mT.contiguous().mT):  # steps or cells side by side
        inputs = [x, w_z, w_f, cell.mT.contiguous().mT]
        assert_near(with_gradients(split(KERNEL), inputs), with_gradients(split(IN_TORCH), inputs))


def test_nan_stays_in_its_cell():
    inputs = make_inputs(B=3, T=9, D=8)
    want = with_gradients(KERNEL, inputs)
    inputs[0].data[1, 4, 2] = torch.nan
    got = with_gradients(KERNEL, inputs)
    assert got[0][1, 4:, 2].isnan().all() and got[1][1, 2].isnan()
    others = torch.ones(3, 8, dtype=torch.bool)
    others[1, 2] = False
    for i, x, y in zip(range(4), got, want, strict=False):
        x, y = (x, y) if i == 1 else (x.transpose(1, 2), y.transpose(1, 2))
        assert torch.equal(x[others], y[others])


def test_the_number_of_threads_does_not_matter(set_num_threads):
    inputs = make_inputs(B=9, T=200, D=65, dtype=torch.float32)
    got = []
    for threads in (1, 2):
        set_num_threads(threads)
        got.append(with_gradients(KERNEL, inputs))
    assert all(torch.equal(x, y) for x, y in zip(*got, strict=True))


def test_the_kernel_is_a_well_behaved_operator():
    from fastweights.kernels.cpu.e_lstm import _forward

    torch.library.opcheck(_forward, (*make_inputs(D=8), 8))


def test_compiled_without_a_break():
    inputs = make_inputs(T=9)
    compiled = torch.compile(KERNEL, fullgraph=True, backend="aot_eager")
    want = with_gradients(KERNEL, inputs)
    torch.testing.assert_close(with_gradients(compiled, inputs), want)


def test_the_kernel_keeps_its_inputs_and_the_cells():
    assert numbers_kept(KERNEL, make_inputs(B=2, T=50, D=8)) == 2 * 50 * 8


def test_the_cell_stays_below_one_and_in_float32():
    z, f, w_z, w_f, _ = make_inputs(T=200, dtype=torch.bfloat16)
    for form in (KERNEL, IN_TORCH):
        cells, last = form(10 * z, f, w_z, w_f)
        assert cells.abs().max() <= 1
        assert (cells.dtype, last.dtype) == (torch.bfloat16, torch.float32)


@pytest.mark.parametrize("form", [KERNEL, IN_TORCH])
def test_autocast_does_not_lower_the_precision(form):
    inputs = make_inputs(dtype=torch.float32)
    want = with_gradients(form, inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = with_gradients(form, inputs)
    assert all(torch.equal(x, y) for x, y in zip(got, want, strict=True))


def test_message_names_the_shapes():
    z, f, w_z, w_f, cell = make_inputs()
    with pytest.raises(ValueError, match=r"got \[2, 5, 3\] and \[2, 4, 3\]"):
        e_lstm(z, f[:, :4], w_z, w_f)
    with pytest.raises(ValueError, match=r"must be \[3\] .* got \[3\], \[2\] and None"):
        e_lstm(z, f, w_z, w_f[:2])
    with pytest.raises(ValueError, match=r"the cell \[2, 3\], got .* \[1, 3\]"):
        e_lstm(z, f, w_z, w_f, cell[:1])


def test_backends():
    inputs = make_inputs()
    assert torch.equal(e_lstm(*inputs)[0], KERNEL(*inputs)[0])
    with pytest.raises(ValueError, match=r"'triton' has no kernel for e_lstm"):
        e_lstm(*inputs, backend="triton")
    with pytest.raises(ValueError, match=r"'cpu' needs CPU tensors for e_lstm, .* meta"):
        e_lstm(*(x.to("meta") for x in inputs), backend="cpu")
