"""The configurations of the published language models have the published numbers of parameters."""

from functools import partial

import pytest

from fastweights.account import count_parameters
from fastweights.experiments import EXPERIMENTS
from fastweights.experiments.sparse_language_models import MODELS, PUBLISHED, SIZES
from fastweights.experiments.wikitext103 import ROWS, VOCAB_SIZE
from fastweights.models.menu import resolve
from fastweights.train.config import SequenceModelConfig

WIKITEXT103 = EXPERIMENTS["wikitext103"]
SPARSE = EXPERIMENTS["sparse_language_models"]


def count(model: SequenceModelConfig, vocab_size: int) -> int:
    return count_parameters(model, vocab_size, vocab_size)


def words(D: int, layer: int) -> int:
    """The formula of the models of WikiText-103: the tied embedding, a bias for every word, three
    clusters, 16 blocks with two norms and the layer."""
    feed_forward = 2 * 2048 * D + 2048 + D
    return VOCAB_SIZE * (D + 1) + 3 * D + 3 + 16 * (layer + feed_forward + 4 * D)


# Where the paper has a number, in millions: Table 4 of 2021a, the sequel's table.
COUNTS = {
    "small_delta": (words(128, 4 * 128**2 + 8 * 128), 44.03),
    "small_linear": (words(128, 4 * 128**2), None),
    "small_transformer": (words(128, 4 * 128**2), None),
    "small_performer_8": (words(128, 4 * 128**2), None),
    "small_dpfp_delta": (words(128, 4 * 128**2 + 8 * 128), None),
    "medium_linear": (words(256, 4 * 256**2), 89.83),
    "medium_delta": (words(256, 4 * 256**2 + 8 * 256), 89.87),
    "medium_delta_normalized": (words(256, 4 * 256**2 + 8 * 256), None),
    "small_delta_mlp": (words(128, (1 + 10 + 1) * 128**2 + 16 * 128 + 2 * 16), None),
    "small_delta_rnn": (words(128, 6 * 128**2 + 16 * 128), 44.6),
    "small_delta_delta": (words(128, 6 * 128**2 + 16 * 128), 44.6),
    "small_recurrent_delta": (words(128, 4 * 128**2 + 8 * 128 + 8 * (3 * 16**2 + 16)), 44.1),
    "small_delta_lstm": (words(128, 16 * 128**2 + 48 * 128), 47.3),
}


@pytest.mark.parametrize("name", COUNTS)
def test_wikitext103(name):
    (cell,) = WIKITEXT103.cells(models=[f"wt103_{name}"])
    assert isinstance(cell.config.model, SequenceModelConfig)
    want, millions = COUNTS[name]
    assert count(cell.config.model, VOCAB_SIZE) == want
    if millions is not None:
        digits = len(str(millions).split(".")[1])
        assert round(want / 1e6, digits) == millions


def test_transformer_xl_differs_by_its_scale_and_its_biases():
    """The published one has two biases of 256 numbers for all layers."""
    (cell,) = WIKITEXT103.cells(models=["wt103_medium_transformer_xl"])
    assert isinstance(cell.config.model, SequenceModelConfig)
    published = words(256, 5 * 256**2) + 2 * 256
    assert round(published / 1e6, 2) == 90.88
    assert count(cell.config.model, VOCAB_SIZE) - published == 16 + 15 * 2 * 256


def test_what_the_rows_of_wikitext103_have_in_common():
    cells = WIKITEXT103.cells()
    assert len(cells) == len(ROWS) == 28
    for cell in cells:
        config = cell.config
        assert config.task.kind == "text" and isinstance(config.model, SequenceModelConfig)
        resolve(config.model)
        small = cell.model.startswith("wt103_small")
        assert config.model.dim == (128 if small else 256)
        assert config.task.context_length == (256 if small else 384)
        assert config.task.carry_state == (config.model.layer == "transformer_xl") or (
            "carried" in cell.model
        )
        if config.task.carry_state:
            assert config.model.positions == "none"
        for read in ("delta_net", "linear_transformer", "delta_rnn", "delta_lstm"):
            if config.model.layer == read:
                assert config.model.layer_options["scale_output"] is True


