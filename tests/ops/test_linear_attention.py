"""Linear attention: the step is the definition, every other form equals it."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastweights.ops.linear_attention import (
    LinearAttentionState,
    linear_attention,
    linear_attention_chunk,
    linear_attention_recurrent,
    linear_attention_step,
    linear_attention_weights,
)
from tests.ops.compare import assert_near, numbers_kept, with_gradients

CHUNK = 64
SIZES = [(1, 1), (3, 5), (8, 8), (16, 24), (65, 5)]  # K, V


def in_torch(*inputs: Any, **options: Any) -> tuple[Tensor, LinearAttentionState]:
    """The bare op without its kernel."""
    return linear_attention(*inputs, backend="torch", **options)


FORMS = [linear_attention, in_torch, linear_attention_recurrent, linear_attention_chunk]
KERNEL = partial(linear_attention, backend="cpu")


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
    """q, k (positive), v, memory, key_sum (positive)."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    inputs = [normal(B, T, H, K).exp(), normal(B, T, H, K).exp(), normal(B, T, H, V)]
    inputs += [normal(B, H, K, V), normal(B, H, K).exp()]
    return [x.to(dtype) for x in inputs]


def flat(form: Callable[..., Any], **options: Any) -> Callable[..., list[Tensor]]:
    """`form` with tensors only: q, k, v, memory, key_sum -> y, memory, key_sum."""

    def call(q: Tensor, k: Tensor, v: Tensor, memory: Tensor, key_sum: Tensor) -> list[Tensor]:
        y, state = form(q, k, v, LinearAttentionState(memory, key_sum), **options)
        return [y, *state]

    return call


def stream(
    q: Tensor, k: Tensor, v: Tensor, state: LinearAttentionState, *, normalize: bool = False
) -> tuple[Tensor, LinearAttentionState]:
    """One call of the bare op a step."""
    outputs = []
    for t in range(q.shape[1]):
        now = slice(t, t + 1)
        y, state = linear_attention(q[:, now], k[:, now], v[:, now], state, normalize=normalize)
        outputs.append(y)
    return torch.cat(outputs, 1), state


@pytest.mark.parametrize("form", [*FORMS, stream])
def test_golden_vectors(golden, form):
    rule = golden("linear_attn")
    zeros = torch.zeros_like(rule.final_state[0])
    state = LinearAttentionState(zeros, zeros[..., 0])
    y, state = form(rule.inputs["q"], rule.inputs["k"], rule.inputs["v"], state)
    rule.check(y, [state.memory])
    torch.testing.assert_close(state.key_sum, rule.inputs["k"].sum(1))


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_no_state_is_a_state_of_zeros(form, normalize):
    q, k, v, memory, key_sum = make_inputs(T=3)
    zeros = LinearAttentionState(torch.zeros_like(memory), torch.zeros_like(key_sum))
    got = form(q, k, v, normalize=normalize)
    torch.testing.assert_close(got, form(q, k, v, zeros, normalize=normalize))


@pytest.mark.parametrize("form", FORMS)
def test_normalized_is_attention_with_weights_that_sum_to_one(form):
    q, k, v, *_ = make_inputs(T=70)
    weights = torch.einsum("bthk,bshk->bhts", q, k).tril()
    weights = weights / (weights.sum(-1, keepdim=True) + 1e-6)
    want = torch.einsum("bhts,bshv->bthv", weights, v)
    torch.testing.assert_close(form(q, k, v, normalize=True)[0], want)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("form", [linear_attention_recurrent, linear_attention_chunk])
def test_gradcheck(form, normalize):
    inputs = [x.requires_grad_() for x in make_inputs(T=4, K=3, V=2)]
    assert torch.autograd.gradcheck(flat(form, normalize=normalize), inputs)


def test_gradcheck_across_chunks():
    inputs = [x.requires_grad_() for x in make_inputs(B=1, T=5, K=3, V=2)]
    assert torch.autograd.gradcheck(
        flat(linear_attention_chunk, chunk_size=2, normalize=True), inputs
    )


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("H", [1, 3])
@pytest.mark.parametrize("T", [1, CHUNK - 1, CHUNK, CHUNK + 1, 130])
def test_chunk_equals_recurrent_equals_steps(T, H, normalize):
    inputs = make_inputs(T=T, H=H, K=8, V=5)
    want = with_gradients(flat(linear_attention_recurrent, normalize=normalize), inputs)
    for form in (linear_attention, in_torch, linear_attention_chunk, stream):
        got = with_gradients(flat(form, normalize=normalize), inputs)
        torch.testing.assert_close(got, want, atol=1e-10, rtol=1e-11)


