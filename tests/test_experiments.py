"""The grids of the experiments."""

import pytest

from fastweights.account import count_parameters
from fastweights.experiments import EXPERIMENTS
from fastweights.models.menu import build_model
from fastweights.train.config import ConfigError, SequenceModelConfig
from fastweights.train.run_model import model_sizes, spelled_out


def test_names_of_models_mean_one_thing() -> None:
    """`list models` shows every name once; a short form of a study has the same models."""
    studies = [study for name, study in EXPERIMENTS.items() if name != "demo"]
    names = [name for study in studies for name in study.models]
    assert len(names) == len(set(names))


def test_recall_compares_memories_of_the_same_size() -> None:
    cells = EXPERIMENTS["recall"].cells(seeds=[2])
    assert len(cells) == 20
    sizes = {}
    for cell in cells:
        config = spelled_out(cell.config)
        assert config.task.kind == "recall" and config.seed == 2
        filler = "_random" if config.task.random_filler else ""
        rewritten = "_rewritten" if config.task.writes_per_key == 2 else ""
        assert cell.task == f"recall_{config.task.vocab_size}{filler}{rewritten}"
        assert isinstance(config.model, SequenceModelConfig)
        assert (config.model.embedding, config.model.convolution_size) == ("tied", 4)
        state = build_model(config.model, 8, 8).initial_state(1)
        if cell.model != "softmax_attention_conv":
            sizes[cell.model] = [one.layer.memory.numel() for one in state]
    assert len(sizes) == 4 and all(size == [64 * 64] * 2 for size in sizes.values())
    short = EXPERIMENTS["recall"].cells(quick=True, seeds=[1])
    assert [cell.task for cell in short] == ["recall_1024"] * 5
    assert {cell.config.training.max_steps for cell in short} == {1000}


def test_recall_knows_no_published_protocol() -> None:
    with pytest.raises(ConfigError, match="protocol: task recall knows 'strict' alone"):
        EXPERIMENTS["recall"].cells(overrides={"protocol": "published"})


def test_feed_forward_layers_are_compared_at_equal_parameters() -> None:
    counts = {}
    for cell in EXPERIMENTS["sparse_feed_forward"].cells(seeds=[1]):
        assert isinstance(cell.config.model, SequenceModelConfig)
        sizes = model_sizes(cell.config)
        counts[cell.model] = count_parameters(cell.config.model, *sizes)
    dense = counts.pop("dense")
    assert len(counts) == 6
    for model, count in counts.items():
        assert abs(count - dense) <= 1e-3 * dense, (model, count, dense)


def test_language_models_are_compared_at_equal_parameters() -> None:
    cells = EXPERIMENTS["language_models"].cells(tasks=["python_stdlib"], seeds=[1])
    counts = {}
    for cell in cells:
        assert isinstance(cell.config.model, SequenceModelConfig)
        counts[cell.model] = count_parameters(cell.config.model, 256, 256)
    assert len(counts) == 15
    delta_net = counts["lm_delta_net"]
    for model, count in counts.items():
        assert abs(count - delta_net) <= 1e-3 * delta_net, (model, count, delta_net)


def test_language_models_have_positions_where_the_published_ones_do() -> None:
    cells = EXPERIMENTS["language_models"].cells(tasks=["debian_english"], seeds=[1])
    found = {cell.model for cell in cells if cell.config.model.positions == "sinusoidal"}
    assert found == {"lm_softmax", "lm_linear", "lm_linear_dpfp"}


def test_language_models_carry_states_that_do_not_grow() -> None:
    cells = EXPERIMENTS["language_models"].cells(tasks=["python_stdlib_carried"], seeds=[1])
    assert all(cell.config.task.carry_state for cell in cells)
    assert len(cells) == 9 and "lm_softmax" not in {cell.model for cell in cells}
    assert {cell.config.model.positions for cell in cells} == {"none"}
