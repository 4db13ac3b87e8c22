"""Feature maps against their formulas, at zeros and at large inputs."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastweights.ops.feature_maps import (
    dpfp,
    elu_plus_one,
    favor_features,
    favor_projection,
    silu_l2,
    softmax_features,
    sum_normalize,
)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def directions(dim: int, num: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return favor_projection(dim, num, generator=generator, dtype=torch.float64)


MAPS = {
    "elu_plus_one": elu_plus_one,
    "dpfp": lambda x: dpfp(x, 2),
    "favor": lambda x: favor_features(x, directions(4, 6), 4**-0.25),
    "softmax": softmax_features,
    "silu_l2": silu_l2,
    "elu_plus_one_sum": lambda x: sum_normalize(elu_plus_one(x)),
    "dpfp_sum": lambda x: sum_normalize(dpfp(x, 3)),
}


@pytest.mark.parametrize("name", MAPS)
def test_gradcheck(name):
    assert torch.autograd.gradcheck(MAPS[name], normal(2, 3, 4).requires_grad_())


@pytest.mark.parametrize("name", MAPS)
def test_zeros_give_finite_features_and_gradients(name):
    x = torch.zeros(2, 4, dtype=torch.float64, requires_grad=True)
    features = MAPS[name](x)
    features.sum().backward()
    assert x.grad is not None
    assert features.isfinite().all() and x.grad.isfinite().all()


def test_elu_plus_one():
    x = normal(50)
    torch.testing.assert_close(elu_plus_one(x), F.elu(x) + 1)
    x = torch.tensor([-30.0, 0.0, 30.0], requires_grad=True)
    elu_plus_one(x).sum().backward()
    torch.testing.assert_close(x.grad, torch.tensor([math.exp(-30), 1.0, 1.0]))
    assert elu_plus_one(x)[0].item() == pytest.approx(math.exp(-30))  # elu(x) + 1 is 0 here


def test_dpfp_by_hand():
    x = torch.tensor([2.0, -3.0])  # u = [2, 0, 0, 3]
    assert dpfp(x, 1).tolist() == [6.0, 0.0, 0.0, 0.0]  # u_i u_{i-1}
    assert dpfp(x, 2).tolist() == [6.0, 0.0, 0.0, 0.0] + [0.0] * 4
    assert dpfp(x, 3).tolist()[8:] == [0.0, 0.0, 0.0, 6.0]  # shift 3 repeats shift 1


@pytest.mark.parametrize("nu", [1, 2, 3])
def test_dpfp_has_a_quarter_of_its_features_on(nu):
    features = dpfp(normal(200, 8), nu)
    assert features.shape == (200, 16 * nu)
    assert (features >= 0).all()
    assert ((features > 0).double().mean() - 0.25).abs() < 0.01


def test_dpfp_keys_overlap_less_than_elu_keys():
    """Mean cosine of random keys at D = 64: 0.11 against 0.69."""
    x = normal(400, 64)
    for features, want in ((dpfp(x, 1), 0.11), (elu_plus_one(x), 0.69)):
        unit = F.normalize(features, dim=-1)
        cosine = unit[:200] @ unit[200:].T
        assert (cosine.mean() - want).abs() < 0.02


@given(d=st.integers(2, 20), data=st.data())
def test_dpfp_has_2_d_nu_features(d, data):
    nu = data.draw(st.integers(1, 2 * d - 1))
    features = dpfp(normal(3, d), nu)
    assert features.shape == (3, 2 * d * nu)
    if nu >= d:  # shift d is zero, and shift j above d repeats shift 2 d - j
        by_shift = features.unflatten(-1, (nu, 2 * d))
        assert by_shift[:, d - 1].abs().max() == 0
        for shift in range(d + 1, nu + 1):
            mirrored = by_shift[:, 2 * d - shift - 1].roll(shift, -1)
            torch.testing.assert_close(by_shift[:, shift - 1], mirrored, atol=0, rtol=0)


@pytest.mark.parametrize("nu", [1, 2, 63])
def test_a_quarter_of_the_dpfp_features_is_on_at_64(nu):
    """For every shift but d two entries of u are independent, each positive half of the time."""
    share = (dpfp(normal(2000, 64), nu) > 0).double().mean(-1)
    assert (share.mean() - 0.25).abs() < 5 * share.std() / 2000**0.5 + 1e-12


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("d", [3, 5, 9])
@pytest.mark.parametrize("first", [1.0, -1.0])
def test_dpfp_of_alternating_signs_at_odd_d(d, first, dtype):
    """No two neighbours of u are on: DPFP-1 is all zero, and stays so when divided by its sum."""
    x = first * torch.tensor([(-1.0) ** i * (i + 1) for i in range(d)], dtype=dtype)
    x.requires_grad_()
    features = sum_normalize(dpfp(x, 1))
    (features * torch.arange(2 * d)).sum().backward()
    assert x.grad is not None
    assert features.abs().max() == 0 and x.grad.isfinite().all()
    assert dpfp(x, 2).sum() > 0  # shift 2 sees them


@given(signs=st.lists(st.sampled_from([-1.0, 1.0]), min_size=2, max_size=11))
def test_dpfp_is_zero_for_no_other_signs(signs):
    alternating = len(signs) % 2 and all(a != b for a, b in itertools.pairwise(signs))
    assert (dpfp(torch.tensor(signs), 1).sum() == 0) == bool(alternating)


@pytest.mark.parametrize("nu", [0, 8])
def test_dpfp_refuses_nu(nu):
    with pytest.raises(ValueError, match=f"2 D - 1 = 7, got nu={nu}"):
        dpfp(normal(4), nu)


def test_favor_projection_has_orthogonal_blocks():
    R = directions(5, 12)
    assert R.shape == (12, 5)
    for block in (R[:5], R[5:10], R[10:]):
        gram = block @ block.T
        torch.testing.assert_close(gram, gram.diagonal().diag(), atol=1e-12, rtol=0)
    assert torch.equal(R, directions(5, 12)) and not torch.equal(R, directions(5, 12, seed=1))


def test_favor_projection_rows_are_standard_normal():
    R = torch.cat([directions(4, 4, seed) for seed in range(1000)])
    assert R.mean(0).abs().max() < 0.06
    assert (R.T @ R / len(R) - torch.eye(4)).abs().max() < 0.08
    first = torch.stack([directions(4, 4, seed)[0, 0] for seed in range(1000)])
    assert first.mean().abs() < 0.1  # QR without its sign correction fails here


def test_favor_projection_needs_sizes():
    with pytest.raises(ValueError, match="dim=4, num_directions=0"):
        directions(4, 0)


@pytest.mark.parametrize("temperature", [1.0, 8**-0.25])
def test_favor_estimates_the_exponential_kernel(temperature):
    q, k = normal(2, 5, 8, seed=3) / 4
    R = directions(8, 8 * 4000)
    estimate = favor_features(q, R, temperature) @ favor_features(k, R, temperature).T
    torch.testing.assert_close(estimate, (temperature**2 * q @ k.T).exp(), rtol=0.02, atol=0)


def test_the_error_of_favor_falls_as_one_over_the_root_of_m():
    """Softmax attention's kernel, exp(q . k / sqrt(d)), estimated with m directions."""
    d, sizes = 16, (64, 256, 1024, 4096)
    q, k = normal(2, 20, d, seed=3) / 2  # the variance is of the order of exp(|q + k|^2 / sqrt(d))
    want = (q @ k.T / d**0.5).exp()

    def error(m: int, draw: int) -> float:
        R, temperature = directions(d, m, seed=draw), d**-0.25
        estimate = favor_features(q, R, temperature) @ favor_features(k, R, temperature).T
        return (estimate / want - 1).square().mean().item()

    errors = [(sum(error(m, draw) for draw in range(16)) / 16) ** 0.5 for m in sizes]
    logs = torch.tensor([[math.log(m), math.log(e)] for m, e in zip(sizes, errors, strict=True)])
    (slope, _), *_ = torch.linalg.lstsq(F.pad(logs[:, :1], (0, 1), value=1.0), logs[:, 1])
    assert slope.item() == pytest.approx(-0.5, abs=0.1)
    assert sorted(errors, reverse=True) == errors and errors[-1] < 0.1


