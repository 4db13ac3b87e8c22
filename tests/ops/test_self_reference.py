"""The self-referential weight matrix: golden vectors, gradients at any length, pieces."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from fastweights.kernels.cpu import self_reference as kernel
from fastweights.ops.self_reference import (
    SelfReferenceState,
    self_reference,
    self_reference_recurrent,
    self_reference_step,
)
from tests.ops.compare import assert_near, make_mask, numbers_kept, with_gradients

FORMS = [self_reference, partial(self_reference, backend="torch")]


def make_inputs(B=2, T=5, H=3, D=4, dtype=torch.float64, std=1.0) -> list[Tensor]:
    """x and the four parts of the initial weights, these from N(0, std^2)."""
    g = torch.Generator().manual_seed(0)
    sizes = [(B, T, H, D)] + [(B, H, D, D)] * 3 + [(B, H, D, 4)]
    x, *parts = [torch.randn(size, generator=g, dtype=torch.float64) for size in sizes]
    return [part.to(dtype).requires_grad_() for part in (x, *(std * part for part in parts))]


def flat(form: Callable[..., Any], **options: Any) -> Callable[..., list[Tensor]]:
    """`form` with tensors only: x and the weights' four parts in, y and the parts out."""

    def call(x: Tensor, *parts: Tensor) -> list[Tensor]:
        y, state = form(x, SelfReferenceState(*parts), **options)
        return [y, *state]

    return call


def steps(x: Tensor, state: SelfReferenceState) -> tuple[Tensor, SelfReferenceState]:
    ys = []
    for x_t in x.unbind(1):
        y, state = self_reference_step(x_t, state)
        ys.append(y)
    return torch.stack(ys, 1), state


@pytest.mark.parametrize("form", FORMS)
def test_golden(golden, form):
    vectors = golden("srwm")
    i = vectors.inputs
    state = SelfReferenceState(i["Wy"], i["Wq"], i["Wk"], i["wb"])
    y, final = form(i["x"], state)
    vectors.check(y, list(final))


@pytest.mark.parametrize("T", [1, 2, 5])
def test_gradcheck(T):
    inputs = make_inputs(B=1, T=T, H=2, D=3)
    assert torch.autograd.gradcheck(flat(self_reference_recurrent), inputs)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("T", [1, 2, 33, 130])
@pytest.mark.parametrize(("H", "D"), [(1, 2), (3, 5)])
def test_every_form_equals_steps(T, H, D, form):
    inputs = make_inputs(T=T, H=H, D=D)
    want = with_gradients(flat(steps), inputs)
    torch.testing.assert_close(with_gradients(flat(form), inputs), want)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("B", "T", "H", "D"),
    [
        (3, 1, 3, 5),
        (2, 33, 3, 1),
        (5, 33, 1, 3),
        (3, 130, 6, 4),
        (2, 33, 4, 16),
        (2, 5, 3, 65),
    ],
)
def test_the_kernel_equals_the_reference(B, T, H, D, dtype, masked):
    inputs = make_inputs(B, T, H, D, std=D**-0.5)
    mask = make_mask(B, T) if masked else None
    want = with_gradients(flat(self_reference_recurrent, mask=mask), inputs)
    form = flat(self_reference, mask=mask, backend="cpu")
    assert_near(with_gradients(form, [x.to(dtype) for x in inputs]), want)


def test_the_backward_pass_rewinds_a_long_sequence():
    inputs = make_inputs(B=1, T=16_384, H=2, D=4, std=0.1)
    inputs[0] = 0.1 * inputs[0].detach()  # or the weights grow, and the dynamics is chaotic
    want = with_gradients(flat(self_reference_recurrent), inputs)
    assert all(part.abs().max() < 10 for part in want[1:5])
    assert_near(with_gradients(flat(self_reference), [x.float() for x in inputs]), want)


@pytest.mark.parametrize("form", FORMS)
def test_a_masked_step_changes_nothing(form):
    x, *parts = make_inputs(B=3, T=9)
    mask = make_mask(3, 9)
    y, final = form(x, SelfReferenceState(*parts), mask=mask)
    assert not y[~mask].any()
    for got, want in zip(final, parts, strict=True):
        torch.testing.assert_close(got[0], want[0], rtol=0, atol=0)
    for b in (1, 2):
        start = SelfReferenceState(*(part[b : b + 1] for part in parts))
        want = form(x[b : b + 1, mask[b]], start)
        got = y[b : b + 1, mask[b]], SelfReferenceState(*(part[b : b + 1] for part in final))
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("form", FORMS)
def test_what_is_masked_gets_no_gradient(form):
    x, *parts = make_inputs(B=3, T=9)
    mask = make_mask(3, 9)
    y, final = form(x, SelfReferenceState(*parts), mask=mask)
    (gradient,) = torch.autograd.grad(y.sum() + final.query.sum(), x)
    assert not gradient[~mask].any()
    assert gradient[mask].any()


def test_views_and_shared_initial_weights():
    """One copy of the weights for the batch, as the layer passes them, and heads out of a row."""
    x, *parts = make_inputs(B=3, T=7, H=4, D=5)
    x = x.transpose(1, 2).contiguous().transpose(1, 2)
    shared = [part[:1].expand_as(part) for part in parts]
    shared[1] = shared[1].mT
    whole = [y.contiguous() for y in (x, *shared)]
    want = with_gradients(flat(self_reference_recurrent), whole)
    assert_near(with_gradients(flat(self_reference), [x, *shared]), want)


