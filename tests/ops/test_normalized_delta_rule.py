"""The delta rule with attention normalisation: the step is the definition."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fastweights.ops.feature_maps import dpfp, elu_plus_one, sum_normalize
from fastweights.ops.normalized_delta_rule import (
    NormalizedDeltaRuleState,
    normalized_delta_rule,
    normalized_delta_rule_recurrent,
    normalized_delta_rule_step,
    normalized_delta_rule_weights,
)

State = NormalizedDeltaRuleState
Result = tuple[Tensor, Tensor, Tensor]  # y, memory, key sum


def flat(form: Callable[..., Any]) -> Callable[..., Result]:
    """The state as two tensors: (q, k, v, beta, memory, key_sum) -> (y, memory, key_sum)."""

    def of_tensors(*inputs: Tensor, **named: Any) -> Result:
        y, state = form(*inputs[:4], State(*inputs[4:]) if inputs[4:] else None, **named)
        return y, *state

    return of_tensors


def on_cpu_kernel(*inputs: Any, **named: Any) -> tuple[Tensor, State]:
    return normalized_delta_rule(*inputs, **named, backend="cpu")


def on_torch(*inputs: Any, **named: Any) -> tuple[Tensor, State]:
    return normalized_delta_rule(*inputs, **named, backend="torch")


def stream(*inputs: Any, backend: Any = "auto") -> tuple[Tensor, State]:
    """One call of the bare op a step."""
    *series, state = inputs
    outputs = []
    for t in range(series[0].shape[1]):
        now = [x[:, t : t + 1] for x in series]
        y, state = normalized_delta_rule(*now, state, backend=backend)
        outputs.append(y)
    return torch.cat(outputs, 1), state


recurrent = flat(normalized_delta_rule_recurrent)
BARE = [flat(on_cpu_kernel), flat(on_torch)]


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
    """q, k >= 0, v, beta in [0, 1], memory and key_sum > 0."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    v = torch.randn(B, T, H, V, generator=generator, dtype=torch.float64)
    q, k = uniform(B, T, H, K), uniform(B, T, H, K)
    inputs = [q, k, v, uniform(B, T, H), uniform(B, H, K, V), uniform(B, H, K) + 0.1]
    return [x.to(dtype) for x in inputs]


def with_gradients(form: Callable[..., Any], inputs: list[Tensor]) -> list[Tensor]:
    """What the form returns and the gradients of a random function of it."""
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


def test_two_steps_by_hand():
    """Orthogonal keys: the mean that the second write finds is that of an empty memory."""
    eps = 1e-5
    k = torch.eye(2, dtype=torch.float64)[None, :, None]
    v = torch.tensor([3.0, 5.0], dtype=torch.float64)[None, :, None, None]
    beta = torch.tensor([0.5, 1.0], dtype=torch.float64)[None, :, None]
    q = torch.ones_like(k)
    y, (memory, key_sum) = normalized_delta_rule_recurrent(q, k, v, beta)
    assert memory.flatten().tolist() == [1.5, 5.0] and key_sum.flatten().tolist() == [1.0, 1.0]
    assert y.flatten().tolist() == [1.5 / (1 + eps), 6.5 / (2 + eps)]
    # The first key again: it finds 1.5, not 1.5 / z, because it was written once.
    first, state = k[:, 0], State(memory, key_sum)
    y, (memory, _) = normalized_delta_rule_step(first, first, v[:, 1], beta[:, 1], state)
    assert memory[0, 0, 0, 0].item() == pytest.approx(1.5 + (5 - 1.5 / (1 + eps)))
    assert y.item() == pytest.approx((1.5 + (5 - 1.5 / (1 + eps))) / (2 + eps))


@pytest.mark.parametrize("form", [recurrent, *BARE])
def test_no_state_is_a_state_of_zeros(form):
    *series, memory, key_sum = make_inputs(T=3)
    zeros = torch.zeros_like(memory), torch.zeros_like(key_sum)
    torch.testing.assert_close(form(*series), form(*series, *zeros))


@pytest.mark.parametrize("form", [recurrent, *BARE])
def test_gradcheck(form):
    inputs = [x.requires_grad_() for x in make_inputs(T=4, K=3, V=2)]
    assert torch.autograd.gradcheck(form, inputs)


