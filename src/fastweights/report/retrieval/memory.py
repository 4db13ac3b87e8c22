"""Which memory a retrieval run has: its name, its features, and whether it is a published one."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from fastweights.experiments.retrieval import MODELS
from fastweights.report.names import Name, as_it_is
from fastweights.train.config import AssociativeMemoryConfig

MEMORY_NAMES: dict[str, str] = {
    "softmax": "softmax",
    "sum_elu_plus_one": "sum, ELU+1",
    "sum_dpfp_1": "sum, DPFP-1",
    "sum_dpfp_2": "sum, DPFP-2",
    "sum_dpfp_3": "sum, DPFP-3",
    "sum_favor_64": "sum, FAVOR+ 64",
    "sum_favor_128": "sum, FAVOR+ 128",
    "sum_favor_512": "sum, FAVOR+ 512",
    "sum_favor_128_scaled": "sum, FAVOR+ 128 scaled",
    "delta_elu_plus_one": "delta, ELU+1",
    "delta_dpfp_1": "delta, DPFP-1",
    "delta_dpfp_2": "delta, DPFP-2",
    "delta_favor_64": "delta, FAVOR+ 64",
    "delta_favor_128": "delta, FAVOR+ 128",
    "clamped_delta_dpfp_1": "clamped delta, DPFP-1",
    "clamped_delta_tanh": "clamped delta, tanh",
}
"""In the order of the tables. Clamped delta: the update rule of Schlag et al. (ICLR 2021)."""


def memory_name(key: str) -> Name:
    """The name of a memory; a key that is not known is shown as it is."""
    return as_it_is(MEMORY_NAMES.get(key, key))


def memory_key(settings: Mapping[str, Any]) -> str:
    """Rule, feature map and its argument, as `fastweights.experiments.retrieval` names them, from
    the model section of a configuration; `scaled`: FAVOR+ with a temperature."""
    rule, feature_map = str(settings.get("rule")), str(settings.get("feature_map"))
    if rule == "softmax":
        return rule
    key = f"{rule}_{feature_map}"
    if feature_map == "dpfp":
        return f"{key}_{settings.get('dpfp_nu')}"
    if feature_map == "favor":
        scaled = "" if settings.get("favor_temperature") == 1 else "_scaled"
        return f"{key}_{settings.get('num_random_features')}{scaled}"
    return key


def standard_key(settings: Mapping[str, Any]) -> str | None:
    """`memory_key`, but None where some setting is not that of the memory of this name."""
    key = memory_key(settings)
    if key not in MODELS:
        return None
    try:
        found = AssociativeMemoryConfig.model_validate(dict(settings)).resolved()
    except ValidationError:
        return None
    return key if found == AssociativeMemoryConfig(**MODELS[key]).resolved() else None


def num_features(settings: Mapping[str, Any]) -> int | None:
    """d_dot, the width of a key behind its feature map; None where it is not finite or not known.

    ELU+1: d; DPFP: 2 d nu; FAVOR+: 2 m. Schlag et al. (2021), section 5."""
    if settings.get("rule") == "softmax":
        return None
    width, nu, m = (settings.get(k) for k in ("head_dim", "dpfp_nu", "num_random_features"))
    match settings.get("feature_map"):
        case "elu_plus_one" if isinstance(width, int):
            return width
        case "dpfp" if isinstance(width, int) and isinstance(nu, int):
            return 2 * width * nu
        case "favor" if isinstance(m, int):
            return 2 * m
    return None
