"""What every sequence layer of the menu promises. A new layer is tested by being on the menu."""

from typing import Any

import pytest
import torch
from torch.utils._pytree import tree_leaves, tree_map

from fastweights.layers.layer import SequenceLayer
from fastweights.layers.short_convolution import ShortConvolution
from fastweights.models.menu import SEQUENCE_LAYERS

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in SEQUENCE_LAYERS},
    "delta_net_0_2": (
        "delta_net",
        {"feature_map": "silu", "normalization": "l2", "max_write_strength": 2.0},
    ),
    "delta_net_dpfp": ("delta_net", {"feature_map": "dpfp", "dpfp_nu": 2}),
    "linear_transformer_normalized": ("linear_transformer", {"attention_normalizer": True}),
    "linear_transformer_favor": (
        "linear_transformer",
        {"feature_map": "favor", "num_random_features": 8, "attention_normalizer": True},
    ),
    "delta_mlp_deep": ("delta_mlp", {"fast_depth": 2, "expansion": 3}),
    "linear_transformer_head_dim": ("linear_transformer", {"num_heads": 3, "head_dim": 5}),
}
DIM = 8


@pytest.fixture(params=[*VARIANTS, *(f"{name}_convolved" for name in VARIANTS)])
def layer(request: pytest.FixtureRequest, generator: torch.Generator) -> SequenceLayer:
    """In float64, so that two orders of the same sums agree to many digits."""
    name, options = VARIANTS[request.param.removesuffix("_convolved")]
    options = {"num_heads": 2, **options} if name not in ("lstm", "e_lstm") else options
    layer = SEQUENCE_LAYERS[name](DIM, **options, generator=generator)
    if request.param.endswith("_convolved"):
        layer = ShortConvolution(layer, DIM, 3, generator)
    return layer.double()


def inputs(T: int, B: int = 3) -> torch.Tensor:
    g = torch.Generator().manual_seed(1)
    return torch.randn(B, T, DIM, generator=g, dtype=torch.float64)


def test_shape_and_default_state(layer):
    x = inputs(T=5)
    y, state = layer(x)
    assert y.shape == x.shape
    initial = layer.initial_state(3)
    assert type(state) is type(initial)
    torch.testing.assert_close(layer(x, initial), (y, state))


@pytest.mark.parametrize("cuts", [(1, 1, 1, 1, 1, 1, 1), (3, 4), (6, 1)])
def test_pieces_equal_the_whole(layer, cuts):
    x = inputs(T=7)
    state, ys = None, []
    for piece in x.split(cuts, 1):
        y, state = layer(piece, state)
        ys.append(y)
    want, want_state = layer(x)
    torch.testing.assert_close(torch.cat(ys, 1), want)
    torch.testing.assert_close(tree_leaves(state), tree_leaves(want_state))


def test_padding_after_a_sequence_changes_nothing_before(layer):
    x = inputs(T=7)
    padded = torch.cat([x[:, :4], 9 * x[:, 4:]], 1)
    torch.testing.assert_close(layer(padded)[0][:, :4], layer(x)[0][:, :4])


def test_sequences_of_a_batch_do_not_mix(layer):
    x = inputs(T=5)
    torch.testing.assert_close(layer(x)[0][1:2], layer(x[1:2])[0])


def test_gradients_reach_the_initial_state(layer):
    _, state = layer(inputs(T=4))
    state = tree_map(lambda part: part.detach().requires_grad_(), state)
    y, last = layer(inputs(T=3), state)
    loss = y.square().sum() + sum(part.square().sum() for part in tree_leaves(last))
    for part in torch.autograd.grad(loss, tree_leaves(state)):
        assert part.isfinite().all()
        assert part.abs().max() > 0


def test_every_parameter_gets_a_gradient(layer):
    layer(inputs(T=4))[0].square().sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None, name


def test_the_same_generator_draws_the_same_weights():
    for name, kind in SEQUENCE_LAYERS.items():
        first, second = (kind(DIM, generator=torch.Generator().manual_seed(3)) for _ in range(2))
        before = torch.get_rng_state()
        kind(DIM, generator=torch.Generator().manual_seed(4))
        assert torch.equal(before, torch.get_rng_state()), f"{name} draws from the global generator"
        torch.testing.assert_close(first.state_dict(), second.state_dict(), rtol=0, atol=0)
