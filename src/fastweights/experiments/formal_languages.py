"""Which layer generalises to longer strings? The grid of Irie et al. (2023): eight languages, eight
models.

The sizes are ours: the paper's best size and learning rate per cell could not be recovered.
"""

from collections.abc import Mapping
from typing import Any

from fastweights.experiments.experiment import Experiment
from fastweights.tasks.formal.menu import LANGUAGES as LANGUAGE_MENU
from fastweights.train.config import RunConfig, merge, parse_config

LANGUAGES = tuple(LANGUAGE_MENU)

MODELS: dict[str, dict[str, Any]] = {
    "lstm": {"layer": "lstm", "dim": 64},
    "e_lstm": {"layer": "e_lstm", "dim": 64},
    "transformer": {"layer": "softmax_attention"},
    "linear_transformer": {"layer": "linear_transformer"},
    "delta_net": {"layer": "delta_net"},
    "delta_net_0_2": {
        "layer": "delta_net",
        "layer_options": {
            "feature_map": "silu",
            "normalization": "l2",
            "max_write_strength": 2.0,
        },
    },
    "recurrent_delta_net": {"layer": "recurrent_delta_net"},
    "srwm": {"layer": "srwm"},
}

# Laid under every cell. What is not here is the default of `TrainingConfig`: Adam at 3e-3, batches
# of 64, a constant learning rate.
DEFAULTS: dict[str, Any] = {"training": {"max_steps": 4000, "patience": 20}}

# Laid over it, by language, where there are few training strings. All strings of (aa)* are prefixes
# of one another, and so are those of (abab)*: small batches of these long strings teach as much as
# large ones, in less time.
LANGUAGE_SETTINGS: dict[str, dict[str, Any]] = {
    "aa_star": {"training": {"batch_size": 8, "max_steps": 2000}},
    "abab_star": {"training": {"batch_size": 8, "max_steps": 2000}},
    "counter_2": {"training": {"max_steps": 2000}},
    "counter_3": {"training": {"max_steps": 2000}},
}

# Laid over both, by (language, model): what tuning found. See results/formal-languages/tuning.md.
TUNED: dict[tuple[str, str], dict[str, Any]] = {
    ("aa_star", "e_lstm"): {"training": {"lr": 1e-3, "max_steps": 6000, "patience": 40}},
    ("abab_star", "e_lstm"): {"training": {"lr": 1e-3, "max_steps": 6000, "patience": 40}},
    ("aa_star", "srwm"): {"training": {"lr": 1e-2}},
    ("abab_star", "srwm"): {"training": {"lr": 2e-2}},
    ("shuffle_2", "lstm"): {"training": {"lr": 2e-2}},
    ("reset_dyck_1", "lstm"): {"training": {"stop_loss": 0.0, "max_steps": 6000}},
}


def config(language: str, model: str, seed: int, overrides: Mapping[str, Any]) -> RunConfig:
    """One run of the grid. The `max_steps` above are those of protocol strict."""
    values = merge(DEFAULTS, {"model": MODELS[model], "seed": seed})
    values = merge(values, {"task": {"kind": "formal_language", "language": language}})
    values = merge(values, LANGUAGE_SETTINGS.get(language, {}))
    values = merge(values, TUNED.get((language, model), {}))
    if overrides.get("protocol") == "published":  # its 300 epochs end the run
        values = merge(values, {"training": {"max_steps": None}})
    return parse_config(merge(values, overrides)).resolved()


def _short_config(language: str, model: str, seed: int, overrides: Mapping[str, Any]) -> RunConfig:
    return config(language, model, seed, merge({"training": {"max_steps": 1000}}, overrides))


FORMAL_LANGUAGES = Experiment(
    "Eight formal languages, eight models, three seeds: which layer generalises to longer strings",
    config,
    LANGUAGES,
    tuple(MODELS),
)
DEMO = Experiment(
    "Parity with four of the models, three seeds: minutes on two CPU cores",
    _short_config,
    ("parity",),
    ("delta_net", "delta_net_0_2", "recurrent_delta_net", "srwm"),
)
