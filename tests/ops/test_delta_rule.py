"""The delta rule: the step is the definition, every other form equals it."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastweights.kernels.backend import Backend
from fastweights.ops.delta_rule import (
    delta_rule,
    delta_rule_chunk,
    delta_rule_recurrent,
    delta_rule_step,
)
from tests.ops.compare import assert_near, numbers_kept, with_gradients


def delta_rule_cpu(*inputs: Tensor, **named: Any) -> tuple[Tensor, Tensor]:
    return delta_rule(*inputs, **named, backend="cpu")


def delta_rule_torch(*inputs: Tensor, **named: Any) -> tuple[Tensor, Tensor]:
    return delta_rule(*inputs, **named, backend="torch")


FORMS = [delta_rule_cpu, delta_rule_torch, delta_rule_recurrent, delta_rule_chunk]
CHUNK = 32


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
    """q, k (length 1), v, beta in [0, 2], memory."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    k = F.normalize(normal(B, T, H, K), dim=-1)
    beta = 2 * torch.rand(B, T, H, generator=generator, dtype=torch.float64)
    inputs = [normal(B, T, H, K), k, normal(B, T, H, V), beta, normal(B, H, K, V)]
    return [x.to(dtype) for x in inputs]


def stream(*inputs: Tensor, backend: Backend = "auto") -> tuple[Tensor, Tensor]:
    """One call of the bare op a step."""
    *series, memory = inputs
    outputs = []
    for t in range(series[0].shape[1]):
        now = [x[:, t : t + 1] for x in series]
        y, memory = delta_rule(*now, memory, backend=backend)
        outputs.append(y)
    return torch.cat(outputs, 1), memory


def stream_torch(*inputs: Tensor) -> tuple[Tensor, Tensor]:
    return stream(*inputs, backend="torch")


@pytest.mark.parametrize("form", [*FORMS, stream, stream_torch])
def test_golden_vectors(golden, form):
    rule = golden("delta")
    q, k, v, beta = (rule.inputs[name] for name in ("q", "k", "v", "beta"))
    y, memory = form(q, k, v, beta, torch.zeros_like(rule.final_state[0]))
    rule.check(y, [memory])


@pytest.mark.parametrize("form", FORMS)
def test_no_memory_is_a_memory_of_zeros(form):
    q, k, v, beta, memory = make_inputs(T=3)
    torch.testing.assert_close(form(q, k, v, beta), form(q, k, v, beta, torch.zeros_like(memory)))


@pytest.mark.parametrize("form", [delta_rule_cpu, delta_rule_recurrent, delta_rule_chunk])
def test_gradcheck(form):
    inputs = [x.requires_grad_() for x in make_inputs(T=4, K=3, V=2)]
    assert torch.autograd.gradcheck(form, inputs)


def test_gradcheck_across_chunks():
    inputs = [x.requires_grad_() for x in make_inputs(B=1, T=5, K=3, V=2)]
    assert torch.autograd.gradcheck(lambda *xs: delta_rule_chunk(*xs, chunk_size=2), inputs)


