"""The Recurrent Delta rule: golden vectors, gradients, pieces, causality, messages."""

import pytest
import torch
from torch import Tensor

from fastweights.ops.recurrent_delta import (
    RecurrentDeltaState,
    recurrent_delta,
    recurrent_delta_recurrent,
    recurrent_delta_step,
)


def make_inputs(B=2, T=5, H=3, D=4, dtype=torch.float64) -> tuple[list[Tensor], list[Tensor]]:
    """Raw q, k, v, beta_logit and the four recurrent weights; memory and output of a state."""
    g = torch.Generator().manual_seed(0)
    sizes = [(B, T, H, D)] * 3 + [(B, T, H)] + [(H, D, D)] * 3 + [(H, D)]
    sizes += [(B, H, D, D), (B, H, D)]
    tensors = [torch.randn(size, generator=g, dtype=dtype).requires_grad_() for size in sizes]
    return tensors[:8], tensors[8:]


def test_golden(golden):
    vectors = golden("rec_delta")
    i = vectors.inputs
    y, state = recurrent_delta(
        i["qx"], i["kx"], i["vx"], i["bx"], i["Rq"], i["Rk"], i["Rv"], i["rb"]
    )
    vectors.check(y, list(state))


@pytest.mark.parametrize("T", [1, 2, 5])
def test_gradcheck(T):
    inputs, state = make_inputs(B=1, T=T, H=2, D=3)

    def run(*tensors: Tensor) -> tuple[Tensor, ...]:
        y, final = recurrent_delta_recurrent(*tensors[:8], RecurrentDeltaState(*tensors[8:]))
        return y, *final

    assert torch.autograd.gradcheck(run, (*inputs, *state))


@pytest.mark.parametrize("T", [1, 2, 33, 130])
@pytest.mark.parametrize("H", [1, 3])
def test_recurrent_equals_steps(T, H):
    inputs, state = make_inputs(T=T, H=H, D=5)
    carried, ys = RecurrentDeltaState(*state), []
    for t in range(T):
        y, carried = recurrent_delta_step(*(x[:, t] for x in inputs[:4]), *inputs[4:], carried)
        ys.append(y)
    want = torch.stack(ys, 1), carried
    got = recurrent_delta(*inputs, RecurrentDeltaState(*state))
    torch.testing.assert_close(got, want)
    leaves = [*inputs, *state]
    torch.testing.assert_close(gradients(got, leaves), gradients(want, leaves))


def gradients(result: tuple[Tensor, RecurrentDeltaState], leaves: list[Tensor]) -> list[Tensor]:
    y, state = result
    loss = (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)).sum()
    return list(torch.autograd.grad(loss + state.memory.square().sum(), leaves))


def test_pieces_equal_the_whole():
    inputs, _ = make_inputs(T=9)
    whole = recurrent_delta(*inputs)
    state, ys = None, []
    for piece in (slice(0, 4), slice(4, 5), slice(5, 9)):
        y, state = recurrent_delta(*(x[:, piece] for x in inputs[:4]), *inputs[4:], state)
        ys.append(y)
    torch.testing.assert_close((torch.cat(ys, 1), state), whole)


def test_what_comes_later_changes_nothing_before():
    inputs, _ = make_inputs(T=9)
    later = [torch.cat([x[:, :6], x[:, 6:] + 7], 1) for x in inputs[:4]]
    y, _ = recurrent_delta(*inputs)
    y_later, _ = recurrent_delta(*later, *inputs[4:])
    assert torch.equal(y[:, :6], y_later[:, :6])


def test_the_state_is_accumulated_in_float32():
    inputs, _ = make_inputs(dtype=torch.bfloat16)
    y, state = recurrent_delta(*inputs)
    assert y.dtype == torch.bfloat16
    assert {part.dtype for part in state} == {torch.float32}


def test_messages_name_the_shape():
    inputs, _ = make_inputs()
    with pytest.raises(ValueError, match=r"beta_logit must be \[2, 5, 3\].*got \[2, 5, 3, 1\]"):
        recurrent_delta(*inputs[:3], inputs[3][..., None], *inputs[4:])
    with pytest.raises(ValueError, match=r"q must be \[B, T, H, D\], T >= 1, got \[5, 3, 4\]"):
        recurrent_delta(inputs[0][0], *inputs[1:])
    with pytest.raises(ValueError, match="backend='triton' has no kernel for recurrent_delta"):
        recurrent_delta(*inputs, backend="triton")


def test_autocast_does_not_lower_the_precision():
    inputs, _ = make_inputs(dtype=torch.float32)
    want = recurrent_delta(*inputs)
    with torch.autocast("cpu", torch.bfloat16):
        got = recurrent_delta(*inputs)
    torch.testing.assert_close(got, want, rtol=0, atol=0)


def test_the_step_is_in_float32_as_well():
    inputs, state = make_inputs(T=1, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        y, carried = recurrent_delta_step(
            *(x[:, 0] for x in inputs[:4]), *inputs[4:], RecurrentDeltaState(*state)
        )
    want, want_state = recurrent_delta(*inputs, RecurrentDeltaState(*state))
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close((y, carried), (want[:, 0], want_state))
