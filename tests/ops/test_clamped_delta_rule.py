"""The delta rule with a bounded memory: the step is the definition, every other form equals it."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fastweights.kernels.backend import Backend
from fastweights.ops.clamped_delta_rule import (
    clamped_delta_rule,
    clamped_delta_rule_recurrent,
    clamped_delta_rule_step,
)
from fastweights.ops.delta_rule import delta_rule_recurrent


def clamped_delta_rule_cpu(*inputs: Tensor, **named: Any) -> tuple[Tensor, Tensor]:
    return clamped_delta_rule(*inputs, **named, backend="cpu")


def clamped_delta_rule_torch(*inputs: Tensor, **named: Any) -> tuple[Tensor, Tensor]:
    return clamped_delta_rule(*inputs, **named, backend="torch")


FORMS = [clamped_delta_rule_cpu, clamped_delta_rule_recurrent]
BARE = [clamped_delta_rule_cpu, clamped_delta_rule_torch]


def make_inputs(
    B: int = 2,
    T: int = 5,
    H: int = 2,
    K: int = 4,
    V: int = 3,
    seed: int = 0,
    *,
    dtype: torch.dtype = torch.float64,
) -> list[Tensor]:
    """q, k in [-1, 1], v, beta in [0, 1], memory of norm 0.5; about half of the steps divide."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    v = 2 * normal(B, T, H, V) / math.sqrt(K * V)
    memory = normal(B, H, K, V)
    memory *= 0.5 / memory.flatten(2).norm(dim=-1)[..., None, None]
    beta = torch.rand(B, T, H, generator=generator, dtype=torch.float64)
    inputs = [normal(B, T, H, K).tanh(), normal(B, T, H, K).tanh(), v, beta, memory]
    return [x.to(dtype) for x in inputs]


def stream(*inputs: Tensor, backend: Backend = "auto") -> tuple[Tensor, Tensor]:
    """One call of the bare op a step."""
    *series, memory = inputs
    outputs = []
    for t in range(series[0].shape[1]):
        now = [x[:, t : t + 1] for x in series]
        y, memory = clamped_delta_rule(*now, memory, backend=backend)
        outputs.append(y)
    return torch.cat(outputs, 1), memory


def stream_torch(*inputs: Tensor) -> tuple[Tensor, Tensor]:
    return stream(*inputs, backend="torch")


def with_gradients(form: Callable[..., Any], inputs: list[Tensor]) -> list[Tensor]:
    """y, memory and the gradients of a random function of both."""
    leaves = [x.clone().requires_grad_() for x in inputs]
    results = form(*leaves)
    generator = torch.Generator().manual_seed(1)
    loss = sum(
        (x * torch.randn(x.shape, generator=generator, dtype=torch.float64)).sum() for x in results
    )
    return [*results, *torch.autograd.grad(loss, leaves)]


def relative_errors(got: list[Tensor], want: list[Tensor]) -> list[float]:
    """The largest error of each tensor as a part of its largest entry."""
    return [
        ((x.double() - y).abs().max() / y.abs().max()).item()
        for x, y in zip(got, want, strict=True)
    ]


def norms(memory: Tensor) -> Tensor:
    return memory.flatten(-2).norm(dim=-1)


@pytest.mark.parametrize("form", FORMS)
def test_three_steps_by_hand(form):
    k = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]], dtype=torch.float64)[None, :, None]
    v = torch.tensor([0.6, 0.8, 2.4], dtype=torch.float64)[None, :, None, None]
    beta = torch.tensor([1.0, 1.0, 0.5], dtype=torch.float64)[None, :, None]
    q = torch.ones_like(k)
    y, memory = form(q, k, v, beta)
    # [0.6, 0]; [0.6, 0.8], of norm 1; [0.6, 1.6], divided by its norm
    norm = math.sqrt(0.36 + 2.56)
    torch.testing.assert_close(y.flatten().tolist(), [0.6, 1.4, 2.2 / norm])
    torch.testing.assert_close(memory.flatten().tolist(), [0.6 / norm, 1.6 / norm])


