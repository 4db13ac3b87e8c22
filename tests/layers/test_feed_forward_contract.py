"""What every feed-forward layer of the menu promises. A new one is tested by being on the menu."""

import inspect
import math
from typing import Any

import pytest
import torch

from fastweights.account import describe_model
from fastweights.layers.layer import FeedForward
from fastweights.models.menu import FEED_FORWARDS
from fastweights.train.config import SequenceModelConfig

DIM, FF_DIM = 8, 12
OPTIONS: dict[str, dict[str, Any]] = {
    "top_k": {"top_k": 3},
    "product_key_memory": {"num_subkeys": 4, "num_heads": 2, "top_k": 3},
    "dense_product_key_memory": {"num_subkeys": 4, "num_heads": 2},
    "moe": {"num_experts": 4, "expert_dim": 5, "top_k": 2},
    "switch": {"num_experts": 4, "expert_dim": 5},
}
OPTIONS |= dict.fromkeys(("sigma_moe", "s_base", "noisy_top_k"), OPTIONS["moe"])
ACTIVE = {  # numbers of width DIM that the output at a position is made of, biases apart
    "dense": 2 * 12,
    "top_k": 12 + 3,
    "product_key_memory": 8 + 4 + 2 * 3,
    "dense_product_key_memory": 2 * 4 + 16,
    "moe": 4 + 2 * 2 * 5,
    "sigma_moe": 4 + 2 * 2 * 5,
    "switch": 4 + 2 * 5,
    "s_base": 4 + 2 * 2 * 5,
    "noisy_top_k": 2 * 4 + 2 * 2 * 5,
}
FLOPS = {  # of one token: 2 for every number of a matrix that it meets, then what is said behind
    "dense": 2 * DIM * 2 * 12,
    "top_k": 2 * DIM * (12 + 3) + DIM,  # the bias of the output
    # For each head the sums of 5 candidates and of the 3 best, 2 for the number of a pair.
    "product_key_memory": 2 * DIM * (8 + 4 + 2 * 3) + 2 * (5 + 3 * (1 + 2)),
    "dense_product_key_memory": 2 * DIM * (4 + 16) + 16,  # the heads are one; sums of pairs
    "moe": 2 * DIM * (4 + 2 * 2 * 5) + 2 * 5,  # gates
    "sigma_moe": 2 * DIM * (4 + 2 * 2 * 5) + 2 * 5,
    # Gates; for the loss the routes and the probabilities of every expert.
    "switch": 2 * DIM * (4 + 2 * 5) + 5 + 2 * 4,
    "s_base": 2 * DIM * (4 + 2 * 2 * 5) + 2 * 5,
    "noisy_top_k": 2 * DIM * (4 + 2 * 2 * 5) + 2 * 5 + 4,  # gates, and their sums for the loss
}


@pytest.fixture(params=FEED_FORWARDS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def arguments(name: str) -> dict[str, Any]:
    """Of the constructor, without the generator."""
    sizes = {"dim": DIM, "ff_dim": FF_DIM} if name in ("dense", "top_k") else {"dim": DIM}
    return {**sizes, **OPTIONS.get(name, {})}


@pytest.fixture
def layer(name: str, generator: torch.Generator) -> FeedForward:
    return FEED_FORWARDS[name](**arguments(name), generator=generator).double().eval()


def inputs(*shape: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(1)
    return torch.randn(*(shape or (3, 5)), DIM, generator=g, dtype=torch.float64)


def test_shapes_and_gradients(layer):
    layer.train()
    x = inputs().requires_grad_()
    y, balance_loss = layer(x)
    assert y.shape == x.shape and balance_loss.shape == ()
    (y.square().sum() + balance_loss).backward()
    for gradient in (x.grad, *(parameter.grad for parameter in layer.parameters())):
        assert gradient is not None and gradient.isfinite().all()
    assert x.grad.abs().sum() > 0


def test_every_position_by_itself(layer):
    x = inputs(3, 5)
    y, _ = layer(x)
    torch.testing.assert_close(layer(x[1:2, 3:4])[0], y[1:2, 3:4])
    torch.testing.assert_close(layer(x.flatten(0, 1)[None])[0], y.flatten(0, 1)[None])
    assert torch.equal(layer(x)[0], y)


@pytest.mark.parametrize("shape", [(0, 5), (2, 0)])
def test_no_positions(layer, shape):
    x = inputs(*shape).requires_grad_()
    y, balance_loss = layer.train()(x)
    assert y.shape == x.shape and balance_loss.item() == 0
    (y.sum() + balance_loss).backward()
    assert not any(parameter.grad.any() for parameter in layer.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_and_autocast(layer, dtype):
    x = inputs()
    y, _ = layer(x)
    low, balance_loss = layer.to(dtype)(x.to(dtype))
    assert low.dtype == dtype and balance_loss.isfinite()
    torch.testing.assert_close(low.double(), y, atol=0.1, rtol=0.1)
    with torch.autocast("cpu", dtype=dtype):
        low, _ = layer.float()(x.float())
    torch.testing.assert_close(low.double(), y, atol=0.1, rtol=0.1)


@pytest.mark.parametrize("value", [0, -1, math.nan])
def test_no_size_is_less_than_one(name, value):
    make = FEED_FORWARDS[name]
    for size, parameter in inspect.signature(make).parameters.items():
        if parameter.annotation in (int, int | None):
            with pytest.raises(ValueError, match=f"^{size} must be .*got .*{value}") as error:
                make(**{**arguments(name), size: value})
            assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [-0.1, 1.0, math.nan, math.inf])
def test_no_probability_is_outside_of_0_to_1(name, value):
    make = FEED_FORWARDS[name]
    for probability in inspect.signature(make).parameters:
        if probability.endswith("dropout"):
            message = rf"{probability} must be in \[0, 1\), got {value}"
            with pytest.raises(ValueError, match=message):
                make(**{**arguments(name), probability: value})


def test_active_parameters(name, layer):
    biases = sum(p.numel() for p in layer.parameters() if p.dim() == 1)
    assert layer.active_parameters() - biases == ACTIVE[name] * DIM


def test_the_account_of_a_model_with_it(name):
    options = OPTIONS.get(name, {})
    settings = SequenceModelConfig(
        layer="lstm",
        block="pre_norm",
        dim=DIM,
        feed_forward=name,
        feed_forward_options=options,
        ff_dim=FF_DIM if name in ("dense", "top_k") else None,
    )
    account = describe_model(settings, vocab_size=7, num_outputs=7)
    assert account.parameters["feed-forward"] >= account.active_feed_forward
    assert account.flops["feed-forward"] == FLOPS[name]
