"""Who finds again what it has stored? Multi-query associative recall (Arora et al., 2023), with
DeltaNet, the linear Transformer and softmax attention.

`recall_V` has V tokens, the published 8,192 or, to be learned sooner, 1,024; the filler between the
queries is token 0, as published, or any token in `recall_V_random`. DeltaNet and the linear
Transformer have the same features and memories of the same size; softmax attention keeps
everything. Every layer has a short convolution, as it cannot tell otherwise which value stands
behind which key. Beside the published lengths of 64 to 256 tokens, some training sequences are
shorter: with so few pairs, the models soon find out what is asked. The sizes are ours; eight tokens
have a pair where Figure 2 of the paper has one for sixteen.
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
}

_FEATURES = {"feature_map": "silu", "normalization": "l2"}
_MODEL: dict[str, Any] = {
    "dim": 64,
    "num_layers": 2,
    "ff_dim": 128,
    "block": "pre_norm",
    "convolution_size": 4,
    "embedding": "tied",
}
MODELS: dict[str, dict[str, Any]] = {
    "delta_net_conv": {
        "layer": "delta_net",
        "layer_options": {"num_heads": 1, **_FEATURES},
        **_MODEL,
    },
    "linear_transformer_conv": {
        "layer": "linear_transformer",
        "layer_options": {"num_heads": 1, **_FEATURES},
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
    "training": {"batch_size": 128, "max_steps": 2000, "evaluate_every": 250, "patience": None},
}


def config(task: str, model: str, seed: int, overrides: Mapping[str, Any]) -> RunConfig:
    """One run of the grid."""
    values = {"task": TASKS[task], "model": MODELS[model], "seed": seed}
    return parse_config(merge(merge(DEFAULTS, values), overrides)).resolved()


RECALL = Experiment(
    "Multi-query associative recall, accuracy by length: DeltaNet, linear Transformer, softmax "
    "attention (Arora et al., 2023)",
    config,
    tuple(TASKS),
    tuple(MODELS),
    quick=Quick(("recall_1024",), tuple(MODELS), {"training": {"max_steps": 1000}}),
)