def test_nan_stays_in_its_sequence():
    x, *parts = make_inputs(B=3, T=6, H=4)
    want_y, want = self_reference(x, SelfReferenceState(*parts))
    broken = x.detach().clone()
    broken[1, 2, 3] = torch.nan
    y, state = self_reference(broken, SelfReferenceState(*parts))
    assert y[1, 2:, 3].isnan().all() and state.output[1, 3].isnan().any()
    y[1, 2:, 3] = want_y[1, 2:, 3]
    for got, part in zip(state, want, strict=True):
        got[1, 3] = part[1, 3]
    torch.testing.assert_close((y, state), (want_y, want), rtol=0, atol=0)


@pytest.mark.parametrize("masked", [False, True])
def test_opcheck(masked):
    inputs = make_inputs(B=3, T=4, H=2, D=3)
    torch.library.opcheck(kernel._forward, (*inputs, make_mask(3, 4) if masked else None))


def test_compiles_without_a_graph_break():
    inputs = make_inputs(B=3, T=4, H=2, D=3)
    form = flat(self_reference, mask=make_mask(3, 4))
    compiled = torch.compile(form, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(with_gradients(compiled, inputs), with_gradients(form, inputs))


def test_the_backward_pass_keeps_few_numbers_a_step():
    def kept(T: int) -> int:
        return numbers_kept(flat(self_reference), make_inputs(B=2, T=T, H=4, D=16))

    assert kept(30) - kept(10) == 20 * 2 * 4 * (5 * 16 + 8)


def test_threads_change_nothing(set_num_threads):
    inputs = make_inputs(B=8, T=50, H=8, D=16, dtype=torch.float32, std=0.25)
    results = []
    for threads in (1, 2):
        set_num_threads(threads)
        results.append(with_gradients(flat(self_reference), inputs))
    assert all(torch.equal(x, y) for x, y in zip(*results, strict=True))


@pytest.mark.parametrize("form", FORMS)
def test_autocast_does_not_lower_the_precision(form):
    inputs = make_inputs(dtype=torch.float32)
    want = flat(form)(*inputs)
    with torch.autocast("cpu", torch.bfloat16):
        got = flat(form)(*inputs)
    torch.testing.assert_close(got, want, rtol=0, atol=0)


@pytest.mark.parametrize(("T", "D"), [(700, 4), (200, 16), (8, 32), (8, 24), (5, 65)])
def test_gradients_at_the_sizes_where_the_official_kernel_is_wrong(T, D):
    """Beyond one shared-memory segment, and at head sizes like 24 and 32."""
    inputs = make_inputs(B=1, T=T, H=1, D=D)
    inputs[1:] = [0.5 * x for x in inputs[1:]]
    want = with_gradients(flat(steps), inputs)
    torch.testing.assert_close(with_gradients(flat(self_reference), inputs), want)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("cuts", [(0, 4, 5, 9), range(10)])
def test_pieces_equal_the_whole(cuts, form):
    x, *parts = make_inputs(T=9)
    whole = form(x, SelfReferenceState(*parts))
    state, ys = SelfReferenceState(*parts), []
    for piece in (slice(*ends) for ends in pairwise(cuts)):
        y, state = form(x[:, piece], state)
        ys.append(y)
    torch.testing.assert_close((torch.cat(ys, 1), state), whole)


@pytest.mark.parametrize("form", FORMS)
def test_what_comes_later_changes_nothing_before(form):
    x, *parts = make_inputs(T=9)
    y, _ = form(x, SelfReferenceState(*parts))
    later = torch.cat([x[:, :6], x[:, 6:] + 7], 1)
    y_later, _ = form(later, SelfReferenceState(*parts))
    assert torch.equal(y[:, :6], y_later[:, :6])


def test_the_weights_are_accumulated_in_float32():
    x, *parts = make_inputs(dtype=torch.bfloat16)
    y, state = self_reference(x, SelfReferenceState(*parts))
    assert y.dtype == torch.bfloat16
    assert {part.dtype for part in state} == {torch.float32}


def test_messages_name_the_shape():
    x, *parts = make_inputs()
    state = SelfReferenceState(*parts)
    with pytest.raises(ValueError, match=r"state.write_strength must be \[2, 3, 4, 4\].*4, 5\]"):
        self_reference(x, state._replace(write_strength=torch.zeros(2, 3, 4, 5)))
    for form in FORMS:
        with pytest.raises(ValueError, match=r"x must be \[B, T, H, D\], T >= 1, got \[5, 3, 4\]"):
            form(x[0], state)
        with pytest.raises(
            ValueError, match=r"mask must be bool \[2, 5\], got torch.bool \[5, 2\]"
        ):
            form(x, state, mask=torch.ones(5, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="backend='triton' has no kernel for self_reference"):
        self_reference(x, state, backend="triton")


def test_the_step_is_in_float32_as_well():
    x, *parts = make_inputs(T=1, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        y, state = self_reference_step(x[:, 0], SelfReferenceState(*parts))
    want, want_state = self_reference(x, SelfReferenceState(*parts))
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close((y, state), (want[:, 0], want_state))
