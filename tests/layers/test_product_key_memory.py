"""Product-key memories beside networks that score every key and read every value."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fastweights.layers.product_key_memory import DenseProductKeyMemory, ProductKeyMemory
from tests.ops.compare import numbers_kept

D, N = 6, 5


@pytest.fixture
def x(generator: torch.Generator) -> Tensor:
    return torch.randn(2, 3, D, generator=generator, dtype=torch.float64)


def all_keys(subkeys: Tensor) -> Tensor:
    """`[2, n, K / 2]` -> `[n^2, K]`: pair i is sub-key i mod n of a and i // n of b."""
    n = subkeys.shape[1]
    return torch.stack([torch.cat([subkeys[0, i % n], subkeys[1, i // n]]) for i in range(n * n)])


def look_up_everything(layer: ProductKeyMemory, x: Tensor) -> Tensor:
    """Every head by itself, over all keys, the values below the K best masked."""
    y = torch.zeros_like(x)
    for query, subkeys in zip(layer.query, layer.subkeys, strict=True):
        score = x @ query.flatten(0, 1).T @ all_keys(subkeys).T
        smallest = score.sort(-1, descending=True).values[..., layer.top_k - 1, None]
        if layer.activation == "relu":
            weight = score.relu() * (score >= smallest)
        else:
            weight = score.masked_fill(score < smallest, -torch.inf).softmax(-1)
        y = y + weight @ layer.values
    return y


def gradients(y: Tensor, layer: torch.nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(y.square().sum(), [x, *layer.parameters()])


@pytest.mark.parametrize("activation", ["relu", "softmax"])
@pytest.mark.parametrize(("heads", "top_k"), [(1, 1), (1, 3), (3, 1), (3, 7), (2, 25)])
def test_equals_looking_up_everything(heads, top_k, activation, x, generator):
    layer = ProductKeyMemory(
        D, N, heads, top_k, key_dim=4, activation=activation, generator=generator
    ).double()
    y, balance_loss = layer(x.requires_grad_())
    want = look_up_everything(layer, x)
    torch.testing.assert_close(y, want)
    torch.testing.assert_close(gradients(y, layer, x), gradients(want, layer, x))
    assert balance_loss.item() == 0


@pytest.mark.parametrize("activation", ["relu", "softmax"])
def test_the_dense_form_is_a_network_whose_keys_are_pairs(activation, x, generator):
    """One head with the sum of the sub-keys, and a first layer of n^2 rows."""
    layer = DenseProductKeyMemory(D, N, 4, activation, generator=generator).double()
    y, balance_loss = layer(x.requires_grad_())
    hidden = F.linear(x, all_keys(layer.subkeys.sum(0)))
    want = (hidden.relu() if activation == "relu" else hidden.softmax(-1)) @ layer.values
    torch.testing.assert_close(y, want)
    torch.testing.assert_close(gradients(y, layer, x), gradients(want, layer, x))
    assert balance_loss.item() == 0


def test_a_lookup_of_every_key_without_a_projection_is_the_dense_form(x, generator):
    dense = DenseProductKeyMemory(D, N, 1, generator=generator).double()
    layer = ProductKeyMemory(D, N, 1, N * N, key_dim=D).double()
    layer.load_state_dict(
        {"query": torch.eye(D).double().view(layer.query.shape), **dense.state_dict()}
    )
    torch.testing.assert_close(layer(x), dense(x))


def test_a_lookup_keeps_nothing_for_every_token_and_value(generator):
    layer = ProductKeyMemory(8, 64, num_heads=2, top_k=4, generator=generator)
    x = torch.randn(1, 100, 8, generator=generator)
    kept = numbers_kept(lambda x, *_: layer(x)[0], [x, *layer.parameters()])
    assert kept < 100 * 64**2 / 4


@pytest.mark.parametrize("activation", ["relu", "softmax"])
@pytest.mark.parametrize("num_subkeys", [N, 20])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype, num_subkeys, activation, x, generator):
    lookup = {"top_k": num_subkeys, "key_dim": 4}  # of 2 * 20 in 400, or of 2 * 5 in 25 values
    for kind, options in ((ProductKeyMemory, lookup), (DenseProductKeyMemory, {})):
        options = {**options, "activation": activation, "generator": generator}
        layer = kind(D, num_subkeys, 2, **options).double()
        want = layer(x)[0]
        with torch.autocast("cpu", dtype):
            mixed = layer.float()(x.float())[0]
        assert mixed.dtype == dtype
        for got in (mixed, layer.to(dtype)(x.to(dtype))[0]):
            assert got.dtype == dtype
            # One wrong choice among nearly equal keys changes little.
            assert (got - want).norm() < 0.05 * want.norm()


@pytest.mark.parametrize("kind", [ProductKeyMemory, DenseProductKeyMemory])
def test_weights_start_with_the_published_distributions(kind, generator):
    for name, fan_in in (("dim", 64), ("num_values", 30**2)):
        layer = kind(64, 30, initialization=name, num_layers=8, generator=generator)
        key_dim = 2 * layer.subkeys.shape[-1]
        assert layer.subkeys.std().item() == pytest.approx(math.sqrt(2 / key_dim / 8), rel=0.03)
        assert layer.values.std().item() == pytest.approx(math.sqrt(2 / fan_in / 8), rel=0.02)


def test_a_score_starts_with_the_variance_of_a_dense_hidden_unit(generator):
    layer = ProductKeyMemory(64, 30, num_heads=4, num_layers=8, generator=generator)
    x = torch.randn(200, 64, generator=generator)
    query = torch.einsum("td,hjkd->thjk", x, layer.query)
    score = torch.einsum("thjk,hjnk->thjn", query, layer.subkeys).sum(2)
    assert score.var().item() == pytest.approx(2 / 8, rel=0.1)


def test_the_default_width_of_a_query_is_even():
    assert ProductKeyMemory(412, 3, num_heads=4, top_k=1).query.shape == (4, 2, 51, 412)


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (ProductKeyMemory, {"num_subkeys": 0}, "num_subkeys must be >= 1, got 0"),
        (ProductKeyMemory, {"num_heads": 0}, "num_heads must be >= 1, got 0"),
        (ProductKeyMemory, {"top_k": 26}, r"top_k must be in 1 .. num_subkeys\^2 = 25, got 26"),
        (ProductKeyMemory, {"key_dim": 3}, "key_dim must be even and >= 2, got 3"),
        (ProductKeyMemory, {"num_heads": 4}, "key_dim must be even and >= 2, got 0"),
        (ProductKeyMemory, {"num_layers": 0}, "num_layers must be >= 1, got 0"),
        (DenseProductKeyMemory, {"dim": 5}, "dim must be even and >= 2, got 5"),
        (DenseProductKeyMemory, {"activation": "gelu"}, "activation must be .* got 'gelu'"),
        (DenseProductKeyMemory, {"initialization": "k"}, "initialization must be .* got 'k'"),
    ],
)
def test_bad_values_are_named(kind: type, values: dict[str, Any], message: str):
    lookup = {"top_k": 1, "num_heads": 1} if kind is ProductKeyMemory else {}
    with pytest.raises(ValueError, match=message):
        kind(**{"dim": D, "num_subkeys": N, **lookup, **values})
