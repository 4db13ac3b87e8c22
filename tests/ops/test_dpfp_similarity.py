"""The kernel function against products of features."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fastweights.kernels.backend import Backend
from fastweights.ops.dpfp_similarity import MOST_QUERIES, dpfp_similarity
from fastweights.ops.feature_maps import dpfp
from tests.ops.compare import assert_near, with_gradients


def make_inputs(B: int = 3, M: int = 2, T: int = 5, D: int = 6, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(B, n, D, generator=generator, dtype=torch.float64) for n in (M, T)]


def features(q: Tensor, k: Tensor, nu: int) -> Tensor:
    return torch.einsum("bmf,btf->bmt", dpfp(q, nu), dpfp(k, nu))


def kernel(nu: int, backend: Backend = "auto") -> Callable[..., tuple[Tensor]]:
    return lambda q, k: (dpfp_similarity(q, k, nu, backend=backend),)


def reference(nu: int) -> Callable[..., tuple[Tensor]]:
    return lambda q, k: (features(q, k, nu),)


@pytest.mark.parametrize("backend", ["cpu", "torch"])
@pytest.mark.parametrize("sizes", [{}, {"M": 1, "T": 1}, {"D": 5}, {"D": 64, "T": 40}, {"M": 9}])
@pytest.mark.parametrize("nu", [1, 2, 3, 5])
def test_equals_products_of_features(backend, sizes, nu):
    inputs = make_inputs(**sizes)
    got = with_gradients(kernel(nu, backend), inputs)
    torch.testing.assert_close(got, with_gradients(reference(nu), inputs))


def test_float32():
    inputs = make_inputs(D=64, T=100)
    want = with_gradients(reference(3), inputs)
    got = with_gradients(kernel(3), [x.float() for x in inputs])
    assert_near(got, want)


@pytest.mark.parametrize("D", [1, 3])
def test_the_largest_nu(D):
    inputs = make_inputs(D=D)
    torch.testing.assert_close(dpfp_similarity(*inputs, 2 * D - 1), features(*inputs, 2 * D - 1))


def test_gradcheck_and_opcheck():
    q, k = (x.requires_grad_() for x in make_inputs())
    assert torch.autograd.gradcheck(lambda q, k: dpfp_similarity(q, k, 2, backend="cpu"), (q, k))
    torch.library.opcheck(torch.ops.fastweights.dpfp_similarity, (q, k, 2))


def test_zeros_have_the_gradient_of_relu():
    q, k = make_inputs()
    q[0, 0, 2] = k[0, :, 1] = k[1, 2] = 0
    got = with_gradients(kernel(2, "cpu"), [q, k])
    torch.testing.assert_close(got, with_gradients(reference(2), [q, k]))


def test_strides_and_nan():
    q, k = make_inputs(B=4)
    got = dpfp_similarity(q.mT.contiguous().mT, k.expand(4, -1, -1), 2, backend="cpu")
    torch.testing.assert_close(got, features(q, k, 2))
    k[1, 3, 0] = torch.nan
    assert dpfp_similarity(q, k, 2, backend="cpu").isnan().sum() == 2


def test_many_queries_take_features():
    q, k = (x.half() for x in make_inputs(M=MOST_QUERIES + 1))
    assert dpfp_similarity(q, k, 2).dtype == torch.float32


def test_wrong_arguments():
    q, k = make_inputs()
    with pytest.raises(ValueError, match=r"k \[3, 5, 5\]"):
        dpfp_similarity(q, k[..., :5])
    with pytest.raises(ValueError, match="1 <= nu <= 11, got nu=12"):
        dpfp_similarity(q, k, 12)
