"""Which sparse feed-forward layer is worth its parameters? Those of Csordas, Irie, Schmidhuber
(2023) in small language models of bytes, at equal numbers of parameters.

The models have the blocks of the paper (Transformer-XL's attention, a norm before every layer and
before the output), two of them, and as many parameters as the dense one within 0.1 %. The mixtures
use a quarter of their experts: 16 of 64 hidden units, of which a token takes 4, or, for Switch, 4
of 257, of which it takes one. `top_k` keeps an eighth of its units. `pkm_dense` is what the
published runs of PKM computed, `pkm` looks up 4 x 32 of its 43 x 43 values.

All start as published; the values of PKM with the variance of the unified view.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastweights.experiments.experiment import Experiment, Quick
from fastweights.train.config import RunConfig, merge, parse_config

TASKS = ("python_stdlib",)

_EXPERTS = {"num_experts": 16, "expert_dim": 64, "top_k": 4}
MODELS: dict[str, dict[str, Any]] = {
    "dense": {
        "feed_forward": "dense",
        "ff_dim": 1027,
        "feed_forward_options": {"initialization": "scaled"},
    },
    "top_k": {
        "feed_forward": "top_k",
        "ff_dim": 1027,
        "feed_forward_options": {"top_k": 128, "initialization": "scaled"},
    },
    "pkm": {
        "feed_forward": "product_key_memory",
        "feed_forward_options": {
            "num_subkeys": 43,
            "num_heads": 4,
            "top_k": 32,
            "key_dim": 42,
            "initialization": "num_values",
        },
    },
    "pkm_dense": {
        "feed_forward": "dense_product_key_memory",
        "feed_forward_options": {
            "num_subkeys": 43,
            "num_heads": 5,
            "initialization": "num_values",
        },
    },
    "switch": {
        "feed_forward": "switch",
        "feed_forward_options": {"num_experts": 4, "expert_dim": 257},
    },
    "s_base": {"feed_forward": "s_base", "feed_forward_options": _EXPERTS},
    "sigma_moe": {"feed_forward": "sigma_moe", "feed_forward_options": _EXPERTS},
}

DEFAULTS: dict[str, Any] = {
    "model": {
        "layer": "transformer_xl",
        "layer_options": {"num_heads": 4},
        "dim": 160,
        "num_layers": 2,
        "block": "pre_norm",
        "final_norm": True,
    },
    "training": {
        "lr": 1e-3,
        "lr_decay": "cosine",
        "warmup_steps": 100,
        "batch_size": 8,
        "max_steps": 1500,
        "evaluate_every": 250,
    },
}


def config(task: str, model: str, seed: int, overrides: Mapping[str, Any]) -> RunConfig:
    """One run of the grid."""
    values = merge(
        DEFAULTS,
        {
            "task": {"kind": "text", "text": task, "context_length": 128},
            "model": MODELS[model],
            "seed": seed,
        },
    )
    return parse_config(merge(values, overrides)).resolved()


SPARSE_FEED_FORWARD = Experiment(
    "Sparse feed-forward layers at equal parameters, in language models of bytes (Csordas et al., "
    "2023)",
    config,
    TASKS,
    tuple(MODELS),
    quick=Quick(TASKS, ("dense", "sigma_moe"), {"training": {"max_steps": 200}}),
)
