"""From a configuration to a model: sizes, placements, names."""

import functools
from typing import Any

import pytest
import torch
from torch import nn

from fastweights.layers.dense import Dense
from fastweights.layers.layer import FeedForward
from fastweights.layers.short_convolution import ShortConvolution
from fastweights.models import menu
from fastweights.models.block import ResidualBlock
from fastweights.models.menu import (
    FEED_FORWARDS,
    SEQUENCE_LAYERS,
    build_model,
    feed_forward_options,
    has_ff_dim,
    layer_options,
    resolve,
)
from fastweights.ops.relative_attention import distance_sinusoids
from fastweights.train.config import WITH_FF_DIM, SequenceModelConfig

V, OUT, D, H, F = 3, 3, 32, 4, 64


def count(layer: str, **options: object) -> int:
    config = SequenceModelConfig.model_validate({"layer": layer, **options})
    model = build_model(config, V, OUT, torch.Generator().manual_seed(0))
    return sum(parameter.numel() for parameter in model.parameters())


def test_parameter_counts_of_the_published_formulas():
    """Embedding, head, feed-forward sub-layer, mixing sub-layer."""
    d, f = D // H, F // D
    shared = V * D + OUT * (D + 1) + 2 * f * D**2 + (f + 1) * D + 2 * D
    delta = 4 * D**2 + H * D + 2 * D
    assert count("linear_transformer") == shared + 4 * D**2 + 2 * D
    assert count("delta_net") == shared + delta
    assert count("recurrent_delta_net") == shared + delta + H * (3 * d**2 + d) == 9539
    assert count("srwm") == shared + H * (3 * d**2 + 4 * d) + D**2 + 2 * D


@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("block", ["post_norm", "pre_norm"])
def test_transformer_equals_pytorchs_encoder(num_layers, block):
    """Post-LN with a final norm is the published one; pre-LN has none here. PyTorch starts every
    layer from the same weights, we do not."""
    config = SequenceModelConfig(layer="softmax_attention", num_layers=num_layers, block=block)
    model = build_model(config, V, OUT, torch.Generator().manual_seed(0))
    post = block == "post_norm"
    layer = nn.TransformerEncoderLayer(D, H, F, dropout=0.0, batch_first=True, norm_first=not post)
    final_norm = nn.LayerNorm(D) if post else None
    oracle = nn.TransformerEncoder(layer, num_layers, final_norm, enable_nested_tensor=False)
    for block, theirs in zip(model.blocks, oracle.layers, strict=True):
        theirs.self_attn.in_proj_weight.data = block.layer.input_projection.weight.data
        theirs.self_attn.in_proj_bias.data = block.layer.input_projection.bias.data
        theirs.self_attn.out_proj.load_state_dict(block.layer.output_projection.state_dict())
        theirs.linear1.load_state_dict(block.feed_forward.up.state_dict())
        theirs.linear2.load_state_dict(block.feed_forward.down.state_dict())
    inputs = torch.randint(V, (2, 6), generator=torch.Generator().manual_seed(1))
    mask = nn.Transformer.generate_square_subsequent_mask(6)
    assert model.output is not None
    want = model.output(oracle(model.embedding(inputs), mask=mask, is_causal=True))
    torch.testing.assert_close(model(inputs).logits, want)


@pytest.mark.parametrize("layer", SEQUENCE_LAYERS)
def test_a_model_carries_its_state(layer):
    config = SequenceModelConfig(layer=layer, dim=8, num_layers=2, ff_dim=8)
    model = build_model(config, V, OUT, torch.Generator().manual_seed(0)).double()
    inputs = torch.randint(V, (2, 9), generator=torch.Generator().manual_seed(1))
    whole = model(inputs)
    state, logits = None, []
    for piece in inputs.split([4, 1, 4], 1):
        output = model(piece, state)
        state = output.state
        logits.append(output.logits)
    torch.testing.assert_close(torch.cat(logits, 1), whole.logits)
    assert whole.balance_loss.item() == 0


def test_scores_at_chosen_positions_are_those_of_all(generator):
    config = SequenceModelConfig(dim=8, ff_dim=8)
    model = build_model(config, V, OUT, generator)
    inputs = torch.randint(V, (3, 9), generator=generator)
    at = torch.rand(3, 9, generator=generator) < 0.4
    some, all_ = model(inputs, at=at), model(inputs)
    torch.testing.assert_close(some.logits, all_.logits[at])
    torch.testing.assert_close(some.state, all_.state)
    assert model(inputs, at=torch.zeros_like(at)).logits.shape == (0, OUT)