def test_about_half_of_the_steps_divide():
    """What the other tests need of their inputs."""
    *series, memory = make_inputs(B=20, T=20)
    plain = []
    for t in range(20):
        now = [x[:, t] for x in series]
        _, written = delta_rule_recurrent(*(x[:, t : t + 1] for x in series), memory)
        plain.append(norms(written))
        _, memory = clamped_delta_rule_step(*now, memory)
    share = (torch.stack(plain) > 1).double().mean()
    assert 0.2 < share < 0.8


@given(T=st.integers(1, 30), scale=st.floats(0, 10), seed=st.integers(0, 1000))
@pytest.mark.parametrize("form", FORMS)
def test_the_norm_of_the_memory_is_1_at_most(form, T, scale, seed):
    q, k, v, beta, memory = make_inputs(T=T, seed=seed)
    _, last = form(q, k, scale * v, beta, memory)
    assert norms(last).max() <= 1 + 1e-12


@pytest.mark.parametrize("form", FORMS)
def test_without_a_division_it_is_the_delta_rule(form):
    q, k, v, beta, memory = make_inputs(T=20)
    inputs = [q, k, 0.01 * v, beta, 0.01 * memory]
    torch.testing.assert_close(
        with_gradients(form, inputs), with_gradients(delta_rule_recurrent, inputs)
    )


@pytest.mark.parametrize("form", FORMS)
def test_no_memory_is_a_memory_of_zeros(form):
    q, k, v, beta, memory = make_inputs(T=3)
    torch.testing.assert_close(form(q, k, v, beta), form(q, k, v, beta, torch.zeros_like(memory)))