@pytest.mark.parametrize("chunk_size", [1, 2, 7, 32, 1000])
def test_chunk_size_does_not_matter(chunk_size):
    inputs = make_inputs(T=67, K=3, V=6)
    want = with_gradients(flat(linear_attention_recurrent), inputs)
    got = with_gradients(flat(linear_attention_chunk, chunk_size=chunk_size), inputs)
    torch.testing.assert_close(got, want, atol=1e-10, rtol=1e-11)


@settings(max_examples=25, deadline=None)
@given(
    T=st.integers(2, 140),
    cut=st.floats(0.01, 0.99),
    seed=st.integers(0, 1000),
    normalize=st.booleans(),
)
def test_pieces_equal_the_whole(T, cut, seed, normalize):
    q, k, v, *state = make_inputs(T=T, seed=seed)
    form = partial(linear_attention, normalize=normalize)
    n = min(max(1, int(cut * T)), T - 1)
    first, middle = form(q[:, :n], k[:, :n], v[:, :n], LinearAttentionState(*state))
    second, last = form(q[:, n:], k[:, n:], v[:, n:], middle)
    got = torch.cat([first, second], 1), last
    want = form(q, k, v, LinearAttentionState(*state))
    torch.testing.assert_close(got, want, atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_the_future_changes_nothing_before_it(form, normalize):
    T, n = 70, 37
    call = flat(form, normalize=normalize)
    inputs = make_inputs(T=T)
    y = call(*inputs)[0][:, :n]
    garbage = [x.clone() for x in inputs]
    for x in garbage[:3]:
        x[:, n:] = 1e3
    assert torch.equal(call(*garbage)[0][:, :n], y)
    leaves = [x.requires_grad_() for x in inputs[:3]]
    gradients = torch.autograd.grad(call(*leaves, *inputs[3:])[0][:, :n].sum(), leaves)
    assert all(g[:, n:].abs().max() == 0 for g in gradients)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_padding_changes_nothing(form, normalize):
    n = 37
    call = flat(form, normalize=normalize)
    inputs = make_inputs(T=70)
    inputs[1][:, n:] = 0  # a key of zeros leaves the state
    y, *state = call(*inputs)
    want = call(*(x[:, :n] for x in inputs[:3]), *inputs[3:])
    torch.testing.assert_close([y[:, :n], *state], want, atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=20, deadline=None)
@given(T=st.integers(1, 140), seed=st.integers(0, 1000))
def test_one_association_is_read_back(form, T, seed):
    """Unit vectors as keys, each written once: the memory is the table of the values."""
    _, _, v, *_ = make_inputs(T=T, seed=seed)
    keys = torch.eye(T, dtype=v.dtype)[None, :, None].expand(2, T, 2, T)
    y, state = form(keys, keys, v)
    torch.testing.assert_close(y, v)
    torch.testing.assert_close(state.memory, v.transpose(1, 2))
    assert torch.equal(state.key_sum, torch.ones(2, 2, T, dtype=v.dtype))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_inputs_keep_a_float32_memory(form, dtype):
    inputs = make_inputs(T=70, dtype=dtype)[:3]
    y, state = form(*inputs, normalize=True)
    dtypes = (y.dtype, state.memory.dtype, state.key_sum.dtype)
    assert dtypes == (dtype, torch.float32, torch.float32)
    want, want_state = form(*[x.float() for x in inputs], normalize=True)
    torch.testing.assert_close((y, state), (want.to(dtype), want_state))


@pytest.mark.parametrize("form", FORMS)
def test_autocast_does_not_lower_the_precision(form):
    inputs = make_inputs(T=70, dtype=torch.float32)
    want = flat(form, normalize=True)(*inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = flat(form, normalize=True)(*inputs)
    assert all(torch.equal(x, y) for x, y in zip(got, want, strict=True))


def test_the_backward_pass_keeps_no_memory_of_a_step():
    inputs = make_inputs(B=1, T=512, H=1, K=32, V=32)
    chunk = flat(linear_attention_chunk, normalize=True)
    assert 0 < numbers_kept(chunk, inputs) < 512 * 32 * 32 / 3


def test_long_sequence_without_gradients():
    q, k, v, *_ = make_inputs(B=1, T=5000, H=1, dtype=torch.float32)
    with torch.no_grad():
        y, _ = linear_attention(q, k, v, normalize=True)
        want, _ = linear_attention_recurrent(q.double(), k.double(), v.double(), normalize=True)
    torch.testing.assert_close(y.double(), want, atol=1e-4, rtol=1e-4)


def test_step_takes_one_step():
    q, k, v, memory, key_sum = make_inputs(T=1)
    state = LinearAttentionState(memory, key_sum)
    y, state = linear_attention_step(q[:, 0], k[:, 0], v[:, 0], state)
    assert y.shape == (2, 2, 3) and state.memory.shape == memory.shape


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": torch.zeros(2, 5, 2, 7)}, r"k \[2, 5, 2, 7\]"),
        ({"v": torch.zeros(2, 4, 2, 3)}, r"v \[2, 4, 2, 3\]"),
        (
            {"state": LinearAttentionState(torch.zeros(2, 2, 4, 3), torch.zeros(2, 2, 3))},
            r"state \[\[2, 2, 4, 3\], \[2, 2, 3\]\]",
        ),
    ],
)
@pytest.mark.parametrize("form", FORMS)
def test_wrong_shapes_are_named(form, change, message):
    q, k, v, *_ = make_inputs(dtype=torch.float32)
    inputs = {"q": q, "k": k, "v": v, "state": None} | change
    with pytest.raises(ValueError, match=message) as error:
        form(**inputs)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("form", FORMS)