def test_losses_are_those_of_the_scores(generator):
    config = SequenceModelConfig(dim=8, ff_dim=8)
    model = build_model(config, V, OUT, generator)
    inputs = torch.randint(V, (3, 9), generator=generator)
    targets = torch.randint(OUT, (3, 9), generator=generator)
    output, losses = model(inputs), model.losses(inputs, targets)
    log_p = output.logits.log_softmax(-1)
    want = -log_p.gather(-1, targets[..., None]).squeeze(-1)
    torch.testing.assert_close(losses.nats, want)
    torch.testing.assert_close(losses.state, output.state)
    later = model.losses(inputs[:, 4:], targets[:, 4:], model(inputs[:, :4]).state)
    torch.testing.assert_close(later.nats, want[:, 4:])
    at = torch.rand(3, 9, generator=generator) < 0.4
    torch.testing.assert_close(model(inputs, at=at, targets=targets).nats, want[at])
    with torch.autocast("cpu", torch.bfloat16):
        assert model.losses(inputs, targets).nats.dtype == torch.float32


def test_positions_count_on_from_call_to_call(generator):
    config = SequenceModelConfig(dim=8, ff_dim=8, positions="sinusoidal", scale_embedding=True)
    model = build_model(config, V, OUT, generator)
    inputs = torch.randint(V, (2, 9), generator=generator)
    whole = model(inputs)
    state, logits = model.initial_state(2), []
    for piece in inputs.split([4, 1, 4], 1):
        output = model(piece, state)
        state = output.state
        logits.append(output.logits)
    torch.testing.assert_close(torch.cat(logits, 1), whole.logits)
    assert state[-1].next.tolist() == [9, 9]
    first = model.embedding(inputs[:1, :1]) * 8**0.5
    x, _ = model._embed(inputs[:1, :1].expand(1, 3), None)
    want = first + distance_sinusoids(3, 8, like=first)
    torch.testing.assert_close(x, want)


def test_adaptive_output(generator):
    config = SequenceModelConfig(dim=8, ff_dim=8, embedding="tied", adaptive_cutoffs=(3, 7))
    model = build_model(config, 11, 11, generator)
    inputs = torch.randint(11, (2, 9), generator=generator)
    log_p = model(inputs).logits
    torch.testing.assert_close(log_p.exp().sum(-1), torch.ones(2, 9))
    want = -log_p.gather(-1, inputs[..., None]).squeeze(-1)
    torch.testing.assert_close(model.losses(inputs, inputs).nats, want)
    at = torch.rand(2, 9, generator=generator) < 0.4
    torch.testing.assert_close(model(inputs, at=at, targets=inputs).nats, want[at])
    untied = config.model_copy(update={"embedding": "learned"})
    with pytest.raises(ValueError, match="adaptive_cutoffs need embedding='tied', got 'learned'"):
        build_model(untied, 11, 11, generator)


def test_normal_initialization(generator):
    config = SequenceModelConfig(dim=64, initialization="normal")
    model = build_model(config, 50, 50, generator)
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.1)
        if isinstance(module, nn.LayerNorm):
            assert module.weight.mean().item() == pytest.approx(1, abs=0.01)
        if isinstance(module, nn.Linear | nn.LayerNorm) and module.bias is not None:
            assert not module.bias.any()


@pytest.mark.parametrize(
    "layer",
    ["linear_transformer", "delta_net", "normalized_delta_net", "delta_rnn", "delta_lstm"],
)
def test_scaled_output(layer, generator):
    """Of heads of 4: half of what is read."""
    x = torch.randn(2, 5, 8, generator=generator)
    plain, scaled = (
        SEQUENCE_LAYERS[layer](8, 2, **options, generator=torch.Generator().manual_seed(1))(x)[0]
        for options in ({}, {"scale_output": True})
    )
    torch.testing.assert_close(scaled, plain / 2)


def test_dropout_around_the_embedding(generator):
    config = SequenceModelConfig(dim=64, embedding_dropout=0.5)
    model = build_model(config, 5, 5, generator)
    inputs = torch.zeros(1, 50, dtype=torch.int64)
    x, _ = model._embed(inputs, None)
    assert 0.3 < (x == 0).float().mean() < 0.7
    assert not (model.eval()._embed(inputs, None)[0] == 0).any()


