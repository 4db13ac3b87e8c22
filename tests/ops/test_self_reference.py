"""The self-referential weight matrix: golden vectors, gradients at any length, pieces."""

import pytest
import torch
from torch import Tensor

from fastweights.ops.self_reference import (
    SelfReferenceState,
    self_reference,
    self_reference_recurrent,
    self_reference_step,
)


def make_inputs(B=2, T=5, H=3, D=4, dtype=torch.float64) -> list[Tensor]:
    """x and the four parts of the initial weights."""
    g = torch.Generator().manual_seed(0)
    sizes = [(B, T, H, D)] + [(B, H, D, D)] * 3 + [(B, H, D, 4)]
    return [torch.randn(size, generator=g, dtype=dtype).requires_grad_() for size in sizes]


def run_steps(x: Tensor, *parts: Tensor) -> tuple[Tensor, SelfReferenceState]:
    state, ys = SelfReferenceState(*parts), []
    for x_t in x.unbind(1):
        y, state = self_reference_step(x_t, state)
        ys.append(y)
    return torch.stack(ys, 1), state


def gradients(result: tuple[Tensor, SelfReferenceState], leaves: list[Tensor]) -> list[Tensor]:
    y, state = result
    loss = (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)).sum()
    return list(torch.autograd.grad(loss + sum(part.sum() for part in state), leaves))


def test_golden(golden):
    vectors = golden("srwm")
    i = vectors.inputs
    state = SelfReferenceState(i["Wy"], i["Wq"], i["Wk"], i["wb"])
    y, final = self_reference(i["x"], state)
    vectors.check(y, list(final))


@pytest.mark.parametrize("T", [1, 2, 5])
def test_gradcheck(T):
    inputs = make_inputs(B=1, T=T, H=2, D=3)

    def run(x: Tensor, *parts: Tensor) -> tuple[Tensor, ...]:
        y, final = self_reference_recurrent(x, SelfReferenceState(*parts))
        return y, *final

    assert torch.autograd.gradcheck(run, inputs)


@pytest.mark.parametrize("T", [1, 2, 33, 130])
@pytest.mark.parametrize(("H", "D"), [(1, 2), (3, 5)])
def test_recurrent_equals_steps(T, H, D):
    inputs = make_inputs(T=T, H=H, D=D)
    got = self_reference(inputs[0], SelfReferenceState(*inputs[1:]))
    want = run_steps(*inputs)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(gradients(got, inputs), gradients(want, inputs))


@pytest.mark.parametrize(("T", "D"), [(700, 4), (200, 16), (8, 32), (8, 24), (5, 65)])
def test_gradients_at_the_sizes_where_the_official_kernel_is_wrong(T, D):
    """Beyond one shared-memory segment, and at head sizes like 24 and 32."""
    inputs = make_inputs(B=1, T=T, H=1, D=D)
    inputs[1:] = [(0.5 * x).detach().requires_grad_() for x in inputs[1:]]
    got = gradients(self_reference(inputs[0], SelfReferenceState(*inputs[1:])), inputs)
    want = gradients(run_steps(*inputs), inputs)
    torch.testing.assert_close(got, want)


def test_pieces_equal_the_whole():
    x, *parts = make_inputs(T=9)
    whole = self_reference(x, SelfReferenceState(*parts))
    state, ys = SelfReferenceState(*parts), []
    for piece in (slice(0, 4), slice(4, 5), slice(5, 9)):
        y, state = self_reference(x[:, piece], state)
        ys.append(y)
    torch.testing.assert_close((torch.cat(ys, 1), state), whole)


def test_what_comes_later_changes_nothing_before():
    x, *parts = make_inputs(T=9)
    y, _ = self_reference(x, SelfReferenceState(*parts))
    later = torch.cat([x[:, :6], x[:, 6:] + 7], 1)
    y_later, _ = self_reference(later, SelfReferenceState(*parts))
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
    with pytest.raises(ValueError, match=r"x must be \[B, T, H, D\], T >= 1, got \[5, 3, 4\]"):
        self_reference(x[0], state)


def test_the_step_is_in_float32_as_well():
    x, *parts = make_inputs(T=1, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        y, state = self_reference_step(x[:, 0], SelfReferenceState(*parts))
    want, want_state = self_reference(x, SelfReferenceState(*parts))
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close((y, state), (want[:, 0], want_state))
