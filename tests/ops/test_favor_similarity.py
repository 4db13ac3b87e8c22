"""The kernel function against products of features."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fastweights.kernels.backend import Backend
from fastweights.ops.favor_similarity import MOST_QUERIES, favor_similarity
from fastweights.ops.feature_maps import favor_features, favor_projection
from tests.ops.compare import assert_near, numbers_kept, with_gradients

TEMPERATURE = 0.6


def make_inputs(B: int = 3, M: int = 2, T: int = 5, D: int = 6) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(B, n, D, generator=generator, dtype=torch.float64) for n in (M, T)]


def draw(num_directions: int, D: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return favor_projection(D, num_directions, generator=generator, dtype=torch.float64)


def features(q: Tensor, k: Tensor, projection: Tensor) -> Tensor:
    of_query, of_key = (favor_features(x, projection, TEMPERATURE) for x in (q, k))
    return torch.einsum("bmf,btf->bmt", of_query, of_key)


def kernel(projection: Tensor, backend: Backend = "auto") -> Callable[..., tuple[Tensor]]:
    return lambda q, k: (favor_similarity(q, k, projection, TEMPERATURE, backend=backend),)


def reference(projection: Tensor) -> Callable[..., tuple[Tensor]]:
    return lambda q, k: (features(q, k, projection),)


@pytest.mark.parametrize("backend", ["cpu", "torch"])
@pytest.mark.parametrize("sizes", [{}, {"M": 1, "T": 1}, {"D": 5}, {"D": 64, "T": 40}, {"M": 9}])
@pytest.mark.parametrize("num_directions", [1, 6, 31, 130])
def test_equals_products_of_features(backend, sizes, num_directions):
    inputs = make_inputs(**sizes)
    projection = draw(num_directions, sizes.get("D", 6))
    got = with_gradients(kernel(projection, backend), inputs)
    torch.testing.assert_close(got, with_gradients(reference(projection), inputs))


def test_float32():
    inputs, projection = make_inputs(D=64, T=100), draw(128, 64)
    want = with_gradients(reference(projection), inputs)
    assert_near(with_gradients(kernel(projection.float()), [x.float() for x in inputs]), want)


def test_float32_inside_autocast():
    inputs, projection = make_inputs(M=1), draw(20)
    want = with_gradients(reference(projection), inputs)
    with torch.autocast("cpu"):
        got = with_gradients(kernel(projection.float()), [x.float() for x in inputs])
    assert_near(got, want)


def test_gradcheck_and_opcheck():
    q, k = (x.requires_grad_() for x in make_inputs())
    projection = draw(7)
    assert torch.autograd.gradcheck(kernel(projection, "cpu"), (q, k))
    directions = torch.nn.functional.pad(TEMPERATURE * projection.mT, (0, 1))
    op = torch.ops.fastweights.favor_similarity
    torch.library.opcheck(op, (q, k, directions, 7, TEMPERATURE))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("length", [5.0, 30.0, 1e6])
def test_long_vectors_underflow(dtype, length):
    """The projections alone would overflow; the features do not, down to all zeros."""
    inputs = [length * x.to(dtype) for x in make_inputs(M=1)]
    inputs[1][:, 0] = 0
    projection = draw(40).to(dtype)
    got = with_gradients(kernel(projection, "cpu"), inputs)
    torch.testing.assert_close(got, with_gradients(reference(projection), inputs))
    assert (got[0] == 0).any() == (length > 5)


def test_strides_and_nan():
    q, k = make_inputs(B=4)
    projection = draw(9)
    strided = q.mT.contiguous().mT, k[:1].expand(4, -1, -1), projection.mT.contiguous().mT
    got = favor_similarity(*strided, TEMPERATURE, backend="cpu")
    torch.testing.assert_close(got, features(q, k[:1].expand(4, -1, -1), projection))
    k[1, 3, 0] = torch.nan
    assert favor_similarity(q, k, projection, TEMPERATURE, backend="cpu").isnan().sum() == 2


def test_no_features_of_keys_are_kept():
    """The similarity and a slope a key and direction; both signs of the features would be two."""
    B, M, T, m = 3, 1, 50, 64
    inputs, projection = make_inputs(B, M, T), draw(m)
    copied_directions = 6 * m
    assert (
        numbers_kept(kernel(projection, "cpu"), inputs) == B * M * T * (m + 1) + copied_directions
    )


def test_many_queries_take_features():
    q, k = (x.half() for x in make_inputs(M=MOST_QUERIES + 1))
    assert favor_similarity(q, k, draw(4).half(), TEMPERATURE).dtype == torch.float32


def test_wrong_arguments():
    q, k = make_inputs()
    projection = draw(4)
    with pytest.raises(ValueError, match=r"k \[3, 5, 5\]"):
        favor_similarity(q, k[..., :5], projection, TEMPERATURE)
    with pytest.raises(ValueError, match=r"projection \[4, 5\]"):
        favor_similarity(q, k, projection[:, :5], TEMPERATURE)
    with pytest.raises(ValueError, match="no gradient for a projection"):
        favor_similarity(q, k, projection.requires_grad_(), TEMPERATURE)