def test_a_convolution_stands_before_every_layer(generator):
    """It draws its weights after the layer's own; without it nothing changes."""
    config = SequenceModelConfig(layer="srwm", dim=8, num_layers=2, ff_dim=8, convolution_size=4)
    model = build_model(config, V, OUT, torch.Generator().manual_seed(0))
    plain = build_model(
        config.model_copy(update={"convolution_size": None}),
        V,
        OUT,
        torch.Generator().manual_seed(0),
    )
    for block in model.blocks:
        assert isinstance(block.layer, ShortConvolution)
        assert type(block.layer.layer) is type(plain.blocks[0].layer)
        assert block.layer.size == 4
    first = plain.blocks[0].layer.state_dict()
    torch.testing.assert_close(model.blocks[0].layer.layer.state_dict(), first, rtol=0, atol=0)
    inputs = torch.randint(V, (2, 9), generator=generator)
    whole, first = model(inputs), model(inputs[:, :2])
    torch.testing.assert_close(model(inputs[:, 2:], first.state).logits, whole.logits[:, 2:])


def test_placements(generator):
    """x = layer and feed-forward of zero weights: what is left is residual and norm."""
    x = torch.randn(2, 3, 8, generator=generator)
    norm = nn.LayerNorm(8)
    expected = {
        "pre_norm": x,
        "normed_residual": norm(x),
        "normed_input": norm(x),
        "post_norm": norm(norm(x)),
        "plain": torch.zeros_like(x),
    }
    for name, want in expected.items():
        config = SequenceModelConfig(layer="delta_net", block=name, dim=8, ff_dim=8)
        block = build_model(config, V, OUT, generator).blocks[0]
        block.layer.output_projection.weight.data.zero_()
        if isinstance(block, ResidualBlock):
            for parameter in block.feed_forward.down.parameters():
                parameter.data.zero_()
        torch.testing.assert_close(block(x)[0], want)


def test_the_normed_input_enters_layer_and_residual(generator):
    config = SequenceModelConfig(block="normed_input", dim=8, ff_dim=8)
    block = build_model(config, V, OUT, generator).blocks[0]
    nn.init.normal_(block.layer_norm.weight, generator=generator)
    x = torch.randn(2, 3, 8, generator=generator)
    normed = block.layer_norm(x)
    after = normed + block.layer(normed)[0]
    want = after + block.feed_forward(block.feed_forward_norm(after))[0]
    torch.testing.assert_close(block(x)[0], want)


def test_one_hot_embedding_is_fixed(generator):
    config = SequenceModelConfig(layer="lstm", dim=8, embedding="one_hot")
    model = build_model(config, V, OUT, generator)
    assert torch.equal(model.embedding.weight, torch.eye(V, 8))
    assert not model.embedding.weight.requires_grad
    with pytest.raises(ValueError, match="needs vocab_size <= dim, got 3 > 2"):
        build_model(config.model_copy(update={"dim": 2}), V, OUT, generator)


def test_tied_embedding_is_the_output_weight(generator):
    config = SequenceModelConfig(layer="delta_net", dim=64, ff_dim=8, embedding="tied")
    model = build_model(config, 50, 50, generator)
    torch.testing.assert_close(model.embedding.weight.std(), torch.tensor(1 / 8), rtol=0.05, atol=0)
    inputs = torch.randint(50, (2, 5), generator=generator)
    before = model(inputs).logits
    read = []
    with model.final_norm.register_forward_hook(lambda _, __, x: read.append(x)):
        torch.testing.assert_close(model(inputs).logits, before)
    torch.testing.assert_close(before, read[0] @ model.embedding.weight.mT)
    assert not any(name.startswith("output") for name in model.state_dict())
    with pytest.raises(ValueError, match="needs as many outputs as inputs, got 3 and 50"):
        build_model(config, 50, 3, generator)


def test_options_are_resolved_and_converted():
    assert layer_options("srwm", {}) == {"num_heads": 4, "query_scale": 0.01}
    assert layer_options("delta_net", {"max_write_strength": 2})["max_write_strength"] == 2.0
    assert "dim" not in layer_options("delta_net", {})