@pytest.mark.parametrize("H", [1, 3])
@pytest.mark.parametrize("T", [1, CHUNK - 1, CHUNK, CHUNK + 1, 130])
def test_every_form_equals_the_recurrent_one(T, H):
    inputs = make_inputs(T=T, H=H, K=8, V=5)
    want = with_gradients(delta_rule_recurrent, inputs)
    for form in (delta_rule_cpu, delta_rule_torch, delta_rule_chunk, stream, stream_torch):
        torch.testing.assert_close(with_gradients(form, inputs), want, atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize("chunk_size", [1, 2, 7, 64, 1000])
def test_chunk_size_does_not_matter(chunk_size):
    inputs = make_inputs(T=67, K=3, V=6)
    want = with_gradients(delta_rule_recurrent, inputs)
    got = with_gradients(lambda *xs: delta_rule_chunk(*xs, chunk_size=chunk_size), inputs)
    torch.testing.assert_close(got, want, atol=1e-11, rtol=1e-11)


def test_only_some_inputs_need_a_gradient():
    q, k, v, beta, memory = make_inputs(T=40)
    (want,) = torch.autograd.grad(delta_rule_recurrent(q, k, v.requires_grad_(), beta)[0].sum(), v)
    (got,) = torch.autograd.grad(delta_rule_chunk(q, k, v, beta)[0].sum(), v)
    torch.testing.assert_close(got, want)
    memory.requires_grad_()
    (want,) = torch.autograd.grad(
        delta_rule_recurrent(q, k, v.detach(), beta, memory)[1].sum(), memory
    )
    (got,) = torch.autograd.grad(delta_rule_chunk(q, k, v.detach(), beta, memory)[1].sum(), memory)
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("form", [delta_rule_cpu, delta_rule_torch])
@settings(max_examples=25, deadline=None)
@given(T=st.integers(2, 80), cut=st.floats(0.01, 0.99), seed=st.integers(0, 1000))
def test_pieces_equal_the_whole(form, T, cut, seed):
    q, k, v, beta, memory = make_inputs(T=T, seed=seed)
    n = min(max(1, int(cut * T)), T - 1)
    first, middle = form(q[:, :n], k[:, :n], v[:, :n], beta[:, :n], memory)
    second, last = form(q[:, n:], k[:, n:], v[:, n:], beta[:, n:], middle)
    got = torch.cat([first, second], 1), last
    torch.testing.assert_close(got, form(q, k, v, beta, memory), atol=1e-12, rtol=1e-11)


@pytest.mark.parametrize("form", FORMS)
def test_the_future_changes_nothing_before_it(form):
    T, n = 70, 37
    inputs = make_inputs(T=T)
    y = form(*inputs)[0][:, :n]
    garbage = [x.clone() for x in inputs]
    for x in garbage[:4]:
        x[:, n:] = 1e3
    assert torch.equal(form(*garbage)[0][:, :n], y)
    leaves = [x.requires_grad_() for x in inputs[:4]]
    gradients = torch.autograd.grad(form(*leaves, inputs[4])[0][:, :n].sum(), leaves)
    assert all(g[:, n:].abs().max() == 0 for g in gradients)


@pytest.mark.parametrize("form", FORMS)
def test_padding_changes_nothing(form):
    n = 37
    inputs = make_inputs(T=70)
    inputs[3][:, n:] = 0  # a step that writes with strength 0 leaves the memory
    short = [x[:, :n] for x in inputs[:4]]
    y, memory = form(*inputs)
    torch.testing.assert_close((y[:, :n], memory), form(*short, inputs[4]), atol=1e-12, rtol=1e-11)


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=20, deadline=None)
@given(T=st.integers(1, 70), seed=st.integers(0, 1000))
def test_beta_0_leaves_the_memory(form, T, seed):
    q, k, v, beta, memory = make_inputs(T=T, seed=seed)
    y, last = form(q, k, v, torch.zeros_like(beta), memory)
    assert torch.equal(last, memory)
    torch.testing.assert_close(y, torch.einsum("bthk,bhkv->bthv", q, memory))


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=20, deadline=None)
@given(T=st.integers(1, 70), seed=st.integers(0, 1000))
def test_beta_1_with_a_unit_key_stores_exactly(form, T, seed):
    _, k, v, beta, memory = make_inputs(T=T, seed=seed)
    y, last = form(k, k, v, torch.ones_like(beta), memory)
    torch.testing.assert_close(y, v, atol=1e-12, rtol=0)
    stored = torch.einsum("bhk,bhkv->bhv", k[:, -1], last)
    torch.testing.assert_close(stored, v[:, -1], atol=1e-12, rtol=0)


def correlated_keys(k: Tensor) -> Tensor:
    """Keys at cosine 0.999 of one direction: where a doubling inverse overflows."""
    common = F.normalize(k[:, :1], dim=-1)
    k = F.normalize(0.999 * common + (1 - 0.999**2) ** 0.5 * k, dim=-1)
    assert 0.998 < (k * common).sum(-1).mean() < 1
    return k


@pytest.mark.parametrize(("form", "bound"), [(delta_rule_cpu, 1e-5), (delta_rule_chunk, 1e-4)])
@pytest.mark.parametrize("T", [64, 1000])
def test_correlated_keys_at_beta_2_in_float32(form, bound, T):
    q, k, v, beta, memory = make_inputs(B=1, T=T, K=16, V=16)
    k = correlated_keys(k)
    inputs = [x.float() for x in (q, k, v, torch.full_like(beta, 2.0), memory)]
    want = with_gradients(delta_rule_recurrent, [x.double() for x in inputs])
    assert_near(with_gradients(form, inputs), want, bound)


