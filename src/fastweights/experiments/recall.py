"""Who finds again what it has stored? Multi-query associative recall (Arora et al., 2023): the
delta rule and the sum rule, each with two feature maps, and softmax attention.

`recall_V` has V tokens, the published 8,192 or, to be learned sooner, 1,024; the filler between the
queries is token 0, as published, or any token in `recall_V_random`; in `recall_V_rewritten`, every
key comes twice with two values, of which the second counts. All but softmax attention have
memories of the same size, 4,096 numbers in each of two layers: one head of 64 x 64 or, behind
DPFP-1, two of 64 x 32. Every layer has a short convolution, as it cannot tell otherwise which value
stands behind which key. Beside the published lengths of 64 to 256 tokens, some training sequences
are shorter: with so few pairs, the models soon find out what is asked. The sizes are ours; eight
tokens have a pair where Figure 2 of the paper has one for sixteen.

Normalisation and learning rate are each model's best by the validation accuracy of one seed of
`recall_8192`: results/recall/tuning.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastweights.experiments.experiment import Experiment, Quick
from fastweights.train.config import RunConfig, merge, parse_config

TASKS: dict[str, dict[str, Any]] = {
    "recall_1024": {"vocab_size": 1024, "random_filler": False},
    "recall_8192": {"vocab_size": 8192, "random_filler": False},
    "recall_8192_random": {"vocab_size": 8192, "random_filler": True},
    "recall_8192_rewritten": {"vocab_size": 8192, "random_filler": False, "writes_per_key": 2},
}

_MODEL: dict[str, Any] = {
    "dim": 64,
    "num_layers": 2,
    "ff_dim": 128,
    "block": "pre_norm",
    "convolution_size": 4,
    "embedding": "tied",
}
_ELU = {"num_heads": 1, "feature_map": "elu_plus_one"}
_DPFP = {"num_heads": 2, "feature_map": "dpfp", "dpfp_nu": 1}
MODELS: dict[str, dict[str, Any]] = {
    "delta_net_conv": {
        "layer": "delta_net",
        "layer_options": {**_ELU, "normalization": "l2"},
        **_MODEL,
    },
    "delta_net_dpfp_conv": {
        "layer": "delta_net",
        "layer_options": {**_DPFP, "normalization": "l2"},
        **_MODEL,
    },
    "linear_transformer_conv": {
        "layer": "linear_transformer",
        "layer_options": {**_ELU, "attention_normalizer": True},
        **_MODEL,
    },
    "linear_transformer_dpfp_conv": {
        "layer": "linear_transformer",
        "layer_options": {**_DPFP, "normalization": "l2", "attention_normalizer": True},
        **_MODEL,
    },
    "softmax_attention_conv": {
        "layer": "softmax_attention",
        "layer_options": {"num_heads": 1},
        **_MODEL,
    },
}

DEFAULTS: dict[str, Any] = {
    "task": {"kind": "recall", "lengths": [16, 32, 64, 128, 256]},
    "training": {
        "lr": 1e-2,
        "lr_decay": "cosine",
        "warmup_steps": 200,
        "batch_size": 64,
        "max_steps": 8000,
        "evaluate_every": 1000,
        "patience": None,
    },
}
# Laid over every cell of a model.
MODEL_SETTINGS: dict[str, dict[str, Any]] = {
    "softmax_attention_conv": {"training": {"lr": 5e-3}},
}


def config(task: str, model: str, seed: int, overrides: Mapping[str, Any]) -> RunConfig:
    """One run of the grid."""
    values = {"task": TASKS[task], "model": MODELS[model], "seed": seed}
    values = merge(merge(DEFAULTS, values), MODEL_SETTINGS.get(model, {}))
    return parse_config(merge(values, overrides)).resolved()


RECALL = Experiment(
    "Multi-query associative recall, accuracy by length: delta rule, sum rule, softmax attention "
    "(Arora et al., 2023)",
    config,
    tuple(TASKS),
    tuple(MODELS),
    quick=Quick(("recall_1024",), tuple(MODELS), {"training": {"max_steps": 1000}}),
)
