"""Word-level language models of WikiText-103 at their published sizes: Tables 2 to 5 of Schlag,
Irie, Schmidhuber (2021), and the models of Irie, Schlag, Csordas, Schmidhuber (2021).

The text is a folder made with a word vocabulary, `data/wikitext-103` unless `--text` says
otherwise. One run takes days on a GPU. The short form has the same rows with two layers, on the
bytes of Python's sources, for minutes a run on two CPU cores; study `language_models` compares
these layers at equal parameters.

Configurations are those of the official code, where it differs from the paper: what a memory
returns is multiplied by head_dim^-0.5 (not in Delta-Delta, Recurrent Delta and the Delta MLP), the
models of the delta rule have no attention normaliser, those of the sum rule no sum normalisation.
What is different here:

- positions are counted from the beginning of a segment, not from its end;
- FAVOR+ divides its inputs by head_dim^0.25, draws its directions once (the code at every step of
  training) and adds no 1e-4 to its features;
- Transformer-XL has the learned scale, and the biases in every layer, of Csordas, Irie, Schmidhuber
  (2023): 7,696 parameters more than the published one;
- the delta rule with attention normaliser removes what it reads, see `NormalizedDeltaNet`;
- the Delta MLP is without what the code projects to and never reads, and its depth is not known.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from fastweights.experiments.experiment import Experiment, Quick
from fastweights.train.config import RunConfig, merge, parse_config

TASKS = ("wikitext103",)
VOCAB_SIZE = 267_735


class Published(NamedTuple):
    """Perplexity on the validation and the test set; None: not published, or above all bounds."""

    source: str
    validation: float | None
    test: float | None


class Row(NamedTuple):
    """A published model: what it has beside its size, and the results."""

    settings: Mapping[str, Any]
    published: Published


SIZES: dict[str, dict[str, Any]] = {
    "small": {
        "task": {"context_length": 256},
        "model": {"dim": 128},
        "training": {"batch_size": 96, "max_steps": 500_000},
    },
    "medium": {
        "task": {"context_length": 384},
        "model": {"dim": 256},
        "training": {"batch_size": 56, "max_steps": 400_000},
    },
}

_CARRIED = {"task": {"carry_state": True}, "model": {"positions": "none"}}


def _layer(name: str, **options: Any) -> dict[str, Any]:
    return {"model": {"layer": name, "layer_options": options}}


def _sum(**options: Any) -> dict[str, Any]:
    return _layer("linear_transformer", attention_normalizer=True, scale_output=True, **options)


def _delta(**options: Any) -> dict[str, Any]:
    return _layer("delta_net", scale_output=True, **options)


def _favor(directions: int) -> dict[str, Any]:
    return {"feature_map": "favor", "num_random_features": directions}


def _sequel(name: str, **options: Any) -> dict[str, Any]:
    return merge(_layer(name, **options), {"model": {"block": "normed_input"}})


_DPFP = {"feature_map": "dpfp", "dpfp_nu": 1}
_TRANSFORMER = _layer("softmax_attention", bias=False)
_NORMALIZED_DELTA = _layer("normalized_delta_net", scale_output=True)
_NO_POSITIONS = {"model": {"positions": "none"}}
_TRANSFORMER_XL = {
    **_layer("transformer_xl", memory_length=384),
    "training": {"max_steps": 200_000, "warmup_steps": 1000},
}

ROWS: dict[str, Row] = {
    "small_transformer": Row(_TRANSFORMER, Published("Table 2", 33.0, 34.1)),
    "small_linear": Row(_sum(), Published("Table 2", 37.1, 38.3)),
    "small_delta": Row(_delta(), Published("Table 2", 34.1, 35.5)),
    "small_performer_8": Row(_sum(**_favor(8)), Published("Table 2", 39.0, 39.6)),
    "small_performer_8_delta": Row(_delta(**_favor(8)), Published("Table 2", 36.1, 37.2)),
    "medium_transformer": Row(_TRANSFORMER, Published("Table 2", 27.9, 29.6)),
    "medium_linear": Row(_sum(), Published("Table 2", 31.1, 33.0)),
    "medium_delta": Row(_delta(), Published("Tables 2, 3", 29.7, 31.5)),
    "medium_performer_16": Row(_sum(**_favor(16)), Published("Table 2", 32.2, 33.8)),
    "medium_performer_16_delta": Row(_delta(**_favor(16)), Published("Table 2", 30.0, 31.8)),
    "medium_delta_normalized": Row(_NORMALIZED_DELTA, Published("Table 3", 30.4, 32.1)),
    "medium_delta_normalized_no_positions": Row(
        merge(_NORMALIZED_DELTA, _NO_POSITIONS), Published("Table 3", 29.2, 31.2)
    ),
    "medium_delta_no_positions": Row(
        merge(_delta(), _NO_POSITIONS), Published("Table 3", 28.1, 31.1)
    ),
    "medium_linear_carried": Row(merge(_sum(), _CARRIED), Published("Table 4", None, None)),
    "medium_linear_carried_no_normalizer": Row(
        merge(_layer("linear_transformer", scale_output=True), _CARRIED),
        Published("Table 4", None, None),
    ),
    "medium_delta_carried": Row(merge(_delta(), _CARRIED), Published("Table 4", 27.8, 29.4)),
    "medium_transformer_xl": Row(
        merge(_TRANSFORMER_XL, _CARRIED), Published("Table 4, memory 384", 24.6, 25.5)
    ),
    "small_performer_16": Row(_sum(**_favor(16)), Published("Table 5", 38.0, 38.8)),
    "small_performer_16_delta": Row(_delta(**_favor(16)), Published("Table 5", 36.0, 37.0)),
    "small_dpfp": Row(_sum(**_DPFP), Published("Table 5", 37.7, 38.8)),
    "small_dpfp_delta": Row(_delta(**_DPFP), Published("Table 5", 33.9, 35.0)),
    "small_delta_mlp": Row(_sequel("delta_mlp"), Published("sequel", None, 36.8)),
    "small_delta_delta": Row(_sequel("delta_delta_net"), Published("sequel", None, None)),
    "small_delta_rnn": Row(
        _sequel("delta_rnn", scale_output=True), Published("sequel", None, 35.0)
    ),
    "small_delta_lstm": Row(
        _sequel("delta_lstm", scale_output=True), Published("sequel", None, 33.8)
    ),
    "small_recurrent_delta": Row(_sequel("recurrent_delta_net"), Published("sequel", None, 35.2)),
    "small_delta_rnn_carried": Row(
        merge(_layer("delta_rnn", scale_output=True), _CARRIED),
        Published("sequel, full context", 31.8, 32.8),
    ),
    "small_recurrent_delta_carried": Row(
        merge(_layer("recurrent_delta_net"), _CARRIED),
        Published("sequel, full context", None, 33.6),
    ),
}
"""By name. Table 4 has "> 260" for the linear Transformer, "> 1600" without attention normaliser,
and evaluates the one Transformer-XL with less memory, too."""

MODELS = tuple(f"wt103_{name}" for name in ROWS)

DEFAULTS: dict[str, Any] = {
    "task": {"kind": "text", "text": "data/wikitext-103"},
    "model": {
        "layer_options": {"num_heads": 8},
        "num_layers": 16,
        "ff_dim": 2048,
        "block": "post_norm",
        "final_norm": False,
        "dropout": 0.1,
        "embedding_dropout": 0.1,
        "embedding": "tied",
        "scale_embedding": True,
        "positions": "sinusoidal",
        "adaptive_cutoffs": [20_000, 40_000, 200_000],
        "initialization": "normal",
    },
    "training": {
        "lr": 2.5e-4,
        "lr_decay": "cosine",
        "warmup_steps": 2000,
        "clip_norm": 0.25,
        "evaluate_every": 4000,
        "checkpoint_every": 4000,
    },
}

QUICK: dict[str, Any] = {
    "task": {"text": "python_stdlib", "held_out_tokens": 2**18},
    "model": {"num_layers": 2, "adaptive_cutoffs": None, "dropout": 0.0, "embedding_dropout": 0.0},
    "training": {
        "lr": 1e-3,
        "warmup_steps": 100,
        "batch_size": 8,
        "max_steps": 300,
        "evaluate_every": 300,
    },
}
"""What a short form changes, here and in study `sparse_language_models`."""


def config(task: str, model: str, seed: int, overrides: Mapping[str, Any]) -> RunConfig:
    """One run of the grid."""
    name = model.removeprefix("wt103_")
    values = merge(merge(DEFAULTS, SIZES[name.split("_")[0]]), ROWS[name].settings)
    return parse_config(merge({**values, "seed": seed}, overrides)).resolved()


WIKITEXT103 = Experiment(
    "Word-level language models of WikiText-103 at the published sizes: linear Transformers, delta "
    "networks, Transformer-XL (Schlag et al., 2021; Irie et al., 2021)",
    config,
    TASKS,
    MODELS,
    seeds=(1,),
    quick=Quick(TASKS, MODELS, QUICK),
)