@pytest.mark.parametrize("beta", [0.0, 1.0, 2.0, None])
@pytest.mark.parametrize("keys", ["random", "correlated", "nearly zero"])
def test_the_cpu_kernel_takes_back_16384_writes(keys, beta):
    q, k, v, strength, memory = make_inputs(B=1, T=16384, H=1, K=8, V=8)
    if keys == "correlated":
        k = correlated_keys(k)
    elif keys == "nearly zero":
        k = 1e-6 * k
    if beta is not None:
        strength = torch.full_like(strength, beta)
    inputs = [x.float() for x in (q, k, v, strength, memory)]
    doubles = [x.double() for x in inputs]
    want = with_gradients(delta_rule_chunk, doubles)  # the reference keeps 16,384 memories
    assert_near(with_gradients(delta_rule_cpu, doubles), want)
    assert_near(with_gradients(delta_rule_cpu, inputs), want)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("T", [1, 2, 33, 130])
@pytest.mark.parametrize(
    ("H", "K", "V"), [(1, 1, 1), (3, 5, 3), (1, 3, 16), (2, 24, 8), (1, 16, 65), (1, 65, 130)]
)
def test_the_cpu_kernel_at_any_size(dtype, T, H, K, V):
    inputs = make_inputs(T=T, H=H, K=K, V=V, dtype=dtype)
    want = with_gradients(delta_rule_recurrent, [x.double() for x in inputs])
    assert_near(with_gradients(delta_rule_cpu, inputs), want)


@pytest.mark.parametrize("form", [delta_rule_cpu, delta_rule_torch])
def test_views_of_one_projection(form):
    """Neither the time axis nor the heads are contiguous; the strengths are every 11th number."""
    generator = torch.Generator().manual_seed(0)
    heads = torch.randn(2, 9, 3 * 14, generator=generator, dtype=torch.float64)

    def split(x: Tensor) -> list[Tensor]:
        q, k, v, beta = x.unflatten(-1, (3, 14)).split([4, 4, 5, 1], -1)
        return [q, F.normalize(k, dim=-1), v, beta.squeeze(-1).sigmoid()]

    (got,) = with_gradients(lambda x: form(*split(x))[:1], [heads])[1:]
    (want,) = with_gradients(lambda x: delta_rule_recurrent(*split(x))[:1], [heads])[1:]
    torch.testing.assert_close(got, want)
    every_other = torch.randn(2, 9, 3, 8, generator=generator, dtype=torch.float64)[..., ::2]
    _, k, v, beta = split(heads)
    torch.testing.assert_close(
        form(every_other, k, v, beta), delta_rule_recurrent(every_other, k, v, beta)
    )


@pytest.mark.parametrize("form", [delta_rule_cpu, delta_rule_torch])
@pytest.mark.parametrize("T", [1, 9])
def test_a_masked_step_does_not_happen(form, T):
    inputs = make_inputs(B=3, T=T)
    mask = torch.rand(3, T, generator=torch.Generator().manual_seed(2)) < 0.5
    mask[0] = False
    got = with_gradients(lambda *xs: form(*xs, mask=mask), inputs)

    def only_counted_steps(*inputs: Tensor) -> tuple[Tensor, Tensor]:
        *series, memory = inputs
        ys, memories = [], []
        for b in range(3):
            y, last = torch.zeros_like(series[2][b : b + 1]), memory[b : b + 1]
            for t in range(T):
                if mask[b, t]:
                    y_t, last = delta_rule_step(*(x[b : b + 1, t] for x in series), last)
                    y = torch.cat([y[:, :t], y_t[:, None], y[:, t + 1 :]], 1)
            ys.append(y)
            memories.append(last)
        return torch.cat(ys), torch.cat(memories)

    torch.testing.assert_close(got, with_gradients(only_counted_steps, inputs))
    assert torch.equal(got[1][0], inputs[4][0])


