"""Which layer generalises to longer strings? The grid of Irie et al. (2023): eight languages, eight
models.

The sizes are ours: the paper's best size and learning rate per cell could not be recovered.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

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
    ("aa_star", "srwm"): {"training": {"lr": 1e-2}},
    ("abab_star", "srwm"): {"training": {"lr": 2e-2}},
    ("shuffle_2", "lstm"): {"training": {"lr": 2e-2}},
    ("reset_dyck_1", "lstm"): {"training": {"stop_nats": 0.0, "max_steps": 6000}},
}


class Cell(NamedTuple):
    language: str
    model: str
    seed: int
    config: RunConfig


def formal_languages(
    languages: Sequence[str] = LANGUAGES,
    models: Sequence[str] = tuple(MODELS),
    seeds: Sequence[int] = (1, 2, 3),
    overrides: dict[str, Any] | None = None,
) -> list[Cell]:
    """Eight formal languages, eight models, three seeds: which layer generalises to longer strings.

    `overrides` is laid over every cell's configuration. The `max_steps` above are those of protocol
    strict.
    """
    published = (overrides or {}).get("protocol") == "published"  # its 300 epochs end the run
    limits = {"training": {"max_steps": None}} if published else {}
    cells = []
    for seed in seeds:
        for language in languages:
            for model in models:
                values = merge(DEFAULTS, {"model": MODELS[model], "seed": seed})
                values = merge(values, {"task": {"kind": "formal_language", "language": language}})
                values = merge(values, LANGUAGE_SETTINGS.get(language, {}))
                values = merge(values, TUNED.get((language, model), {}))
                values = merge(values, limits)
                config = parse_config(merge(values, overrides or {})).resolved()
                cells.append(Cell(language, model, seed, config))
    return cells


def demo(
    languages: Sequence[str] = ("parity",),
    models: Sequence[str] = ("delta_net", "delta_net_0_2", "recurrent_delta_net", "srwm"),
    seeds: Sequence[int] = (1, 2, 3),
    overrides: dict[str, Any] | None = None,
) -> list[Cell]:
    """Parity with four of the models, three seeds: minutes on two CPU cores."""
    short = merge({"training": {"max_steps": 1000}}, overrides or {})
    return formal_languages(languages, models, seeds, short)
