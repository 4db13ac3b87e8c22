"""Delta RNN and Delta LSTM: steps, gradients, pieces, causality, masks, messages."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from fastweights.ops.delta_lstm import (
    DeltaLSTMState,
    delta_lstm,
    delta_lstm_recurrent,
    delta_lstm_step,
)
from fastweights.ops.delta_rnn import DeltaRNNState, delta_rnn, delta_rnn_recurrent, delta_rnn_step
from tests.ops.compare import make_mask, with_gradients

# Of a rule: its name for every step, the loop, one step, the state; axes between time and heads.
RNN = delta_rnn, delta_rnn_recurrent, delta_rnn_step, DeltaRNNState, ()
LSTM = delta_lstm, delta_lstm_recurrent, delta_lstm_step, DeltaLSTMState, (3,)
RULES = pytest.mark.parametrize("rule", [RNN, LSTM], ids=["rnn", "lstm"])


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


@RULES
@pytest.mark.parametrize("T", [1, 2, 33])
@pytest.mark.parametrize("H", [1, 3])
def test_the_loop_equals_steps(rule, T, H):
    name, _, step, state_type, _ = rule

    def steps(*tensors: Any) -> tuple[Tensor, Any]:
        carried, ys = tensors[4], []
        for t in range(T):
            y, carried = step(*(x[:, t] for x in tensors[:4]), carried)
            ys.append(y)
        return torch.stack(ys, 1), carried

    inputs, state = make_inputs(rule, T=T, H=H, D=5)
    want = with_gradients(flat(steps, state_type), [*inputs, *state])
    got = with_gradients(flat(name, state_type), [*inputs, *state])
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
def test_no_state_is_a_state_of_zeros(rule):
    inputs, state = make_inputs(rule)
    zeros = rule[3](*(torch.zeros_like(x) for x in state))
    torch.testing.assert_close(rule[0](*inputs), rule[0](*inputs, zeros))


@RULES
@pytest.mark.parametrize("cuts", [(0, 4, 5, 9), range(10)])
def test_pieces_equal_the_whole(rule, cuts):
    inputs, _ = make_inputs(rule, T=9)
    state, ys = None, []
    for piece in (slice(*ends) for ends in pairwise(cuts)):
        y, state = rule[0](*(x[:, piece] for x in inputs), state)
        ys.append(y)
    torch.testing.assert_close((torch.cat(ys, 1), state), rule[0](*inputs))


@RULES
def test_what_comes_later_changes_nothing_before(rule):
    inputs, _ = make_inputs(rule, T=9)
    later = [torch.cat([x[:, :6], x[:, 6:] + 7], 1) for x in inputs]
    assert torch.equal(rule[0](*inputs)[0][:, :6], rule[0](*later)[0][:, :6])


@RULES
def test_a_masked_step_changes_nothing(rule):
    inputs, state = make_inputs(rule, B=3, T=9)
    mask = make_mask(3, 9)
    form = partial(rule[0], mask=mask)
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
def test_the_state_is_accumulated_in_float32(rule):
    inputs, _ = make_inputs(rule, dtype=torch.bfloat16)
    y, state = rule[0](*inputs)
    assert y.dtype == torch.bfloat16
    assert {part.dtype for part in state} == {torch.float32}
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(rule[0](*inputs), (y, state), rtol=0, atol=0)


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