def test_a_mask_of_another_shape_or_dtype_is_refused():
    inputs = make_inputs()
    with pytest.raises(ValueError, match=r"mask must be bool \[2, 5\], got torch.bool \[2, 4\]"):
        delta_rule(*inputs, mask=torch.ones(2, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"got torch.float32 \[2, 5\]"):
        delta_rule(*inputs, mask=torch.ones(2, 5))


@pytest.mark.parametrize("form", FORMS)
def test_nan_comes_out_and_stays_in_its_sequence(form):
    inputs = make_inputs(T=40)
    want = with_gradients(form, inputs)
    inputs[2][0, 3, 0, 0] = torch.nan
    got = with_gradients(form, inputs)
    assert got[0][0, 3:, 0].isnan().any()
    for x, y in zip(got, want, strict=True):
        torch.testing.assert_close(x[1:], y[1:])


def test_the_number_of_threads_changes_no_bit(set_num_threads):
    inputs = make_inputs(B=4, T=300, H=2, K=32, V=32, dtype=torch.float32)
    results = []
    for threads in (1, 2, 3):
        set_num_threads(threads)
        results.append(with_gradients(delta_rule_cpu, inputs))
    for other in results[1:]:
        assert all(torch.equal(x, y) for x, y in zip(results[0], other, strict=True))


def test_opcheck():
    from fastweights.kernels.cpu.delta_rule import _forward

    inputs = [x.requires_grad_() for x in make_inputs(K=3, V=4)]
    torch.library.opcheck(_forward, (*inputs, 4, True))
    torch.library.opcheck(_forward, (*(x.detach() for x in inputs), 4, False))


def test_compiles_without_a_graph_break():
    inputs = make_inputs()
    compiled = torch.compile(delta_rule, backend="aot_eager", fullgraph=True)
    want = with_gradients(delta_rule, inputs)
    torch.testing.assert_close(with_gradients(compiled, inputs), want)


def test_beta_above_2_is_computed_not_clamped():
    q, k, v, beta, memory = make_inputs(T=9)
    got = delta_rule_chunk(q, k, v, beta + 2, memory)
    torch.testing.assert_close(got, delta_rule_recurrent(q, k, v, beta + 2, memory))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_inputs_keep_a_float32_memory(form, dtype):
    inputs = make_inputs(T=40, dtype=dtype)[:4]
    y, memory = form(*inputs)
    assert (y.dtype, memory.dtype) == (dtype, torch.float32)
    want_y, want_memory = form(*[x.float() for x in inputs])
    torch.testing.assert_close((y, memory), (want_y.to(dtype), want_memory))


@pytest.mark.parametrize("form", FORMS)
def test_autocast_does_not_lower_the_precision(form):
    inputs = make_inputs(T=40, dtype=torch.float32)
    want = with_gradients(form, inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, memory = form(*inputs)
    assert torch.equal(y, want[0]) and torch.equal(memory, want[1])


def test_a_backward_pass_inside_autocast_keeps_its_precision():
    inputs = make_inputs(T=40, dtype=torch.float32)
    want = with_gradients(delta_rule_chunk, inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = with_gradients(delta_rule_chunk, inputs)
    assert all(torch.equal(x, y) for x, y in zip(got, want, strict=True))


def test_the_backward_pass_keeps_no_memory_of_a_step():
    inputs = make_inputs(B=1, T=512, H=1, K=32, V=32)
    assert numbers_kept(delta_rule_chunk, inputs) < 512 * 32 * 32 / 3
    assert numbers_kept(delta_rule_cpu, inputs) == 512 * 32 + 32 * 32  # errors, last memory


def test_long_sequence_without_gradients():
    q, k, v, beta, memory = make_inputs(B=1, T=5000, H=1, dtype=torch.float32)
    with torch.no_grad():
        y, last = delta_rule(q, k, v, beta, memory)
        want, want_last = delta_rule_recurrent(*(x.double() for x in (q, k, v, beta, memory)))
    torch.testing.assert_close((y.double(), last.double()), (want, want_last), atol=1e-4, rtol=1e-4)


def test_step_takes_one_step():
    q, k, v, beta, memory = make_inputs(T=1)
    y, last = delta_rule_step(q[:, 0], k[:, 0], v[:, 0], beta[:, 0], memory)
    assert y.shape == (2, 2, 3) and last.shape == memory.shape


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


def test_backends():
    inputs = make_inputs()
    want = delta_rule(*inputs, backend="torch")
    for backend in ("auto", "cpu"):
        torch.testing.assert_close(delta_rule(*inputs, backend=backend), want)
    with pytest.raises(ValueError, match="'triton' has no kernel for delta_rule"):
        delta_rule(*inputs, backend="triton")
    with pytest.raises(ValueError, match="'cuda' for delta_rule is unknown"):
        delta_rule(*inputs, backend="cuda")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'cpu' needs CPU tensors for delta_rule, got one on meta"):
        delta_rule(*(x.to("meta") for x in inputs), backend="cpu")
    with pytest.raises(ValueError, match="chunk_size=0"):
        delta_rule_chunk(*inputs, chunk_size=0)


def test_without_numba_the_chunk_form_runs(monkeypatch):
    monkeypatch.setattr("fastweights.kernels.backend.NUMBA_INSTALLED", False)
    inputs = make_inputs()
    torch.testing.assert_close(delta_rule(*inputs), delta_rule_chunk(*inputs), atol=0, rtol=0)
    with pytest.raises(ValueError, match="'cpu' needs Numba for delta_rule, which is not"):
        delta_rule(*inputs, backend="cpu")