@pytest.mark.parametrize("form", FORMS)
def test_gradcheck(form):
    inputs = [x.requires_grad_() for x in make_inputs(T=6, K=3, V=2)]
    assert torch.autograd.gradcheck(form, inputs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("T", [1, 2, 3, 5, 16, 17, 130])
@pytest.mark.parametrize(
    ("H", "K", "V"), [(1, 1, 2), (3, 5, 3), (1, 3, 16), (2, 24, 8), (1, 16, 65), (1, 65, 130)]
)
def test_the_cpu_kernel_at_any_size(dtype, T, H, K, V):
    """From 2 numbers on: one number is 1 or -1 after a division, which lets no gradient through."""
    inputs = make_inputs(T=T, H=H, K=K, V=V, dtype=dtype)
    want = with_gradients(clamped_delta_rule_recurrent, [x.double() for x in inputs])
    bound = 1e-5 if dtype == torch.float32 else 1e-10
    assert max(relative_errors(with_gradients(clamped_delta_rule_cpu, inputs), want)) <= bound


@pytest.mark.parametrize("values", ["one-hot", "large", "small"])
def test_float32_over_400_steps(values):
    """As the retrieval experiments write: every step divides; norms before it of 5 to 500."""
    q, k, v, beta, memory = make_inputs(T=400, H=1, K=64, V=20)
    if values == "one-hot":
        v = torch.eye(20, dtype=torch.float64)[v.argmax(-1)]
    elif values == "large":
        v = 1000 * v
    inputs = [x.float() for x in (q, k, v, beta, memory)]
    want = with_gradients(clamped_delta_rule_recurrent, [x.double() for x in inputs])
    assert max(relative_errors(with_gradients(clamped_delta_rule_cpu, inputs), want)) <= 1e-5


def test_long_keys_lose_about_what_the_loop_loses():
    """Norms of 10^7 before each division: their product over a few steps is beyond float32."""
    q, k, v, beta, memory = make_inputs(T=400, H=1, K=64, V=20)
    inputs = [x.float() for x in (q, 1000 * k, v, beta, memory)]
    want = with_gradients(clamped_delta_rule_recurrent, [x.double() for x in inputs])
    kernel, loop = (
        relative_errors(with_gradients(form, inputs), want)
        for form in (clamped_delta_rule_cpu, clamped_delta_rule_recurrent)
    )
    assert all(x <= 10 * y for x, y in zip(kernel, loop, strict=True))


@pytest.mark.parametrize("scale", [1.5e3, 3e3, 1e5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_write_may_take_a_long_memory_away(dtype, scale):
    """Of norm `scale` along one key; in its place comes a value of norm 2, of norm 0.2, or one
    behind steps that do not count."""
    k = torch.nn.functional.normalize(torch.arange(1.0, 6.0, dtype=dtype), dim=0)
    k = k.expand(3, 3, 1, 5).clone()
    direction = torch.nn.functional.normalize(torch.arange(3.0, -2.0, -1.0, dtype=dtype), dim=0)
    memory = (scale * k[0, 0, 0][:, None] * direction).expand(3, 1, 5, 5).clone()
    v = direction.expand(3, 3, 1, 5) * torch.tensor([2.0, 0.2, 2.0], dtype=dtype).view(3, 1, 1, 1)
    beta = torch.ones(3, 3, 1, dtype=dtype)
    mask = torch.ones(3, 3, dtype=torch.bool)
    mask[2, :2] = False
    y, last = clamped_delta_rule_cpu(k, k, v, beta, memory, mask=mask)
    want = clamped_delta_rule_recurrent(k, k, v, beta, memory, mask=mask)
    tolerance = 4 * scale * torch.finfo(dtype).eps
    torch.testing.assert_close((y, last), want, atol=tolerance, rtol=0)
    assert norms(last).max() <= 1 + 10 * torch.finfo(dtype).eps


def test_a_masked_step_leaves_infinity_where_it_is():
    q, k, v, beta, memory = make_inputs(T=5)
    memory[0, 0, 0, 0] = torch.inf
    y, last = clamped_delta_rule_cpu(
        q, k, v, beta, memory, mask=torch.zeros(2, 5, dtype=torch.bool)
    )
    assert torch.equal(last, memory) and not y.any()


@pytest.mark.parametrize("form", [stream, stream_torch])
def test_a_stream_of_steps_equals_the_recurrent_form(form):
    inputs = make_inputs(T=7)
    want = with_gradients(clamped_delta_rule_recurrent, inputs)
    torch.testing.assert_close(with_gradients(form, inputs), want)


@pytest.mark.parametrize("form", FORMS)
@given(T=st.integers(2, 40), cut=st.floats(0.01, 0.99), seed=st.integers(0, 1000))
def test_pieces_equal_the_whole(form, T, cut, seed):
    q, k, v, beta, memory = make_inputs(T=T, seed=seed)
    n = min(max(1, int(cut * T)), T - 1)
    first, middle = form(q[:, :n], k[:, :n], v[:, :n], beta[:, :n], memory)
    second, last = form(q[:, n:], k[:, n:], v[:, n:], beta[:, n:], middle)
    got = torch.cat([first, second], 1), last
    torch.testing.assert_close(got, form(q, k, v, beta, memory), atol=1e-12, rtol=1e-11)


@pytest.mark.parametrize("form", FORMS)
def test_the_future_changes_nothing_before_it(form):
    T, n = 40, 23
    inputs = make_inputs(T=T)
    y = form(*inputs)[0][:, :n]
    garbage = [x.clone() for x in inputs]
    for x in garbage[:4]:
        x[:, n:] = 1e3
    assert torch.equal(form(*garbage)[0][:, :n], y)
    leaves = [x.requires_grad_() for x in inputs[:4]]
    gradients = torch.autograd.grad(form(*leaves, inputs[4])[0][:, :n].sum(), leaves)
    assert all(g[:, n:].abs().max() == 0 for g in gradients)


@pytest.mark.parametrize("result", [0, 1])
def test_gradients_of_one_result_alone(result):
    q, *others = make_inputs(T=6)

    def alone(form: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *xs: form(q, *xs)[result : result + 1]

    got = with_gradients(alone(clamped_delta_rule_cpu), others)
    want = with_gradients(alone(clamped_delta_rule_recurrent), others)
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("form", BARE)
def test_views_of_one_projection(form):
    """Neither the time axis nor the heads are contiguous; the strengths are every 11th number."""
    generator = torch.Generator().manual_seed(0)
    heads = torch.randn(2, 9, 3 * 14, generator=generator, dtype=torch.float64)

    def split(x: Tensor) -> list[Tensor]:
        q, k, v, beta = x.unflatten(-1, (3, 14)).split([4, 4, 5, 1], -1)
        return [q, k.tanh(), v, beta.squeeze(-1).sigmoid()]

    got = with_gradients(lambda x: form(*split(x)), [heads])
    want = with_gradients(lambda x: clamped_delta_rule_recurrent(*split(x)), [heads])
    torch.testing.assert_close(got, want)
    every_other = torch.randn(2, 9, 3, 8, generator=generator, dtype=torch.float64)[..., ::2]
    _, k, v, beta = split(heads)
    torch.testing.assert_close(
        form(every_other, k, v, beta), clamped_delta_rule_recurrent(every_other, k, v, beta)
    )


@pytest.mark.parametrize("form", [*BARE, clamped_delta_rule_recurrent])
@pytest.mark.parametrize("T", [1, 9])
def test_a_masked_step_does_not_happen(form, T):
    inputs = make_inputs(B=3, T=T)
    inputs[4] *= 10  # norm 5: the first step that counts divides, no other does
    mask = torch.rand(3, T, generator=torch.Generator().manual_seed(2)) < 0.5
    mask[0] = False
    got = with_gradients(lambda *xs: form(*xs, mask=mask), inputs)

    def only_counted_steps(*inputs: Tensor) -> tuple[Tensor, Tensor]:
        *series, memory = inputs
        ys, memories = [], []
        for b in range(3):
            y, last = [torch.zeros_like(series[2][b : b + 1, 0])] * T, memory[b : b + 1]
            for t in range(T):
                if mask[b, t]:
                    y[t], last = clamped_delta_rule_step(*(x[b : b + 1, t] for x in series), last)
            ys.append(torch.stack(y, 1))
            memories.append(last)
        return torch.cat(ys), torch.cat(memories)

    torch.testing.assert_close(got, with_gradients(only_counted_steps, inputs))
    assert torch.equal(got[1][0], inputs[4][0])
    for x in inputs[:4]:  # padding may hold anything
        x[~mask] = torch.nan
    assert all(torch.equal(x, y) for x, y in zip(form(*inputs, mask=mask), got[:2], strict=True))


@pytest.mark.parametrize("form", BARE)
def test_a_mask_of_another_shape_is_refused(form):
    with pytest.raises(ValueError, match=r"mask must be bool \[2, 5\], got torch.bool \[2, 4\]"):
        form(*make_inputs(), mask=torch.ones(2, 4, dtype=torch.bool))


@pytest.mark.parametrize("form", FORMS)
def test_nan_comes_out_and_stays_in_its_sequence(form):
    """The norm carries it to every number of the memory."""
    inputs = make_inputs(T=20)
    want = with_gradients(form, inputs)
    inputs[2][0, 3, 0, 0] = torch.nan
    got = with_gradients(form, inputs)
    assert got[0][0, 3:, 0].isnan().all() and not got[0][0, :3].isnan().any()
    for x, y in zip(got, want, strict=True):
        torch.testing.assert_close(x[1:], y[1:])


def test_the_number_of_threads_changes_no_bit():
    inputs = make_inputs(B=4, T=100, H=2, K=32, V=32, dtype=torch.float32)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(with_gradients(clamped_delta_rule_cpu, inputs))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(x, y) for x, y in zip(results[0], other, strict=True))


def test_opcheck():
    from fastweights.kernels.cpu.clamped_delta_rule import _forward

    inputs = [x.requires_grad_() for x in make_inputs(K=3, V=4)]
    mask = torch.arange(5).expand(2, 5) < 4
    torch.library.opcheck(_forward, (*inputs, None, 4, True))
    torch.library.opcheck(_forward, (*inputs, mask, 4, True))
    torch.library.opcheck(_forward, (*(x.detach() for x in inputs), None, 4, False))


def test_compiles_without_a_graph_break():
    inputs = make_inputs()
    compiled = torch.compile(clamped_delta_rule, backend="aot_eager", fullgraph=True)
    want = with_gradients(clamped_delta_rule, inputs)
    torch.testing.assert_close(with_gradients(compiled, inputs), want)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_inputs_keep_a_float32_memory(form, dtype):
    inputs = make_inputs(T=20, dtype=dtype)[:4]
    y, memory = form(*inputs)
    assert (y.dtype, memory.dtype) == (dtype, torch.float32)
    want_y, want_memory = form(*[x.float() for x in inputs])
    torch.testing.assert_close((y, memory), (want_y.to(dtype), want_memory))


@pytest.mark.parametrize("form", FORMS)
def test_autocast_does_not_lower_the_precision(form):
    inputs = make_inputs(T=20, dtype=torch.float32)
    want = form(*inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = form(*inputs)
    assert all(torch.equal(x, y) for x, y in zip(got, want, strict=True))


@pytest.mark.parametrize("T", [1, 7, 100, 101, 400])
def test_the_backward_pass_keeps_about_half_root_t_memories(T):
    K, V, lanes = 3, 4, 4
    inputs = [x.requires_grad_() for x in make_inputs(B=1, T=T, H=1, K=K, V=V)]
    given = {x.untyped_storage().data_ptr() for x in inputs}
    saved: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in given:
            saved[storage.data_ptr()] = storage.nbytes() // x.element_size()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        clamped_delta_rule_cpu(*inputs)
    memories = (sum(saved.values()) - T * (2 * lanes + 1)) / (K * lanes)
    assert memories == int(memories) and memories <= math.ceil(math.sqrt(T) / 2) + 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": torch.zeros(2, 5, 2, 7)}, r"k \[2, 5, 2, 7\]"),
        ({"v": torch.zeros(2, 4, 2, 3)}, r"v \[2, 4, 2, 3\]"),
        ({"beta": torch.zeros(2, 5, 2, 1)}, r"beta \[2, 5, 2, 1\]"),
        ({"memory": torch.zeros(2, 2, 3, 4)}, r"memory \[2, 2, 3, 4\]"),
    ],
)
@pytest.mark.parametrize("form", FORMS)
def test_wrong_shapes_are_named(form, change, message):
    names = ("q", "k", "v", "beta", "memory")
    inputs = dict(zip(names, make_inputs(dtype=torch.float32), strict=True)) | change
    with pytest.raises(ValueError, match=message) as error:
        form(**inputs)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("form", FORMS)
def test_an_empty_sequence_is_refused(form):
    q, k, v, beta, memory = make_inputs(T=2)
    with pytest.raises(ValueError, match=r"T >= 1, got q \[2, 0, 2, 4\]"):
        form(q[:, :0], k[:, :0], v[:, :0], beta[:, :0], memory)


def test_backends(monkeypatch):
    inputs = make_inputs()
    want = clamped_delta_rule_recurrent(*inputs)
    assert torch.equal(clamped_delta_rule(*inputs, backend="torch")[0], want[0])
    for backend in ("auto", "cpu"):
        torch.testing.assert_close(clamped_delta_rule(*inputs, backend=backend), want)
    with pytest.raises(ValueError, match="'triton' has no kernel for clamped_delta_rule"):
        clamped_delta_rule(*inputs, backend="triton")
    monkeypatch.setattr("fastweights.kernels.backend.NUMBA_INSTALLED", False)
    assert torch.equal(clamped_delta_rule(*inputs)[0], want[0])
