"""What is left of a memory, against memories written and read by hand."""

import pytest
import torch
from torch.nn.functional import cosine_similarity

from fastweights.memory_map import map_of_model, maps_of_pairs
from fastweights.models.menu import build_model
from fastweights.models.sequence_model import SequenceModel
from fastweights.ops.delta_rule import delta_rule_step
from fastweights.train.config import SequenceModelConfig, parse_config
from fastweights.train.retrieval import build_associative_memory

LAYERS = [
    "linear_transformer",
    "delta_net",
    "recurrent_delta_net",
    "srwm",
    "softmax_attention",
]


def make_model(layer: str, num_layers: int = 1, **options: object) -> SequenceModel:
    config = SequenceModelConfig(
        layer=layer, dim=8, ff_dim=8, num_layers=num_layers, layer_options=options
    )
    return build_model(config, 5, 3, torch.Generator().manual_seed(0)).double()


def inputs(T: int = 7) -> torch.Tensor:
    return torch.randint(5, (T,), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("layer", LAYERS)
def test_a_map_for_each_block_and_head(layer: str) -> None:
    maps = map_of_model(make_model(layer, num_layers=2), inputs())
    titles = [f"block {block}, head {head}" for block in (1, 2) for head in (1, 2, 3, 4)]
    assert [each.title for each in maps] == titles
    later = torch.ones(7, 7, dtype=torch.bool).triu()
    for each in maps:
        assert each.retrieved[later].isfinite().all()
        assert each.retrieved[~later].isnan().all()
        assert each.retrieved[later].abs().max() <= 1 + 1e-12


def test_the_delta_rule_by_hand() -> None:
    model = make_model("delta_net", num_heads=1)
    layer = model.blocks[0].layer
    tokens = inputs()
    seen = []
    layer.register_forward_hook(lambda module, given, result: seen.append(given[0]))
    model(tokens[None])
    q, k, v, beta = layer.input_projection(seen[0]).unflatten(-1, (1, -1)).split([8, 8, 8, 1], -1)
    k, beta = layer.feature_map(k), beta.squeeze(-1).sigmoid()
    want = torch.full((7, 7), torch.nan, dtype=torch.float64)
    memory = None
    for t in range(7):
        _, memory = delta_rule_step(q[:, t], k[:, t], v[:, t], beta[:, t], memory)
        for i in range(t + 1):
            want[i, t] = cosine_similarity(k[0, i, 0] @ memory[0, 0], v[0, i, 0], dim=0)
    (got,) = map_of_model(make_model("delta_net", num_heads=1), tokens)
    torch.testing.assert_close(got.retrieved, want, equal_nan=True)


def test_softmax_attention_reads_the_only_pair_exactly() -> None:
    for each in map_of_model(make_model("softmax_attention"), inputs(T=1)):
        torch.testing.assert_close(each.retrieved, torch.ones(1, 1, dtype=torch.float64))


def test_the_write_of_an_srwm_moves_the_read_towards_its_value() -> None:
    """W + beta k (v - k W)^T: what k reads afterwards is nearer to v, the nearer |k|^2 is to 1."""
    model = make_model("srwm")
    layer = model.blocks[0].layer
    x, state = torch.randn(1, 8, dtype=torch.float64), layer.initial_state(1)
    key, value = layer.association(x, state)
    before = (layer.read(key[:, None], state)[:, 0] - value).norm()
    _, state = layer(x[:, None], state)
    after = (layer.read(key[:, None], state)[:, 0] - value).norm()
    assert after < before


@pytest.mark.parametrize("layer", ["lstm", "e_lstm"])
def test_no_memory_to_show(layer: str) -> None:
    with pytest.raises(ValueError, match="LSTM keeps no associations"):
        map_of_model(make_model(layer), inputs())


def test_hooks_are_taken_away() -> None:
    model = make_model("delta_net")
    map_of_model(model, inputs())
    assert not model.blocks[0].layer._forward_pre_hooks


def test_pairs_of_a_retrieval_model() -> None:
    config = parse_config({"task": {"kind": "retrieval", "num_keys": 6}})
    model = build_associative_memory(config).double()
    keys, values = torch.tensor([2, 0, 2]), torch.tensor([1, 4, 5])
    cosine, part = (each.retrieved for each in maps_of_pairs(model, keys, values, 6))
    for t in range(3):
        read = model(keys[None, : t + 1], values[None, : t + 1], keys[None])[0]
        for i in range(t + 1):
            torch.testing.assert_close(cosine[i, t], read[i, values[i]] / read[i].norm())
            torch.testing.assert_close(part[i, t], read[i, values[i]])
    for each in cosine, part:
        assert each[1, 0].isnan() and each[2, :2].isnan().all()


@torch.inference_mode()
@pytest.mark.parametrize("layer", ["delta_net", "linear_transformer", "srwm", "softmax_attention"])
def test_a_convolution_does_not_hide_the_memory(layer: str, generator: torch.Generator) -> None:
    """The map of the layer behind it, for what the convolution lets it see."""
    config = SequenceModelConfig(layer=layer, dim=8, ff_dim=8, convolution_size=3)
    model = build_model(config, 4, 3, generator)
    inputs = torch.randint(4, (5,), generator=generator)
    maps = map_of_model(model, inputs)
    assert [one.title for one in maps] == [f"block 1, head {n}" for n in (1, 2, 3, 4)]
    convolution = model.blocks[0].layer
    seen: list[torch.Tensor] = []
    with convolution.layer.register_forward_pre_hook(lambda _, given: seen.append(given[0])):
        model(inputs[None])
    memory, state = convolution.layer, convolution.layer.initial_state(1)
    states, written = [], []
    for t in range(5):
        written.append(memory.association(seen[0][:, t], state))
        state = memory(seen[0][:, t : t + 1], state)[1]
        states.append(state)
    for i, (key, value) in enumerate(written):
        for t in range(i, 5):
            read = memory.read(key[:, None], states[t])[:, 0]
            want = cosine_similarity(read, value, dim=-1)[0]
            got = torch.stack([one.retrieved[i, t] for one in maps])
            torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)


def test_an_lstm_behind_a_convolution_keeps_no_associations() -> None:
    config = SequenceModelConfig(layer="lstm", dim=8, convolution_size=3)
    with pytest.raises(ValueError, match="LSTM keeps no associations: no memory to show"):
        map_of_model(build_model(config, 5, 3), inputs())
