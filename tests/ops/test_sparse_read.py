"""A sum of chosen rows, beside a loop, on both sides of the fraction that divides its two ways."""

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from fastweights.ops.sparse_read import chosen_rows_alone, sparse_read
from tests.ops.compare import with_gradients


def loop(values: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    columns = zip(index.unbind(-1), weight.unbind(-1), strict=True)
    return torch.stack([w[..., None] * values[i] for i, w in columns]).sum(0)


def make_inputs(R=40, K=5, shape=(2, 3)) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    values = torch.randn(R, 7, generator=g, dtype=torch.float64)
    index = torch.randint(R, (*shape, K), generator=g)
    index[..., -1] = index[..., 0]  # one twice, where K > 1
    return values, index, torch.randn(*shape, K, generator=g, dtype=torch.float64)


@pytest.mark.parametrize("shape", [(), (4,), (2, 3), (0, 3)])
@pytest.mark.parametrize("K", [1, 5, 6, 40])
def test_equals_a_loop(K, shape):
    values, index, weight = make_inputs(K=K, shape=shape)
    got, want = (
        with_gradients(lambda v, w, form=form: [form(v, index, w)], (values, weight))
        for form in (sparse_read, loop)
    )
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize(("K", "alone", "dense"), [(5, False, 0), (6, False, 1), (6, True, 0)])
def test_the_dense_product_can_be_switched_off(K, alone, dense):
    values, index, weight = make_inputs(K=K)
    with FlopCounterMode(display=False) as counter, chosen_rows_alone() if alone else nullcontext():
        got = sparse_read(values, index, weight)
    assert counter.get_total_flops() == dense * 2 * 6 * 40 * 7
    torch.testing.assert_close(got, loop(values, index, weight))


@pytest.mark.parametrize("K", [5, 6])
def test_compiles(K):
    values, index, weight = make_inputs(K=K)
    compiled = torch.compile(sparse_read, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(values, index, weight), loop(values, index, weight))


@pytest.mark.parametrize("K", [5, 6])
def test_gradcheck(K):
    values, index, weight = make_inputs(K=K)
    leaves = values.requires_grad_(), weight.requires_grad_()
    assert torch.autograd.gradcheck(lambda v, w: sparse_read(v, index, w), leaves)


@pytest.mark.parametrize("K", [5, 6])
def test_values_may_be_transposed(K):
    values, index, weight = make_inputs(K=K)
    turned = values.T.contiguous().T
    torch.testing.assert_close(
        sparse_read(turned, index, weight), sparse_read(values, index, weight)
    )


@pytest.mark.parametrize("K", [5, 6])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_result_has_the_dtype_of_the_weights(dtype, K):
    values, index, weight = make_inputs(K=K)
    want = loop(values, index, weight).to(dtype)
    for rows in (values.float(), values.to(dtype)):
        got = sparse_read(rows, index, weight.to(dtype))
        torch.testing.assert_close(got, want, rtol=0.05, atol=0.05)