SPARSE_COUNTS = {
    "wt_s_dense": 47_260_136,
    "wt_s_top_64": 47_260_136,
    "wt_s_sigma_moe": 47_260_248,
    "wt_s_pkm_values_relu": 35_315_544,
    "wt_s_pkm_parameters_relu": 47_128_408,
    "wt_s_star_dense": 237_696_536,
    "wt_s_star_sigma_moe": 237_004_376,
    "wt_b_dense": 262_479_968,
    "wt_b_sigma_moe": 262_461_284,
    "wt_b_pkm_values_softmax": 191_092_580,
    "wt_b_pkm_parameters_relu_init": 263_438_180,
    "e8_dense": 41_234_721,
    "e8_sigma_moe": 41_240_805,
    "e8_pkm_parameters_relu": 41_117_925,
}


@pytest.mark.parametrize("name", SPARSE_COUNTS)
def test_sparse_language_models(name):
    """In every layer of the published code there is one number more, which nothing reads."""
    size = MODELS[name][0]
    task = "enwik8" if name.startswith("e8") else "wikitext103_pieces"
    (cell,) = SPARSE.cells(tasks=[task], models=[name])
    assert isinstance(cell.config.model, SequenceModelConfig)
    assert count(cell.config.model, size.vocab_size) + size.num_layers == SPARSE_COUNTS[name]


def test_variants_of_a_table_have_as_many_parameters():
    """All of enwik8 but PKM with as many values: within 0.5 %."""
    size = SIZES["e8"]
    for cell in SPARSE.cells(tasks=["enwik8"]):
        assert isinstance(cell.config.model, SequenceModelConfig)
        got = count(cell.config.model, size.vocab_size)
        if "pkm_values" not in cell.model:
            assert got == pytest.approx(41_240_805, rel=5e-3), cell.model


def test_every_published_result_has_a_model():
    names = [
        f"{size}_{name}"
        for name, results in PUBLISHED.items()
        for size, result in zip(SIZES, results, strict=True)
        if result is not None
    ]
    assert sorted(names) == sorted(MODELS)


def test_every_sparse_language_model_can_be_built():
    cells = SPARSE.cells()
    assert len(cells) == 118
    of_task = partial(SPARSE.cells, models=["wt_s_sigma_moe"])
    for cell in cells:
        assert isinstance(cell.config.model, SequenceModelConfig)
        resolve(cell.config.model)
    on_c4, on_wikitext = of_task(tasks=["c4"])[0], of_task(tasks=["wikitext103_pieces"])[0]
    assert on_c4.config.model.feed_forward_options["balance_weight"] == 0
    assert on_wikitext.config.model.feed_forward_options["balance_weight"] == 1e-3
    (switch,) = SPARSE.cells(tasks=["wikitext103_pieces"], models=["wt_b_switch"])
    options = switch.config.model.feed_forward_options
    assert (options["num_experts"], options["expert_dim"], options["top_k"]) == (8, 512, 1)
    assert (options["router"], options["hidden_dropout"]) == ("switch", 0.2)


@pytest.mark.parametrize("study", [WIKITEXT103, SPARSE])
def test_short_forms_are_the_same_rows_for_a_laptop(study):
    """Fewer than ten million parameters, no download."""
    cells = study.cells(quick=True)
    assert len(cells) == (28 if study is WIKITEXT103 else 30)
    whole = {(cell.task, cell.model): cell.config for cell in study.cells()}
    for cell in cells:
        config, published = cell.config, whole[cell.task, cell.model]
        assert config.task.kind == "text" and config.task.text == "python_stdlib"
        assert isinstance(config.model, SequenceModelConfig)
        assert isinstance(published.model, SequenceModelConfig)
        changed = {"num_layers", "adaptive_cutoffs", "dropout", "embedding_dropout"}
        assert config.model.model_dump(exclude=changed) == published.model.model_dump(
            exclude=changed
        )
        assert count(config.model, 256) < 10e6