def test_favor_formula():
    x, R = normal(3, 4), directions(4, 6)
    projected = x @ R.T
    h = (-x.square().sum(-1, keepdim=True) / 2).exp() / 2**0.5
    want = h / 6**0.5 * torch.cat([projected.exp(), (-projected).exp()], -1)
    torch.testing.assert_close(favor_features(x, R, 1.0), want)


def test_favor_with_large_inputs_is_finite():
    x = 100 * normal(20, 16, dtype=torch.float32)
    R = directions(16, 32).float()
    assert favor_features(x, R, 1.0).isfinite().all()  # R x alone overflows, the factor underflows


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@settings(max_examples=50, deadline=None)
@given(scale=st.floats(1e-3, 1e3), seed=st.integers(0, 1000))
def test_silu_l2_has_length_1(dtype, scale, seed):
    x = scale * normal(10, 6, seed=seed, dtype=dtype)
    length = silu_l2(x).norm(dim=-1)
    kept = F.silu(x).norm(dim=-1) > 1e-5
    torch.testing.assert_close(length[kept], torch.ones_like(length[kept]))
    assert silu_l2(torch.zeros(3)).tolist() == [0.0, 0.0, 0.0]


@settings(max_examples=50, deadline=None)
@given(nu=st.integers(1, 5), seed=st.integers(0, 1000))
def test_sum_normalize_sums_to_one(nu, seed):
    total = sum_normalize(dpfp(normal(10, 6, seed=seed), nu)).sum(-1)
    assert ((total - 1).abs() < 1e-12).logical_or(total == 0).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_sum_normalize_of_zeros_is_zeros(dtype):
    x = torch.zeros(2, 3, dtype=dtype, requires_grad=True)
    features = sum_normalize(x)
    (100 * features).sum().backward()
    assert features.abs().max() == 0
    torch.testing.assert_close(x.grad, torch.full_like(x, 100))
    assert sum_normalize(dpfp(torch.tensor([1.0, -1.0, 1.0]), 1)).isfinite().all()


