"""The Top-K layer beside the dense one with a mask."""

import pytest
import torch

from fastweights.layers.dense import Dense
from fastweights.layers.top_k import TopK

D, F = 6, 40


def make_layer(top_k: int, dropout: float = 0.0) -> TopK:
    generator = torch.Generator().manual_seed(0)
    return TopK(D, F, top_k, dropout, generator=generator).double()


def inputs(generator: torch.Generator) -> torch.Tensor:
    return torch.randn(2, 3, D, generator=generator, dtype=torch.float64)


def masked(layer: TopK, x: torch.Tensor) -> torch.Tensor:
    hidden = layer.up(x).relu()
    smallest = hidden.sort(-1, descending=True).values[..., layer.top_k - 1, None]
    return layer.down(hidden * (hidden >= smallest))


@pytest.mark.parametrize("top_k", [1, 5, 6, 20])
def test_equals_a_dense_layer_with_the_other_units_masked(top_k, generator):
    layer = make_layer(top_k)
    x = inputs(generator)
    leaves = [x.requires_grad_(), *layer.parameters()]
    got, want = layer(x)[0], masked(layer, x)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(
        torch.autograd.grad(got.square().sum(), leaves),
        torch.autograd.grad(want.square().sum(), leaves),
    )


def test_with_all_units_it_is_the_dense_layer(generator):
    layer, dense = make_layer(F), Dense(D, F).double()
    dense.load_state_dict(layer.state_dict())
    x = inputs(generator)
    torch.testing.assert_close(layer(x), dense(x))
    same = Dense(D, F, generator=torch.Generator().manual_seed(0)).double()
    torch.testing.assert_close(layer.state_dict(), same.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("top_k", [2, 20])
def test_training_and_evaluation_choose_the_same_units(top_k, generator):
    layer = make_layer(top_k, dropout=0.5)
    layer.down.weight.data = torch.eye(D, F, dtype=torch.float64)
    layer.down.bias.data.zero_()
    x = torch.randn(50, D, generator=generator, dtype=torch.float64)
    trained, evaluated = layer.train()(x)[0], layer.eval()(x)[0]
    kept = trained != 0
    torch.testing.assert_close(trained[kept], 2 * evaluated[kept])
    assert 0 < kept.sum() < (evaluated != 0).sum()


@pytest.mark.parametrize("top_k", [2, 20])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype, top_k, generator):
    layer, x = make_layer(top_k), inputs(generator)
    want = layer(x)[0].to(dtype)
    with torch.autocast("cpu", dtype):
        mixed = layer.float()(x.float())[0]
    for got in (mixed, layer.to(dtype)(x.to(dtype))[0]):
        torch.testing.assert_close(got, want, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("top_k", [0, F + 1])
def test_bad_values_are_named(top_k):
    with pytest.raises(ValueError, match=rf"top_k must be in 1 \.\. ff_dim = 40, got {top_k}"):
        make_layer(top_k)
