"""A run of seconds: a regular language with short strings, a narrow model, one thread."""

from collections.abc import Callable
from typing import Any

import pytest

from fastweights.train.config import RunConfig, merge, parse_config

TINY: dict[str, Any] = {
    "task": {
        "kind": "regex",
        "pattern": "(b|ab*a)*",
        "train_window": [1, 10],
        "test_window": [11, 14],
        "num_train": 40,
        "num_validation": 12,
        "num_bin0": 12,
        "num_bin1": 12,
    },
    "model": {"layer": "delta_net", "dim": 8, "ff_dim": 8},
    "training": {
        "batch_size": 8,
        "max_steps": 24,
        "evaluate_every": 6,
        "checkpoint_every": 5,
        "lr": 0.001,
    },
    "device": "cpu",
    "num_threads": 1,
    "horizon_lengths": [10, 20],
    "horizon_sequences": 4,
}


@pytest.fixture
def make_config() -> Callable[..., RunConfig]:
    """The tiny run with other values laid over it: make_config(training={"lr": 1})."""
    return lambda **overrides: parse_config(merge(TINY, overrides))