def test_softmax_features():
    torch.testing.assert_close(softmax_features(normal(3, 4)), normal(3, 4).softmax(-1))


CAPACITY = {  # name: features of keys of width 6, and their number
    "elu_plus_one": (elu_plus_one, 6),
    "dpfp-1": (lambda x: dpfp(x, 1), 12),
    "dpfp-2": (lambda x: dpfp(x, 2), 24),
    "favor": (lambda x: favor_features(x, directions(6, 5), 6**-0.25), 10),
    "softmax": (softmax_features, 6),
    "silu_l2": (silu_l2, 6),
    "elu_plus_one_sum": (lambda x: sum_normalize(elu_plus_one(x)), 6),
    "dpfp_sum": (lambda x: sum_normalize(dpfp(x, 1)), 12),
}


@pytest.mark.parametrize("name", CAPACITY)
@pytest.mark.parametrize("surplus", [1, 7, 40])
def test_no_linear_read_retrieves_more_values_than_there_are_features(name, surplus):
    """A memory [F, S] has rank F at most, so of S orthonormal values, each read with a query of its
    own, it misses the share 1 - F / S: half the squared error of a value is 1/2 (1 - F / S) or more
    in the mean. Not only with the keys as queries: also with the best there are."""
    feature_map, num_features = CAPACITY[name]
    S = num_features + surplus
    keys = feature_map(normal(S, 6, seed=surplus))
    assert keys.shape == (S, num_features)
    assert torch.linalg.matrix_rank(keys) <= num_features
    floor = (1 - num_features / S) / 2
    values = torch.eye(S, dtype=torch.float64)
    memory = keys.T @ values  # the sum rule
    scale = (memory.T @ keys.T).trace() / (keys @ memory).square().sum()  # the best of one number
    as_stored = keys @ (scale * memory)
    best_memory = keys @ torch.linalg.pinv(keys) @ values  # for these keys: least squares
    best_queries = values @ torch.linalg.pinv(memory) @ memory  # for the sum rule's memory
    for read in (keys @ memory, as_stored, best_memory, best_queries):
        assert (read - values).square().sum(-1).mean() / 2 >= floor * (1 - 1e-9)
    assert (best_queries - values).square().sum(-1).mean() / 2 == pytest.approx(
        (1 - torch.linalg.matrix_rank(keys).item() / S) / 2
    )