@pytest.mark.parametrize("form", BARE)
@pytest.mark.parametrize("H", [1, 3])
@pytest.mark.parametrize("T", [1, 2, 31, 33, 130])
def test_the_bare_op_equals_the_recurrent_form(T, H, form):
    inputs = make_inputs(T=T, H=H)
    want = with_gradients(recurrent, inputs)
    assert max(relative_errors(with_gradients(form, inputs), want)) <= 1e-10


@pytest.mark.parametrize("backend", ["cpu", "torch"])
def test_a_stream_of_steps_equals_the_recurrent_form(backend):
    inputs = make_inputs(T=7)
    got = with_gradients(lambda *xs: flat(stream)(*xs, backend=backend), inputs)
    torch.testing.assert_close(got, with_gradients(recurrent, inputs))


@pytest.mark.parametrize("form", BARE)
@given(T=st.integers(2, 80), cut=st.floats(0.01, 0.99), seed=st.integers(0, 1000))
def test_pieces_equal_the_whole(form, T, cut, seed):
    *series, memory, key_sum = make_inputs(T=T, seed=seed)
    n = min(max(1, int(cut * T)), T - 1)
    first, *middle = form(*(x[:, :n] for x in series), memory, key_sum)
    second, *last = form(*(x[:, n:] for x in series), *middle)
    got = torch.cat([first, second], 1), *last
    torch.testing.assert_close(got, form(*series, memory, key_sum), atol=1e-11, rtol=1e-10)


def test_what_is_written_is_beta_k_times_the_error():
    """The official code's strengths, beta kappa, would write 0 of a key orthogonal to all before
    it."""
    k = torch.eye(3)[None, :, None]
    v = torch.tensor([1.0, 2.0, 3.0])[None, :, None, None]
    for form in (recurrent, *BARE):
        _, memory, _ = form(k, k, v, torch.full((1, 3, 1), 0.25))
        torch.testing.assert_close(memory.flatten(), 0.25 * v.flatten())


