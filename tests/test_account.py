"""What a model costs, counted by hand, and models of equal size."""

import functools
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from fastweights.account import count_parameters, describe_model, equal_parameters
from fastweights.layers.initialization import normal
from fastweights.layers.layer import FeedForward
from fastweights.models import menu
from fastweights.models.menu import SEQUENCE_LAYERS, build_model
from fastweights.train.config import SequenceModelConfig

V, OUT, D, H, F, N = 5, 3, 32, 4, 48, 10
d = D // H
MEMORY = H * d * d


class Halves(FeedForward):
    """`num_experts` two-layer networks, of which every token uses the first `top_k`."""

    def __init__(
        self,
        dim: int,
        num_experts: int = 6,
        expert_dim: int = 8,
        top_k: int = 2,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if top_k > num_experts:
            raise ValueError(f"top_k must be <= num_experts, got {top_k} > {num_experts}")
        self.top_k = top_k
        self.up = normal(num_experts, dim, expert_dim, std=1.0, generator=generator)
        self.down = normal(num_experts, expert_dim, dim, std=1.0, generator=generator)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = torch.einsum("btd,edf->betf", x, self.up[: self.top_k]).relu()
        y = torch.einsum("betf,efd->btd", hidden, self.down[: self.top_k])
        return y, x.new_zeros(())

    def active_parameters(self) -> int:
        return super().active_parameters() * self.top_k // len(self.up)


@pytest.fixture
def halves(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(menu.FEED_FORWARDS, "halves", Halves)
    monkeypatch.setitem(menu.FEED_FORWARDS, "first_of_2", functools.partial(Halves, top_k=1))
    yield


def config(layer: str = "delta_net", **settings) -> SequenceModelConfig:
    return SequenceModelConfig.model_validate({"layer": layer, "dim": D, "ff_dim": F} | settings)


def sparse(**settings) -> SequenceModelConfig:
    return config(feed_forward="halves", ff_dim=None, **settings)


# By hand: a product of m x k with k x n is 2 m k n; reads and writes of a memory are 2 a number.
PROJECTIONS = 2 * D * (3 * D + H) + 2 * D * D
BY_HAND = {
    "lstm": 2 * 8 * D * D + 4 * D + D + 3 * D,  # sums of the gates, of the cell; products
    "e_lstm": 2 * 2 * D * D + 2 * 2 * D * D + 2 * 2 * D + 3 * D + D,
    "softmax_attention": 8 * D * D + D + 4 * (N + 1) * D,
    "transformer_xl": 8 * D * D + 4 * D + 6 * (N + 1) * D,  # without W_r R, which all tokens share
    "linear_transformer": 8 * D * D + 2 * D + 4 * MEMORY + D,
    "delta_net": PROJECTIONS + 2 * 3 * D + H + 6 * MEMORY + 2 * D,
    "recurrent_delta_net": PROJECTIONS + 2 * H * (3 * d * d + d) + 6 * MEMORY + 2 * D,
    "srwm": 6 * H * (3 * d * d + 4 * d) + D + H * (3 * d + 4) + 2 * D * D,
}
STATE = {
    "lstm": 2 * D,
    "e_lstm": D,
    "softmax_attention": 2 * N * D,
    "transformer_xl": N * D,
    "linear_transformer": MEMORY + D,
    "delta_net": MEMORY,
    "recurrent_delta_net": MEMORY + D,
    "srwm": H * (3 * d * d + 4 * d),
}


@pytest.mark.parametrize("layer", BY_HAND)
def test_flops_and_state_of_a_layer(layer):
    account = describe_model(config(layer, num_layers=2), V, OUT, N)
    assert account.flops["sequence layers"] == 2 * BY_HAND[layer]
    assert (account.state_numbers, account.state_bytes) == (2 * STATE[layer], 8 * STATE[layer])


@pytest.mark.parametrize("layer", SEQUENCE_LAYERS)
def test_every_layer_has_an_account(layer):
    """Every matrix takes part, save that of Transformer-XL's distances; the memory costs a few
    products more."""
    account = describe_model(config(layer), V, OUT, N)
    weights = account.parameters["sequence layers"] - D * D * (layer == "transformer_xl")
    most = 10 * (weights + account.state_numbers)
    assert 1.9 * weights < account.flops["sequence layers"] < most
    assert account.state_numbers > 0


@pytest.mark.parametrize("layer", SEQUENCE_LAYERS)
def test_parameters_are_those_of_the_model(layer):
    settings = config(layer, num_layers=2, convolution_size=3, final_norm=True)
    model = build_model(settings, V, OUT, torch.Generator().manual_seed(0))
    account = describe_model(settings, V, OUT)
    assert account.num_parameters == sum(p.numel() for p in model.parameters())
    assert account.num_parameters == count_parameters(settings, V, OUT)
    blocks = [p.numel() for block in model.blocks for p in block.layer.parameters()]
    assert account.parameters["sequence layers"] == sum(blocks)
    assert account.parameters["embedding"] == V * D
    assert account.parameters["output"] == OUT * (D + 1)
    assert account.parameters["norms"] == 2 * D * (1 if settings.layer in ("lstm", "e_lstm") else 5)


def test_dense_feed_forward_and_output():
    account = describe_model(config(num_layers=3), V, OUT)
    assert account.flops["feed-forward"] == 3 * 4 * D * F
    assert account.flops["output"] == 2 * D * OUT
    assert (
        account.active_feed_forward == account.parameters["feed-forward"] == 3 * (2 * D * F + F + D)
    )
    assert account.num_flops == sum(account.flops.values())


def test_no_state_before_the_first_token():
    assert describe_model(config("softmax_attention"), V, OUT).state_numbers == 0
    convolved = describe_model(config(convolution_size=4), V, OUT, N)
    assert convolved.state_numbers == MEMORY + 3 * D
    assert convolved.flops["sequence layers"] == BY_HAND["delta_net"] + 2 * 4 * D
    with pytest.raises(ValueError, match="context_length must be >= 0, got -1"):
        describe_model(config(), V, OUT, -1)


def test_what_is_not_trained_is_not_counted():
    assert describe_model(config(embedding="one_hot"), V, OUT).parameters["embedding"] == 0
    tied = describe_model(config(embedding="tied"), V, V)
    assert (tied.parameters["embedding"], tied.parameters["output"]) == (V * D, 0)
    assert tied.flops["output"] == 2 * D * V


def test_plain_blocks_have_no_feed_forward():
    account = describe_model(config("lstm"), V, OUT)
    assert account.parameters["feed-forward"] == account.active_feed_forward == 0
    assert account.flops["feed-forward"] == 0


E, G, K = 6, 8, 3  # experts, their width, how many a token has
ROUTER, EXPERTS = 2 * D * E, 2 * D * 2 * K * G
MIXTURES = [
    ({}, ROUTER + EXPERTS + K * G),
    ({"router": "softmax_after_top_k"}, ROUTER + EXPERTS + K * G),
    # For the loss, the routes and the probabilities of every expert.
    ({"router": "switch"}, ROUTER + EXPERTS + K * G + 2 * E),
    # A second product of the input, and that of the two.
    ({"gated": True}, ROUTER + 3 * EXPERTS // 2 + 2 * K * G),
    # The sum of K gated biases, and that with the output.
    ({"bias": True}, ROUTER + EXPERTS + 2 * K * G + 2 * K * D + D),
]


@pytest.mark.parametrize(("options", "want"), MIXTURES)
def test_flops_of_a_mixture_of_experts(options, want):
    options = {"num_experts": E, "expert_dim": G, "top_k": K, **options}
    settings = config(feed_forward="moe", ff_dim=None, feed_forward_options=options, num_layers=2)
    assert describe_model(settings, V, OUT).flops["feed-forward"] == 2 * want


def test_the_published_share_of_the_dense_flops():
    """K / E, a quarter, router and gates apart: `WT-S` of Csordas et al. (2023), Table 7."""
    sizes = {"num_experts": 16, "expert_dim": 128, "top_k": 4}
    experts = config(dim=412, feed_forward="moe", ff_dim=None, feed_forward_options=sizes)
    dense = config(dim=412, ff_dim=16 * 128)
    flops, all_flops = (describe_model(x, V, OUT).flops["feed-forward"] for x in (experts, dense))
    assert flops - 2 * 412 * 16 - 4 * 128 == all_flops / 4


@pytest.mark.parametrize("top_k", [1, 6, 7, F])
def test_units_and_values_that_are_not_chosen_cost_nothing(top_k):
    """Also above an eighth of the 48, where a dense product is the faster one."""
    settings = config(feed_forward="top_k", feed_forward_options={"top_k": top_k})
    flops = describe_model(settings, V, OUT).flops["feed-forward"]
    assert flops == 2 * D * F + 2 * D * top_k + D


def test_only_chosen_experts_are_active(halves):
    account = describe_model(sparse(num_layers=2), V, OUT)
    assert account.parameters["feed-forward"] == 2 * 6 * 2 * D * 8
    assert account.active_feed_forward == account.parameters["feed-forward"] / 3
    assert account.flops["feed-forward"] == 2 * account.active_feed_forward


def test_counting_draws_nothing():
    before = torch.get_rng_state()
    describe_model(config("linear_transformer", layer_options={"feature_map": "favor"}), V, OUT)
    assert torch.equal(before, torch.get_rng_state())


def test_equal_parameters(halves):
    like = sparse(num_layers=2, feed_forward_options={"num_experts": 12, "expert_dim": 100})
    target = count_parameters(like, V, OUT)
    dense = equal_parameters(config(num_layers=2), like, V, OUT)
    assert 1180 < dense.ff_dim <= 1200  # less the biases
    assert abs(count_parameters(dense, V, OUT) / target - 1) < 1e-3
    for size, found in (("expert_dim", 12 * 100 // 6), ("num_experts", 12 * 100 // 8)):
        chosen = equal_parameters(sparse(num_layers=2), like, V, OUT, size)
        assert chosen.feed_forward_options == {size: found}
        assert count_parameters(chosen, V, OUT) == target
    for size, found in (("expert_dim", 25), ("num_experts", 3)):
        smaller = sparse(num_layers=2, feed_forward_options={"num_experts": 3, "expert_dim": 100})
        chosen = equal_parameters(like, smaller, V, OUT, size)
        assert chosen.feed_forward_options == {**like.feed_forward_options, size: found}


@pytest.mark.parametrize(
    ("settings", "size", "message"),
    [
        ({}, "ff_dmi", "unknown size of feed-forward layer dense 'ff_dmi'; did you mean ff_dim"),
        ({"layer": "lstm"}, None, "ff_dim: the parameters do not grow with it"),
        ({"feed_forward": "halves", "ff_dim": None}, "top_k", "top_k: the parameters do not grow"),
        (
            {"dim": 24},
            None,
            "ff_dim: no value gives 9,843 parameters within 0.1 %; nearest are 145: 9,820 and ",
        ),
        (
            {"dim": 64},
            None,
            "ff_dim: no value gives 9,843 parameters within 0.1 %; nearest are 1: 17,604",
        ),
    ],
)
def test_sizes_that_do_not_fit(halves, settings, size, message):
    like = config(ff_dim=80)
    with pytest.raises(ValueError, match=message):
        equal_parameters(config(**settings), like, V, OUT, size)