class Scaled(FeedForward):
    """`scale x`, with a balance loss; shows what the menu gives to a layer."""

    def __init__(
        self,
        dim: int,
        power: int,
        scale: float = 2.0,
        num_layers: int = 1,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.given = dim, power, scale, num_layers, generator

    def forward(self, x):
        return self.given[2] * x, x.new_full((), 0.5)


@pytest.fixture
def scaled(monkeypatch):
    monkeypatch.setitem(menu.FEED_FORWARDS, "scaled", Scaled)
    monkeypatch.setitem(menu.FEED_FORWARDS, "cubed", functools.partial(Scaled, power=3))


def test_every_block_gets_the_chosen_feed_forward_layer(scaled, generator):
    config = SequenceModelConfig(
        feed_forward="scaled", feed_forward_options={"power": 2}, dim=8, num_layers=3
    )
    model = build_model(config, V, OUT, generator)
    given = [block.feed_forward.given for block in model.blocks]
    assert given == [(8, 2, 2.0, 3, generator)] * 3
    assert model(torch.zeros(2, 5, dtype=torch.long)).balance_loss.item() == 1.5
    cubed = config.model_copy(update={"feed_forward": "cubed", "feed_forward_options": {}})
    feed_forward: Any = build_model(cubed, V, OUT, generator).blocks[0].feed_forward
    assert feed_forward.given[:3] == (8, 3, 2.0)
    assert feed_forward_options("cubed", {"scale": 1}) == {"scale": 1.0}


def test_dense_is_the_default_and_gets_width_and_dropout(generator):
    block = build_model(SequenceModelConfig(dropout=0.25), V, OUT, generator).blocks[0]
    assert isinstance(block.feed_forward, Dense)
    assert block.feed_forward.up.out_features == 64
    assert block.feed_forward.dropout.p == 0.25


def test_the_configuration_knows_which_layers_have_a_width():
    assert {name for name in FEED_FORWARDS if has_ff_dim(name)} == set(WITH_FF_DIM) & set(
        FEED_FORWARDS
    )


def test_a_final_norm_where_it_is_asked_for(generator):
    for block, given, want in (
        ("post_norm", None, True),
        ("pre_norm", None, False),
        ("pre_norm", True, True),
        ("post_norm", False, False),
        ("plain", True, True),
    ):
        config = SequenceModelConfig(block=block, final_norm=given, dim=8)
        assert resolve(config).final_norm is want
        model = build_model(config, V, OUT, generator)
        assert isinstance(model.final_norm, nn.LayerNorm) is want


def test_a_model_without_numbers(generator):
    """On the meta device nothing is drawn and nothing is stored."""
    for layer in SEQUENCE_LAYERS:
        with torch.device("meta"):
            model = build_model(SequenceModelConfig(layer=layer), V, OUT)
        assert {parameter.device.type for parameter in model.parameters()} == {"meta"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"layer": "deltanet"}, "unknown layer 'deltanet'; did you mean delta_net"),
        ({"layer_options": {"num_head": 2}}, "unknown option of layer delta_net 'num_head'; did"),
        ({"layer_options": {"num_heads": "two"}}, "layer_options.num_heads of delta_net.*'two'"),
        ({"layer_options": {"dim": 8}}, "unknown option of layer delta_net 'dim'"),
        ({"block": "prenorm"}, "unknown block 'prenorm'; did you mean pre_norm"),
        ({"dim": 6}, "got dim=6, num_heads=4"),
        ({"feed_forward": "dens"}, "unknown feed-forward layer 'dens'; did you mean dense"),
        (
            {"feed_forward_options": {"top_k": 2}},
            "unknown option of feed-forward layer dense 'top_k'",
        ),
        (
            {"feed_forward": "scaled", "feed_forward_options": {"powr": 2}},
            "unknown option of feed-forward layer scaled 'powr'; did you mean power",
        ),
        (
            {"feed_forward": "cubed", "feed_forward_options": {"power": 2}},
            "unknown option of feed-forward layer cubed 'power'; known: scale",
        ),
        ({"feed_forward": "scaled"}, "feed_forward_options.power of scaled: is missing"),
        (
            {"feed_forward": "cubed", "feed_forward_options": {"scale": "big"}},
            "feed_forward_options.scale of cubed: .*'big'",
        ),
        (
            {"feed_forward": "cubed", "ff_dim": 32},
            "layer cubed has its sizes in feed_forward_options and no ff_dim, got ff_dim=32",
        ),
        (
            {"layer": "lstm", "feed_forward": "cubed"},
            "block plain has no feed-forward layer, got feed_forward='cubed'",
        ),
    ],
)
def test_bad_names_are_answered_with_near_ones(scaled, values, message):
    with pytest.raises(ValueError, match=message):
        build_model(SequenceModelConfig.model_validate(values), V, OUT)