@pytest.mark.parametrize("form", BARE)
@pytest.mark.parametrize(
    "feature_map",
    [dpfp, elu_plus_one, lambda x: sum_normalize(dpfp(x)), lambda x: sum_normalize((x - 1).relu())],
)
def test_float32_is_accurate_where_keys_are_orthogonal_to_all_before(form, feature_map):
    """kappa is 0 at the first step, and with DPFP and relu keys at others, so 1 / c is 1e5."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 60, 1, 6, generator=generator)
    _, _, v, beta, *_ = make_inputs(T=60, H=1, V=5, dtype=torch.float32)
    kappa = (feature_map(x).cumsum(1)[:, :-1] * feature_map(x)[:, 1:]).sum(-1)
    assert feature_map is elu_plus_one or (kappa == 0).any()

    def mapped(form: Callable[..., Result], x: Tensor, v: Tensor, beta: Tensor) -> Result:
        k = feature_map(x)
        return form(k, k, v, beta)

    inputs = [x, v, beta]
    want = with_gradients(lambda *xs: mapped(recurrent, *xs), [x.double() for x in inputs])
    got = with_gradients(lambda *xs: mapped(form, *xs), inputs)
    assert max(relative_errors(got, want)) <= 1e-5


@pytest.mark.parametrize("form", BARE)
@pytest.mark.parametrize("T", [1, 9])
def test_a_masked_step_does_not_happen(form, T):
    inputs = make_inputs(B=3, T=T)
    mask = torch.rand(3, T, generator=torch.Generator().manual_seed(2)) < 0.5
    mask[0] = False
    got = with_gradients(lambda *xs: form(*xs, mask=mask), inputs)

    def only_counted_steps(*inputs: Tensor) -> Result:
        *series, memory, key_sum = inputs
        ys, states = [], []
        for b in range(3):
            y = [torch.zeros_like(series[2][b : b + 1, 0])] * T
            state = State(memory[b : b + 1], key_sum[b : b + 1])
            for t in range(T):
                if mask[b, t]:
                    now = [x[b : b + 1, t] for x in series]
                    y[t], state = normalized_delta_rule_step(*now, state)
            ys.append(torch.stack(y, 1))
            states.append(state)
        memories, key_sums = zip(*states, strict=True)
        return torch.cat(ys), torch.cat(memories), torch.cat(key_sums)

    torch.testing.assert_close(got, with_gradients(only_counted_steps, inputs))
    assert torch.equal(got[1][0], inputs[4][0]) and torch.equal(got[2][0], inputs[5][0])


@pytest.mark.parametrize("form", BARE)
def test_padding_may_hold_anything(form):
    inputs = make_inputs(T=6)
    mask = torch.arange(6).expand(2, 6) < 4
    want = form(*inputs, mask=mask)
    for x in inputs[:4]:
        x[:, 4:] = torch.nan
    got = with_gradients(lambda *xs: form(*xs, mask=mask), inputs)
    torch.testing.assert_close(tuple(got[:3]), want)
    assert all(gradient.isfinite().all() for gradient in got[3:])


def test_a_mask_of_another_shape_is_refused():
    *series, memory, key_sum = make_inputs()
    with pytest.raises(ValueError, match=r"mask must be bool \[2, 5\], got torch.bool \[2, 4\]"):
        on_torch(*series, State(memory, key_sum), mask=torch.ones(2, 4, dtype=torch.bool))


@pytest.mark.parametrize("form", [recurrent, *BARE])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_inputs_keep_a_float32_state(form, dtype):
    inputs = make_inputs(T=20, dtype=dtype)[:4]
    y, memory, key_sum = form(*inputs)
    assert (y.dtype, memory.dtype, key_sum.dtype) == (dtype, torch.float32, torch.float32)
    want_y, *want_state = form(*[x.float() for x in inputs])
    torch.testing.assert_close((y, memory, key_sum), (want_y.to(dtype), *want_state))


@pytest.mark.parametrize("form", [recurrent, *BARE])
def test_autocast_does_not_lower_the_precision(form):
    inputs = make_inputs(T=40, dtype=torch.float32)
    want = form(*inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = form(*inputs)
    assert all(torch.equal(x, y) for x, y in zip(got, want, strict=True))


def test_compiles_without_a_graph_break():
    inputs = make_inputs()
    compiled = torch.compile(flat(normalized_delta_rule), backend="aot_eager", fullgraph=True)
    want = with_gradients(flat(normalized_delta_rule), inputs)
    torch.testing.assert_close(with_gradients(compiled, inputs), want)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": torch.zeros(2, 5, 2, 7)}, r"k \[2, 5, 2, 7\]"),
        ({"v": torch.zeros(2, 4, 2, 3)}, r"v \[2, 4, 2, 3\]"),
        ({"beta": torch.zeros(2, 5, 2, 1)}, r"beta \[2, 5, 2, 1\]"),
        (
            {"state": State(torch.zeros(2, 2, 4, 3), torch.zeros(2, 2, 3))},
            r"state \[\[2, 2, 4, 3\], \[2, 2, 3\]\]",
        ),
    ],
)
@pytest.mark.parametrize("form", [normalized_delta_rule_recurrent, on_cpu_kernel, on_torch])
def test_wrong_shapes_are_named(form, change, message):
    inputs = dict(zip(("q", "k", "v", "beta"), make_inputs(dtype=torch.float32)[:4], strict=True))
    with pytest.raises(ValueError, match=message) as error:
        form(**inputs | change)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("backend", ["cpu", "torch"])
@pytest.mark.parametrize(
    ("dtype", "T"),
    [
        *((torch.float64, T) for T in (1, 2, 33)),
        *((torch.float32, T) for T in (2, 33)),  # T = 1: the read hardly depends on the query
    ],
)
@pytest.mark.parametrize("M", [1, 3])
def test_weights_are_how_much_of_each_value_is_read_after_the_last_step(backend, dtype, T, M):
    _, k, v, beta, *_ = make_inputs(T=T, H=3, dtype=dtype)
    k = (k - 0.7).relu()  # many are orthogonal
    q, *_ = make_inputs(T=M, H=3, seed=2, dtype=dtype)

    def through_the_memory(q, k, v, beta):
        _, (memory, key_sum) = normalized_delta_rule_recurrent(k, k, v, beta)
        y = torch.einsum("bmhk,bhkv->bmhv", q, memory)
        return (y / (torch.einsum("bmhk,bhk->bmh", q, key_sum) + 1e-5)[..., None],)

    def through_the_weights(q, k, v, beta):
        weights = normalized_delta_rule_weights(q, k, beta, backend=backend)
        assert weights.dtype == dtype
        return (torch.einsum("bhmt,bthv->bmhv", weights, v),)

    inputs = [q, k, v, beta]
    want = with_gradients(through_the_memory, [x.double() for x in inputs])
    got = with_gradients(through_the_weights, inputs)
    bound = 1e-9 if dtype == torch.float64 else 1e-5
    assert max(relative_errors(got, want)) <= bound