def test_an_empty_sequence_is_refused(form):
    q, k, v, *_ = make_inputs(T=2)
    with pytest.raises(ValueError, match=r"T >= 1, got q \[2, 0, 2, 4\]"):
        form(q[:, :0], k[:, :0], v[:, :0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("K", "V"), SIZES)
@pytest.mark.parametrize("T", [1, 2, 33, 130])
def test_the_kernel_equals_the_reference(T, K, V, dtype):
    for H, normalize in ((1, K > 1), (3, False)):  # one key: y does not depend on a normalised q
        inputs = make_inputs(T=T, H=H, K=K, V=V, dtype=dtype)
        reference = flat(linear_attention_recurrent, normalize=normalize)
        want = with_gradients(reference, [x.double() for x in inputs])
        assert_near(with_gradients(flat(KERNEL, normalize=normalize), inputs), want)


@pytest.mark.parametrize("normalize", [False, True])
def test_a_long_sequence_of_positive_features_in_float32(normalize):
    """The memory grows for 16,384 steps: what the first of them wrote is the last to be lost."""
    q, k, v, *state = make_inputs(B=1, T=16_384, H=1, K=8, V=8, dtype=torch.float32)
    inputs = [F.elu(q.log()) + 1, F.elu(k.log()) + 1, v, *state]
    reference = flat(linear_attention_chunk, normalize=normalize)  # no loop: that takes a minute
    want = with_gradients(reference, [x.double() for x in inputs])
    assert_near(with_gradients(flat(KERNEL, normalize=normalize), inputs), want)


@pytest.mark.parametrize("form", [linear_attention, in_torch])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("T", [1, 9])
def test_masked_steps_do_not_count(T, normalize, form):
    """As if they were not there: the state, the other outputs and every gradient."""
    inputs = make_inputs(B=3, T=T)
    mask = torch.rand(3, T, generator=torch.Generator().manual_seed(0)) < 0.6
    mask[0], mask[1] = False, True

    def without_masked_steps(*inputs: Tensor) -> list[Tensor]:
        y = torch.zeros_like(inputs[2])
        states = []
        for b, counted in enumerate(mask):
            q, k, v, *state = (x[b : b + 1] for x in inputs)
            if counted.any():
                some = (x[:, counted] for x in (q, k, v))
                read, *state = flat(linear_attention_recurrent, normalize=normalize)(*some, *state)
                y[b, counted] = read[0]
            states.append(state)
        return [y, *(torch.cat(parts) for parts in zip(*states, strict=True))]

    got = with_gradients(flat(form, normalize=normalize, mask=mask), inputs)
    torch.testing.assert_close(got, with_gradients(without_masked_steps, inputs))
    y, memory, key_sum = got[:3]
    assert y[~mask].abs().max() == 0
    assert torch.equal(memory[0], inputs[3][0]) and torch.equal(key_sum[0], inputs[4][0])


@pytest.mark.parametrize("mask", [torch.ones(2, 5), torch.ones(2, 4, dtype=torch.bool)])
def test_a_mask_that_does_not_fit_is_named(mask):
    q, k, v, *_ = make_inputs()
    with pytest.raises(ValueError, match=r"mask must be bool \[2, 5\], got torch"):
        linear_attention(q, k, v, mask=mask)


def test_the_kernel_takes_views_of_one_projection():
    *_, memory, key_sum = make_inputs(T=7, K=4, V=4)
    projection = torch.randn(2, 7, 24, generator=torch.Generator().manual_seed(0)).double()

    def split(form: Callable[..., Any]) -> Callable[..., list[Tensor]]:
        return lambda x, *state: flat(form)(*x.unflatten(-1, (2, -1)).chunk(3, -1), *state)

    for x in (projection, projection.mT.contiguous().mT):  # steps or features side by side
        got = with_gradients(split(KERNEL), [x, memory, key_sum])
        assert_near(got, with_gradients(split(linear_attention_recurrent), [x, memory, key_sum]))


def test_nan_stays_in_its_sequence():
    inputs = make_inputs(T=9, K=8, V=8)
    want = with_gradients(flat(KERNEL), inputs)
    inputs[1][0, 4, 0, 0] = torch.nan
    got = with_gradients(flat(KERNEL), inputs)
    assert all(torch.equal(x[1], y[1]) for x, y in zip(got, want, strict=True))
    y, memory = got[:2]
    assert y[0, 4:, 0].isnan().all() and memory[0, 0, 0].isnan().all()
    assert torch.equal(y[0, :4], want[0][0, :4]) and torch.equal(y[0, :, 1], want[0][0, :, 1])


def test_the_number_of_threads_does_not_matter(set_num_threads):
    inputs = make_inputs(B=3, T=300, K=16, V=16, dtype=torch.float32)
    got = []
    for threads in (1, 2):
        set_num_threads(threads)
        got.append(with_gradients(flat(KERNEL), inputs))
    assert all(torch.equal(x, y) for x, y in zip(*got, strict=True))


def test_the_kernel_is_a_well_behaved_operator():
    from fastweights.kernels.cpu.linear_attention import _sum_rule

    for K, V in ((8, 8), (3, 5)):
        inputs = [x.requires_grad_() for x in make_inputs(K=K, V=V)[:4]]
        for reverse in (False, True):
            torch.library.opcheck(_sum_rule, (*inputs, reverse))


def test_the_kernel_is_differentiable_twice():
    inputs = [x.requires_grad_() for x in make_inputs(B=1, T=3, H=1, K=3, V=2)]
    assert torch.autograd.gradgradcheck(flat(KERNEL, normalize=True), inputs)


def test_compiled_without_a_break():
    inputs = make_inputs(T=9, K=8, V=8)
    compiled = torch.compile(flat(KERNEL, normalize=True), fullgraph=True, backend="aot_eager")
    want = with_gradients(flat(KERNEL, normalize=True), inputs)
    torch.testing.assert_close(with_gradients(compiled, inputs), want)


def test_the_kernel_keeps_nothing_but_its_inputs():
    assert numbers_kept(flat(KERNEL), make_inputs(T=50)) == 0


def test_backends():
    q, k, v, *_ = make_inputs()
    want = linear_attention(q, k, v, backend="cpu")
    torch.testing.assert_close(linear_attention(q, k, v, backend="torch"), want)
    assert torch.equal(linear_attention(q, k, v)[0], want[0])
    with pytest.raises(ValueError, match=r"'triton' has no kernel for linear_attention"):
        linear_attention(q, k, v, backend="triton")
    on_meta = (x.to("meta") for x in (q, k, v))
    with pytest.raises(ValueError, match=r"'cpu' needs CPU tensors for linear_attention, .* meta"):
        linear_attention(*on_meta, backend="cpu")


@pytest.mark.parametrize("normalize", [False, True])
def test_weights_are_how_much_of_each_value_is_read_after_the_last_step(normalize):
    _, k, v, _, _ = make_inputs(T=9, H=3)
    q, *_ = make_inputs(T=4, H=3, seed=2)
    _, state = linear_attention_recurrent(k, k, v)
    want = torch.einsum("bmhk,bhkv->bmhv", q, state.memory)
    if normalize:
        want = want / (torch.einsum("bmhk,bhk->bmh", q, state.key_sum) + 1e-6)[..., None]
    weights = linear_attention_weights(q, k, normalize=normalize)
    torch.testing.assert_close(torch.einsum("bhmt,bthv->bmhv", weights, v), want)
