"""How much does a memory hold, and how does it forget? The two synthetic experiments of Schlag,
Irie, Schmidhuber (2021), section 6.1.

`unique_S` is setting 1 with S keys (Figure 2: capacity), `repeated_S` setting 2 (Figures 3 to 5:
update rules).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastweights.experiments.experiment import Experiment, Quick
from fastweights.train.config import RunConfig, merge, parse_config

UNIQUE, REPEATED = "unique", "repeated"
QUICK_SIZES = (20, 60, 100, 140, 200)
TASKS = {
    **{f"{UNIQUE}_{S}": S for S in range(20, 601, 20)},
    **{f"{REPEATED}_{S}": S for S in range(20, 201, 20)},
}

MODELS: dict[str, dict[str, Any]] = {
    "softmax": {"rule": "softmax"},
    "sum_elu_plus_one": {"rule": "sum", "feature_map": "elu_plus_one"},
    **{f"sum_dpfp_{nu}": {"rule": "sum", "feature_map": "dpfp", "dpfp_nu": nu} for nu in (1, 2, 3)},
    "delta_elu_plus_one": {"rule": "delta", "feature_map": "elu_plus_one"},
    **{
        f"delta_dpfp_{nu}": {"rule": "delta", "feature_map": "dpfp", "dpfp_nu": nu} for nu in (1, 2)
    },
    "clamped_delta_dpfp_1": {"rule": "clamped_delta", "feature_map": "dpfp"},
    "clamped_delta_tanh": {"rule": "clamped_delta", "feature_map": "tanh"},
    # As published, without the temperature with which the features estimate softmax attention.
    **{
        f"{rule}_favor_{m}": {
            "rule": rule,
            "feature_map": "favor",
            "num_random_features": m,
            "favor_temperature": 1.0,
        }
        for rule, sizes in (("sum", (64, 128, 512)), ("delta", (64, 128)))
        for m in sizes
    },
    # With it: not published.
    "sum_favor_128_scaled": {"rule": "sum", "feature_map": "favor", "num_random_features": 128},
}


# Laid over every cell of a model.
MODEL_SETTINGS: dict[str, dict[str, Any]] = {
    "clamped_delta_tanh": {"training": {"lr": 1e-4, "batch_size": 128}},
}


def config(task: str, model: str, seed: int, overrides: Mapping[str, Any]) -> RunConfig:
    """One run of the grid, with the published evaluation unless the overrides say strict."""
    values = {
        "task": {
            "kind": "retrieval",
            "num_keys": TASKS[task],
            "replacement": task.startswith(REPEATED),
        },
        "model": {"kind": "associative_memory", **MODELS[model]},
        "protocol": "published",
        "seed": seed,
    }
    values = merge(values, MODEL_SETTINGS.get(model, {}))
    return parse_config(merge(values, overrides)).resolved()


def belongs(task: str, model: str) -> bool:
    """The published grid: setting 1 has no delta rule, setting 2 of the others the sum with
    DPFP-1."""
    if task.startswith(UNIQUE):
        return not model.startswith(("delta", "clamped"))
    return model.startswith(("delta", "clamped")) or model == "sum_dpfp_1"


RETRIEVAL = Experiment(
    "Associative retrieval: how much a memory holds, and how it forgets (Schlag et al., 2021)",
    config,
    tuple(TASKS),
    tuple(MODELS),
    seeds=(1,),
    belongs=belongs,
    quick=Quick(
        tuple(f"{kind}_{S}" for kind in (UNIQUE, REPEATED) for S in QUICK_SIZES),
        tuple(name for name in MODELS if "favor" not in name and "clamped" not in name),
        {"training": {"max_steps": 1200}},
    ),
)
