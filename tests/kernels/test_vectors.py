"""The vectors of the CPU kernels: every function against torch, lane by lane."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from numba import njit
from torch import Tensor

from fastweights.kernels.cpu import vectors
from fastweights.kernels.cpu.vectors import (
    load,
    muladd,
    number,
    prefetch,
    select,
    store,
    total,
    without_padding,
    zeros,
)

LANES = [4, 16, 64]
DTYPES = [torch.float32, torch.float64]
lanes_and_dtypes = pytest.mark.parametrize(
    ("lanes", "dtype"), [(lanes, dtype) for lanes in LANES for dtype in DTYPES]
)


def map_vectors(function: Callable[..., Any], x: Tensor, lanes: int) -> Tensor:
    """`function` of each vector of [N], where zeros fill up the last one."""

    @njit(error_model="numpy")
    def loop(x: Any, y: Any) -> None:
        for i in range(0, len(x), lanes):
            store(y, (i,), function(load(x, (i,), lanes)))

    padded = torch.nn.functional.pad(x, (0, -len(x) % lanes))
    y = torch.full_like(padded, torch.nan)
    loop(padded.numpy(), y.numpy())
    return y[: len(x)]


def units_in_the_last_place(got: Tensor, want: Tensor) -> float:
    """The largest distance of `got` from `want` (float64), in units of the last place of `got`."""
    rounded = want.to(got.dtype).abs()
    unit = torch.nextafter(rounded, torch.full_like(rounded, torch.inf)) - rounded
    return float(((got.double() - want) / unit).abs().max())


def padding_after(count: int) -> Callable[..., Any]:
    return njit(lambda x: without_padding(x, count))


def random_vectors(rows: int, lanes: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(rows, lanes, generator=torch.Generator().manual_seed(0), dtype=dtype)


def limits(dtype: torch.dtype) -> tuple[float, float]:
    """The logarithms of the smallest normal number and of the largest result of `exp`."""
    return math.log(torch.finfo(dtype).tiny), 88.0 if dtype == torch.float32 else 709.0


@lanes_and_dtypes
def test_exp(lanes, dtype):
    low, high = limits(dtype)
    x = torch.cat([torch.linspace(low + 1e-3, high, 20_001), torch.linspace(-2, 2, 20_001)])
    x = x.to(dtype)
    # The reference in float64 is itself off by up to 1 unit there.
    bound = 2 if dtype == torch.float32 else 3
    got = map_vectors(vectors.exp, x, lanes)
    assert units_in_the_last_place(got, x.double().exp()) <= bound


@lanes_and_dtypes
def test_exp_at_the_limits(lanes, dtype):
    low, high = limits(dtype)
    x = [0.0, -0.0, high, high + 10, math.inf, -math.inf, -1e30, 1.1 * low, math.nan]
    want = [1.0, 1.0, *3 * [math.exp(high)], 0.0, 0.0, 0.0, math.nan]
    x, want = [*x, low - 0.1], [*want, 0.0]  # a subnormal number is taken for 0
    got = map_vectors(vectors.exp, torch.tensor(x, dtype=dtype), lanes)
    expected = torch.tensor(want, dtype=dtype)
    rounding = 2 * torch.finfo(dtype).eps
    torch.testing.assert_close(got, expected, rtol=rounding, atol=0, equal_nan=True)


@lanes_and_dtypes
def test_tanh(lanes, dtype):
    exponents = torch.linspace(math.log(torch.finfo(dtype).tiny), math.log(30), 20_001)
    x = torch.cat([exponents.double().exp(), torch.linspace(0, 25, 20_001)])
    x = torch.cat([x, -x]).to(dtype)
    got = map_vectors(vectors.tanh, x, lanes)
    assert got.abs().max() == 1
    bound = 4 if dtype == torch.float32 else 5
    assert units_in_the_last_place(got, x.double().tanh()) <= bound


@lanes_and_dtypes
def test_tanh_at_the_limits(lanes, dtype):
    tiny = torch.finfo(dtype).smallest_normal / 1024
    x = [0.0, tiny, -tiny, 20.0, -20.0, 1e30, -1e30, math.inf, -math.inf, math.nan]
    want = [0.0, tiny, -tiny, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, math.nan]
    got = map_vectors(vectors.tanh, torch.tensor(x, dtype=dtype), lanes)
    torch.testing.assert_close(got, torch.tensor(want, dtype=dtype), rtol=0, atol=0, equal_nan=True)


@lanes_and_dtypes
def test_total(lanes, dtype):
    @njit(error_model="numpy")
    def loop(x: Any, sums: Any) -> None:
        for i in range(len(x)):
            sums[i] = total(load(x, (i, 0), lanes))

    x = random_vectors(100, lanes, dtype)
    x[1, -1] = torch.inf
    x[2, -1] = torch.nan
    sums = torch.empty(100, dtype=dtype)
    loop(x.numpy(), sums.numpy())
    bound = lanes * torch.finfo(dtype).eps
    want = x.double().sum(-1)
    torch.testing.assert_close(sums.double(), want, rtol=0, atol=bound, equal_nan=True)


@lanes_and_dtypes
def test_operators(lanes, dtype):
    """Of two vectors, of a vector and a scalar of either kind, on either side."""

    @njit(error_model="numpy")
    def loop(x: Any, y: Any, scalar: Any, results: Any) -> None:
        a, b = load(x, (0,), lanes), load(y, (0,), lanes)
        store(results, (0, 0), a + b)
        store(results, (1, 0), a - b)
        store(results, (2, 0), a * b)
        store(results, (3, 0), a / b)
        store(results, (4, 0), a + scalar)
        store(results, (5, 0), scalar - a)
        store(results, (6, 0), a * 2)
        store(results, (7, 0), 1.0 / a)
        store(results, (8, 0), -a)
        store(results, (9, 0), muladd(a, b, a))
        store(results, (10, 0), muladd(scalar, a, b))
        store(results, (11, 0), select(a, b, zeros(x, lanes)))

    x, y = random_vectors(2, lanes, dtype)
    x[0], y[1], x[2], x[3] = torch.nan, torch.nan, torch.inf, 0.0
    scalar = torch.tensor(0.3, dtype=dtype)
    results = torch.empty(12, lanes, dtype=dtype)
    loop(x.numpy(), y.numpy(), scalar.numpy()[()], results.numpy())
    want = [x + y, x - y, x * y, x / y, x + scalar, scalar - x, x * 2, 1 / x, -x]
    assert torch.equal(results[:9].nan_to_num(7.0), torch.stack(want).nan_to_num(7.0))
    fused = torch.stack([x * y + x, scalar * x + y])
    tolerance = 4 * torch.finfo(dtype).eps
    torch.testing.assert_close(results[9:11], fused, rtol=tolerance, atol=tolerance, equal_nan=True)
    torch.testing.assert_close(
        results[11], torch.where(x != 0, y, 0.0), rtol=0, atol=0, equal_nan=True
    )


@lanes_and_dtypes
def test_without_padding(lanes, dtype):
    x = random_vectors(1, lanes, dtype)[0]
    for count in (1, lanes - 1, lanes):
        y = map_vectors(padding_after(count), x, lanes)
        assert torch.equal(y[:count], x[:count])
        assert (y[count:] == -torch.inf).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_of_any_strides_but_the_last(dtype):
    """Views of more axes, also backwards in memory; a row may start anywhere."""

    @njit(error_model="numpy")
    def loop(x: Any, y: Any, numbers: Any) -> None:
        for i in range(x.shape[0]):
            for j in range(x.shape[1]):
                prefetch(x, (i - 1, j + 1, 3), 16)
                store(y, (j, i, 1), load(x, (i, j, 3), 4))
                numbers[i, j] = number(x, (i, j, 6))

    x = random_vectors(10, 9, dtype).view(2, 5, 9).transpose(0, 1)
    y = torch.zeros(2, 5, 6, dtype=dtype)
    numbers = torch.empty(5, 2, dtype=dtype)
    loop(x.numpy(), y.numpy(), numbers.numpy())
    assert torch.equal(y[..., 1:5], x[..., 3:7].transpose(0, 1))
    assert y[..., [0, 5]].abs().max() == 0
    assert torch.equal(numbers, x[..., 6])
