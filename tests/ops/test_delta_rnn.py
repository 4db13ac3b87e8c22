"""Delta RNN and Delta LSTM: steps, gradients, every form, pieces, causality, masks, messages."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise, product
from typing import Any

import pytest
import torch
from torch import Tensor

from fastweights.kernels.cpu import delta_lstm as lstm_kernel
from fastweights.kernels.cpu import delta_rnn as rnn_kernel
from fastweights.ops.delta_lstm import (
    DeltaLSTMState,
    delta_lstm,
    delta_lstm_recurrent,
    delta_lstm_step,
)
from fastweights.ops.delta_rnn import DeltaRNNState, delta_rnn, delta_rnn_recurrent, delta_rnn_step
from tests.ops.compare import assert_near, make_mask, numbers_kept, with_gradients

# Of a rule: the op for every step, the loop, one step, the state; axes between time and heads.
RNN = delta_rnn, delta_rnn_recurrent, delta_rnn_step, DeltaRNNState, ()
LSTM = delta_lstm, delta_lstm_recurrent, delta_lstm_step, DeltaLSTMState, (3,)
RULES = pytest.mark.parametrize("rule", [RNN, LSTM], ids=["rnn", "lstm"])
CUSTOM_OPS = {delta_rnn: rnn_kernel._forward, delta_lstm: lstm_kernel._forward}
BACKENDS = pytest.mark.parametrize("backend", ["auto", "torch"])


def make_inputs(rule: Any, B=2, T=5, H=3, D=4, dtype=torch.float64) -> tuple[Any, Any]:
    """z, k, v, beta and the parts of a state."""
    g = torch.Generator().manual_seed(0)
    *_, state_type, gates = rule
    sizes = [(B, T, *gates, H, D)] * 3 + [(B, T, *gates, H)]
    sizes += [(B, *gates, H, D, D)] + [(B, H, D)] * (len(state_type._fields) - 1)
    z, k, v, beta, *state = (torch.randn(size, generator=g, dtype=torch.float64) for size in sizes)
    tensors = [z, k.softmax(-1), v, beta.sigmoid(), *state]
    tensors = [x.to(dtype).requires_grad_() for x in tensors]
    return tensors[:4], tensors[4:]


def flat(form: Callable[..., Any], state_type: Any, **options: Any) -> Callable[..., list[Tensor]]:
    """`form` with tensors only: inputs and state in, of which the state may be missing, y and state
    out."""

    def call(*tensors: Tensor) -> list[Tensor]:
        state = state_type(*tensors[4:]) if tensors[4:] else None
        y, final = form(*tensors[:4], state, **options)
        return [y, *final]

    return call


@RULES
@pytest.mark.parametrize("T", [1, 3])
def test_gradcheck(rule, T):
    inputs, state = make_inputs(rule, B=1, T=T, H=2, D=3)
    assert torch.autograd.gradcheck(flat(rule[1], rule[3]), (*inputs, *state))


SIZES = [  # B, T, H, D; the first ones also in float32
    (3, 130, 6, 5),
    (2, 33, 16, 4),
    (3, 33, 1, 24),
    (2, 5, 3, 65),
]


@RULES
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    ("sizes", "dtype"),
    [*product(SIZES, [torch.float64]), *product(SIZES[:2], [torch.float32])],
)
def test_the_kernel_equals_the_reference(rule, sizes, dtype, masked):
    B, T, H, D = sizes
    inputs, state = make_inputs(rule, B, T, H, D)
    mask = make_mask(B, T) if masked else None
    want = with_gradients(flat(rule[1], rule[3], mask=mask), [*inputs, *state])
    form = flat(rule[0], rule[3], mask=mask, backend="cpu")
    got = with_gradients(form, [x.to(dtype) for x in (*inputs, *state)])
    assert_near(got, want)


@RULES
def test_the_backward_pass_rewinds_a_long_sequence(rule):
    inputs, _ = make_inputs(rule, B=1, T=4_096)
    want = with_gradients(flat(rule[1], rule[3]), inputs)
    assert_near(with_gradients(flat(rule[0], rule[3]), [x.float() for x in inputs]), want)


@RULES
def test_views(rule):
    """Columns of one projection, and axes in another order."""
    (z, k, v, beta), state = make_inputs(rule, B=3, T=7, D=5)
    _, key, value, strength = torch.cat([z, k, v, beta[..., None]], -1).split([5, 5, 5, 1], -1)
    z = z.transpose(0, 1).contiguous().transpose(0, 1)
    views = [z, key, value.flip(-1).mT.contiguous().mT, strength.squeeze(-1)]
    views += [state[0].mT, *state[1:]]
    want = with_gradients(flat(rule[1], rule[3]), [x.contiguous() for x in views])
    assert_near(with_gradients(flat(rule[0], rule[3]), views), want)


@RULES
@pytest.mark.parametrize("position", range(4))
def test_nan_stays_in_its_head(rule, position):
    inputs, _ = make_inputs(rule, B=3, T=6)
    want, want_state = rule[0](*inputs)
    broken = [x.detach().clone() for x in inputs]
    broken[position].movedim(-1 if position == 3 else -2, 2)[1, 2, 1] = torch.nan
    y, state = rule[0](*broken)
    assert y[1, 2:, 1].isnan().all() and state.output[1, 1].isnan().all()
    y[1, 2:, 1] = want[1, 2:, 1]
    for part, whole in zip(state, want_state, strict=True):
        heads = -2 if part.dim() == 3 else -3
        part.movedim(heads, 1)[1, 1] = whole.movedim(heads, 1)[1, 1]
    torch.testing.assert_close((y, state), (want, want_state), rtol=0, atol=0)


@RULES
def test_the_kernel_does_not_see_what_is_masked(rule):
    inputs, state = make_inputs(rule, B=3, T=9)
    mask = make_mask(3, 9)
    form = flat(rule[0], rule[3], mask=mask, backend="cpu")
    want = with_gradients(form, [*inputs, *state])
    broken = [x.detach().clone() for x in inputs]
    for x in broken:
        x[~mask] = torch.nan
    got = with_gradients(form, [*broken, *state])
    torch.testing.assert_close(got, want, rtol=0, atol=0)


@RULES
@BACKENDS
def test_what_is_masked_gets_no_gradient(rule, backend):
    inputs, _ = make_inputs(rule, B=3, T=9)
    mask = make_mask(3, 9)
    y, _ = rule[0](*inputs, mask=mask, backend=backend)
    for gradient in torch.autograd.grad(y.sum(), inputs):
        assert not gradient[~mask].any()
        assert gradient[mask].any()


@RULES
@pytest.mark.parametrize("masked", [False, True])
def test_opcheck(rule, masked):
    inputs, state = make_inputs(rule, B=3, T=4)
    mask = make_mask(3, 4) if masked else None
    torch.library.opcheck(CUSTOM_OPS[rule[0]], (*inputs, *state, mask))


@RULES
def test_compiles_without_a_graph_break(rule):
    inputs, state = make_inputs(rule, B=3, T=4)
    form = flat(rule[0], rule[3], mask=make_mask(3, 4))
    compiled = torch.compile(form, backend="aot_eager", fullgraph=True)
    want = with_gradients(form, [*inputs, *state])
    torch.testing.assert_close(with_gradients(compiled, [*inputs, *state]), want)


@pytest.mark.parametrize(("rule", "vectors"), [(RNN, 2), (LSTM, 8)], ids=["rnn", "lstm"])
def test_the_backward_pass_keeps_few_numbers_a_step(rule, vectors):
    def kept(T: int) -> int:
        inputs, _ = make_inputs(rule, B=2, T=T, H=3, D=4)
        return numbers_kept(flat(rule[0], rule[3]), inputs)

    assert kept(30) - kept(10) == 20 * 2 * 3 * 4 * vectors


@RULES
def test_threads_change_nothing(rule, set_num_threads):
    inputs, state = make_inputs(rule, B=16, T=200)
    results = []
    for threads in (1, 2):
        set_num_threads(threads)
        results.append(with_gradients(flat(rule[0], rule[3]), [*inputs, *state]))
    assert all(torch.equal(x, y) for x, y in zip(*results, strict=True))


@RULES
@BACKENDS
@pytest.mark.parametrize("T", [1, 2, 33])
@pytest.mark.parametrize("H", [1, 3])
def test_every_form_equals_steps(rule, T, H, backend):
    op, _, step, state_type, _ = rule

    def steps(*tensors: Any) -> tuple[Tensor, Any]:
        carried, ys = tensors[4], []
        for t in range(T):
            y, carried = step(*(x[:, t] for x in tensors[:4]), carried)
            ys.append(y)
        return torch.stack(ys, 1), carried

    inputs, state = make_inputs(rule, T=T, H=H, D=5)
    want = with_gradients(flat(steps, state_type), [*inputs, *state])
    got = with_gradients(flat(op, state_type, backend=backend), [*inputs, *state])
    torch.testing.assert_close(got, want)


def test_a_step_of_the_rnn_is_the_papers_equation():
    (z, k, v, beta), (memory, output) = make_inputs(RNN, B=1, T=1, H=1)
    W, key, value = memory[0, 0].T, k[0, 0, 0], v[0, 0, 0]  # W = S^T
    W = W + beta[0, 0, 0] * torch.outer(value - W @ key, key)
    want = z[0, 0, 0] + W @ output[0, 0].softmax(0)
    y, state = delta_rnn(z, k, v, beta, DeltaRNNState(memory, output))
    torch.testing.assert_close(y[0, 0, 0], want)
    torch.testing.assert_close(state.memory[0, 0], W.T)
    assert torch.equal(state.output[0, 0], y[0, 0, 0])


def test_a_step_of_the_lstm_is_the_papers_equations():
    """Each gate is a Delta RNN with a memory of its own."""
    inputs, (memory, output, cell) = make_inputs(LSTM, T=1)
    gates = [
        delta_rnn(*(x[:, :, gate] for x in inputs), DeltaRNNState(memory[:, gate], output))
        for gate in range(3)
    ]
    i, u, o = (y[:, 0] for y, _ in gates)
    want_cell = i.sigmoid() * u + (1 - i.sigmoid()) * cell
    y, state = delta_lstm(*inputs, DeltaLSTMState(memory, output, cell))
    torch.testing.assert_close(state.cell, want_cell)
    torch.testing.assert_close(y[:, 0], o.sigmoid() * want_cell)
    torch.testing.assert_close(state.memory, torch.stack([s.memory for _, s in gates], 1))


@RULES
@BACKENDS
def test_no_state_is_a_state_of_zeros(rule, backend):
    form = partial(rule[0], backend=backend)
    inputs, state = make_inputs(rule)
    zeros = rule[3](*(torch.zeros_like(x) for x in state))
    torch.testing.assert_close(form(*inputs), form(*inputs, zeros))


@RULES
@BACKENDS
@pytest.mark.parametrize("cuts", [(0, 4, 5, 9), range(10)])
def test_pieces_equal_the_whole(rule, cuts, backend):
    form = partial(rule[0], backend=backend)
    inputs, _ = make_inputs(rule, T=9)
    state, ys = None, []
    for piece in (slice(*ends) for ends in pairwise(cuts)):
        y, state = form(*(x[:, piece] for x in inputs), state)
        ys.append(y)
    torch.testing.assert_close((torch.cat(ys, 1), state), form(*inputs))


@RULES
@BACKENDS
def test_what_comes_later_changes_nothing_before(rule, backend):
    form = partial(rule[0], backend=backend)
    inputs, _ = make_inputs(rule, T=9)
    later = [torch.cat([x[:, :6], x[:, 6:] + 7], 1) for x in inputs]
    assert torch.equal(form(*inputs)[0][:, :6], form(*later)[0][:, :6])


@RULES
@BACKENDS
def test_a_masked_step_changes_nothing(rule, backend):
    inputs, state = make_inputs(rule, B=3, T=9)
    mask = make_mask(3, 9)
    form = partial(rule[0], mask=mask, backend=backend)
    y, final = form(*inputs, rule[3](*state))
    assert not y[~mask].any()
    for b in range(3):
        start = rule[3](*(x[b : b + 1] for x in state))
        got = y[b : b + 1, mask[b]], rule[3](*(x[b : b + 1] for x in final))
        want = (y[b : b + 1, :0], start)
        if mask[b].any():
            want = rule[0](*(x[b : b + 1, mask[b]] for x in inputs), start)
        torch.testing.assert_close(got, want)


@RULES
@BACKENDS
def test_the_state_is_accumulated_in_float32(rule, backend):
    form = partial(rule[0], backend=backend)
    inputs, _ = make_inputs(rule, dtype=torch.bfloat16)
    y, state = form(*inputs)
    assert y.dtype == torch.bfloat16
    assert {part.dtype for part in state} == {torch.float32}
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(form(*inputs), (y, state), rtol=0, atol=0)


@RULES
def test_messages_name_the_shapes(rule):
    inputs, _ = make_inputs(rule)
    gates = "3, " if rule is LSTM else ""
    with pytest.raises(ValueError, match=rf"beta \[B, T, {gates}H\].*, \[2, 5, {gates}3, 1\]$"):
        rule[0](*inputs[:3], inputs[3][..., None])
    with pytest.raises(ValueError, match="has no kernel for delta_"):
        rule[0](*inputs, backend="triton")
    with pytest.raises(ValueError, match=r"mask must be bool \[2, 5\], got torch.bool \[5, 2\]"):
        rule[0](*inputs, mask=torch.ones(5, 2, dtype=torch.bool))
