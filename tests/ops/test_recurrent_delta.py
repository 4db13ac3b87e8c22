"""The Recurrent Delta rule: golden vectors, gradients, every form, pieces, causality, messages."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise, product
from typing import Any

import pytest
import torch
from torch import Tensor

from fastweights.kernels.cpu import recurrent_delta as kernel
from fastweights.ops.recurrent_delta import (
    RecurrentDeltaState,
    recurrent_delta,
    recurrent_delta_recurrent,
    recurrent_delta_step,
)
from tests.ops.compare import assert_near, make_mask, numbers_kept, with_gradients

FORMS = [recurrent_delta, partial(recurrent_delta, backend="torch")]


def make_inputs(
    B=2, T=5, H=3, D=4, dtype=torch.float64, feedback=1.0
) -> tuple[list[Tensor], list[Tensor]]:
    """Raw q, k, v, beta_logit and the four recurrent weights; memory and output of a state.

    Recurrent weights drawn from N(0, feedback^2): with large ones the dynamics is chaotic, and any
    two implementations part in the end.
    """
    g = torch.Generator().manual_seed(0)
    sizes = [(B, T, H, D)] * 3 + [(B, T, H)] + [(H, D, D)] * 3 + [(H, D)]
    sizes += [(B, H, D, D), (B, H, D)]
    tensors = [torch.randn(size, generator=g, dtype=torch.float64) for size in sizes]
    tensors[4:8] = [feedback * x for x in tensors[4:8]]
    tensors = [x.to(dtype).requires_grad_() for x in tensors]
    return tensors[:8], tensors[8:]


def flat(form: Callable[..., Any], **options: Any) -> Callable[..., list[Tensor]]:
    """`form` with tensors only: inputs and state in, of which the state may be missing, y and state
    out."""

    def call(*tensors: Tensor) -> list[Tensor]:
        state = RecurrentDeltaState(*tensors[8:]) if tensors[8:] else None
        y, final = form(*tensors[:8], state, **options)
        return [y, *final]

    return call


@pytest.mark.parametrize("form", FORMS)
def test_golden(golden, form):
    vectors = golden("rec_delta")
    i = vectors.inputs
    y, state = form(i["qx"], i["kx"], i["vx"], i["bx"], i["Rq"], i["Rk"], i["Rv"], i["rb"])
    vectors.check(y, list(state))


@pytest.mark.parametrize("T", [1, 2, 5])
def test_gradcheck(T):
    inputs, state = make_inputs(B=1, T=T, H=2, D=3)
    assert torch.autograd.gradcheck(flat(recurrent_delta_recurrent), (*inputs, *state))


SIZES = [  # B, T, H, D; the first ones also in float32
    (3, 1, 3, 5),
    (2, 33, 16, 4),
    (2, 33, 4, 16),
    (3, 33, 1, 24),
    (2, 2, 1, 8),
    (2, 33, 3, 1),
    (5, 33, 1, 3),
    (3, 130, 6, 4),
    (2, 5, 3, 65),
]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    ("sizes", "dtype"),
    [*product(SIZES, [torch.float64]), *product(SIZES[:4], [torch.float32])],
)
def test_the_kernel_equals_the_reference(sizes, dtype, masked):
    B, T, H, D = sizes
    inputs, state = make_inputs(B, T, H, D, feedback=0.5 * D**-0.5)
    mask = make_mask(B, T) if masked else None
    want = with_gradients(flat(recurrent_delta_recurrent, mask=mask), [*inputs, *state])
    form = flat(recurrent_delta, mask=mask, backend="cpu")
    got = with_gradients(form, [x.to(dtype) for x in (*inputs, *state)])
    assert_near(got, want)


@pytest.mark.parametrize("form", FORMS)
def test_no_state_is_a_state_of_zeros(form):
    inputs, state = make_inputs()
    zeros = RecurrentDeltaState(*(torch.zeros_like(x) for x in state))
    torch.testing.assert_close(form(*inputs), form(*inputs, zeros))


def test_the_backward_pass_rewinds_a_long_sequence():
    inputs, _ = make_inputs(B=1, T=16_384, H=2, D=4, feedback=0.1)
    want = with_gradients(flat(recurrent_delta_recurrent), inputs)
    assert_near(with_gradients(flat(recurrent_delta), [x.float() for x in inputs]), want)


@pytest.mark.parametrize("form", FORMS)
def test_a_masked_step_changes_nothing(form):
    inputs, state = make_inputs(B=3, T=9)
    mask = make_mask(3, 9)
    y, final = form(*inputs, RecurrentDeltaState(*state), mask=mask)
    assert not y[~mask].any()
    torch.testing.assert_close(final.memory[0], state[0][0], rtol=0, atol=0)
    torch.testing.assert_close(final.output[0], state[1][0], rtol=0, atol=0)
    for b in (1, 2):
        short = [x[b : b + 1, mask[b]] for x in inputs[:4]]
        start = RecurrentDeltaState(*(x[b : b + 1] for x in state))
        want_y, want = form(*short, *inputs[4:], start)
        got = y[b : b + 1, mask[b]], RecurrentDeltaState(*(x[b : b + 1] for x in final))
        torch.testing.assert_close(got, (want_y, want))


@pytest.mark.parametrize("form", FORMS)
def test_what_is_masked_gets_no_gradient(form):
    inputs, _ = make_inputs(B=3, T=9)
    mask = make_mask(3, 9)
    y, _ = form(*inputs, mask=mask)
    for gradient in torch.autograd.grad(y.sum(), inputs[:4]):
        assert not gradient[~mask].any()
        assert gradient[mask].any()


def test_views_of_one_projection():
    generator = torch.Generator().manual_seed(0)
    heads = torch.randn(3, 7, 3, 3 * 5 + 1, generator=generator, dtype=torch.float64)
    q, k, v, beta_logit = heads.split([5, 5, 5, 1], -1)
    inputs, state = make_inputs(B=3, T=7, D=5)
    views = [q, k, v, beta_logit.squeeze(-1), *(x.mT for x in inputs[4:7]), inputs[7]]
    views += [state[0].mT, state[1]]
    want = with_gradients(flat(recurrent_delta_recurrent), [x.contiguous() for x in views])
    assert_near(with_gradients(flat(recurrent_delta), views), want)


@pytest.mark.parametrize("position", range(4))
def test_nan_stays_in_its_sequence(position):
    inputs, _ = make_inputs(B=3, T=6, H=6)
    want = recurrent_delta(*inputs)
    broken = [x.detach().clone() for x in inputs]
    broken[position][1, 2, 3] = torch.nan
    y, state = recurrent_delta(*broken)
    assert y[1, 2:, 3].isnan().all() and state.memory[1, 3].isnan().any()
    y[1, :, 3], state.memory[1, 3], state.output[1, 3] = (
        want[0][1, :, 3],
        want[1].memory[1, 3],
        want[1].output[1, 3],
    )
    assert torch.equal(y[1, :2], want[0][1, :2])
    torch.testing.assert_close((y, state), want, rtol=0, atol=0)


@pytest.mark.parametrize("masked", [False, True])
def test_opcheck(masked):
    inputs, state = make_inputs(B=3, T=4)
    recurrent = torch.randn(3, 4, 13, dtype=torch.float64, requires_grad=True)
    mask = make_mask(3, 4) if masked else None
    torch.library.opcheck(kernel._forward, (*inputs[:4], recurrent, *state, mask))


def test_compiles_without_a_graph_break():
    inputs, state = make_inputs(B=3, T=4)
    form = flat(recurrent_delta, mask=make_mask(3, 4))
    compiled = torch.compile(form, backend="aot_eager", fullgraph=True)
    want = with_gradients(form, [*inputs, *state])
    torch.testing.assert_close(with_gradients(compiled, [*inputs, *state]), want)


def test_the_backward_pass_keeps_few_numbers_a_step():
    def kept(T: int) -> int:
        inputs, _ = make_inputs(B=2, T=T, H=4, D=16)
        return numbers_kept(flat(recurrent_delta), inputs)

    assert kept(30) - kept(10) == 20 * 2 * 4 * (4 * 16 + 1)  # y and 3 D + 1 more


def test_threads_change_nothing(set_num_threads):
    inputs, state = make_inputs(B=8, T=50, H=8, D=16, dtype=torch.float32)
    results = []
    for threads in (1, 2):
        set_num_threads(threads)
        results.append(with_gradients(flat(recurrent_delta), [*inputs, *state]))
    assert all(torch.equal(x, y) for x, y in zip(*results, strict=True))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("T", [1, 2, 33, 130])
@pytest.mark.parametrize("H", [1, 3])
def test_every_form_equals_steps(T, H, form):
    def steps(*tensors: Any) -> tuple[Tensor, RecurrentDeltaState]:
        carried, ys = tensors[8], []
        for t in range(T):
            y, carried = recurrent_delta_step(
                *(x[:, t] for x in tensors[:4]), *tensors[4:8], carried
            )
            ys.append(y)
        return torch.stack(ys, 1), carried

    inputs, state = make_inputs(T=T, H=H, D=5)
    want = with_gradients(flat(steps), [*inputs, *state])
    torch.testing.assert_close(with_gradients(flat(form), [*inputs, *state]), want)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("cuts", [(0, 4, 5, 9), range(10)])
def test_pieces_equal_the_whole(cuts, form):
    inputs, _ = make_inputs(T=9)
    whole = form(*inputs)
    state, ys = None, []
    for piece in (slice(*ends) for ends in pairwise(cuts)):
        y, state = form(*(x[:, piece] for x in inputs[:4]), *inputs[4:], state)
        ys.append(y)
    torch.testing.assert_close((torch.cat(ys, 1), state), whole)


@pytest.mark.parametrize("form", FORMS)
def test_what_comes_later_changes_nothing_before(form):
    inputs, _ = make_inputs(T=9)
    later = [torch.cat([x[:, :6], x[:, 6:] + 7], 1) for x in inputs[:4]]
    y, _ = form(*inputs)
    y_later, _ = form(*later, *inputs[4:])
    assert torch.equal(y[:, :6], y_later[:, :6])


@pytest.mark.parametrize("form", FORMS)
def test_the_state_is_accumulated_in_float32(form):
    inputs, _ = make_inputs(dtype=torch.bfloat16)
    y, state = form(*inputs)
    assert y.dtype == torch.bfloat16
    assert {part.dtype for part in state} == {torch.float32}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("position", range(10))
def test_one_wide_tensor_widens_the_state(form, position):
    inputs, state = make_inputs(dtype=torch.float32)
    tensors = [*inputs, *state]
    tensors[position] = tensors[position].double()
    y, final = form(*tensors[:8], RecurrentDeltaState(*tensors[8:]))
    assert y.dtype == tensors[2].dtype
    assert {part.dtype for part in final} == {torch.float64}


def test_messages_name_the_shape():
    inputs, _ = make_inputs()
    with pytest.raises(ValueError, match=r"beta_logit must be \[2, 5, 3\].*got \[2, 5, 3, 1\]"):
        recurrent_delta(*inputs[:3], inputs[3][..., None], *inputs[4:])
    with pytest.raises(ValueError, match=r"q must be \[B, T, H, D\], T >= 1, got \[5, 3, 4\]"):
        recurrent_delta(inputs[0][0], *inputs[1:])
    with pytest.raises(ValueError, match="backend='triton' has no kernel for recurrent_delta"):
        recurrent_delta(*inputs, backend="triton")
    for form in FORMS:
        with pytest.raises(
            ValueError, match=r"mask must be bool \[2, 5\], got torch.bool \[5, 2\]"
        ):
            form(*inputs, mask=torch.ones(5, 2, dtype=torch.bool))


@pytest.mark.parametrize("form", FORMS)
def test_autocast_does_not_lower_the_precision(form):
    inputs, _ = make_inputs(dtype=torch.float32)
    want = form(*inputs)
    with torch.autocast("cpu", torch.bfloat16):
        got = form(*inputs)
    torch.testing.assert_close(got, want, rtol=0, atol=0)


def test_a_backward_pass_inside_autocast_keeps_its_precision():
    inputs, state = make_inputs(dtype=torch.float32)
    want = with_gradients(flat(recurrent_delta), [*inputs, *state])
    with torch.autocast("cpu", torch.bfloat16):
        got = with_gradients(flat(recurrent_delta), [*inputs, *state])
    assert all(torch.equal(x, y) for x, y in zip(got, want, strict=True))


def test_the_step_is_in_float32_as_well():
    inputs, state = make_inputs(T=1, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        y, carried = recurrent_delta_step(
            *(x[:, 0] for x in inputs[:4]), *inputs[4:], RecurrentDeltaState(*state)
        )
    want, want_state = recurrent_delta(*inputs, RecurrentDeltaState(*state))
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close((y, carried), (want[:, 0], want_state))
