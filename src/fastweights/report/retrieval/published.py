"""The published losses of both settings: the end points of the authors' 320 runs.

Schlag, Irie, Schmidhuber (2021), Figures 2 to 5, from the logs beside the official code.
"""

import csv
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from fastweights.report.names import in_order
from fastweights.report.retrieval.memory import MEMORY_NAMES

TANH = "clamped_delta_tanh"
CUT_SHORT = (2, 100, "delta_dpfp_2")
"""This run's log ends after 300 steps, long before the run would have stopped."""


class PublishedLoss(NamedTuple):
    """`loss`: the last evaluation, NaN where the run diverged; `best`: the lowest one."""

    setting: int
    num_keys: int
    model: str
    steps: int
    loss: float
    best: float

    @property
    def key(self) -> tuple[int, int, str]:
        """Setting, number of keys, memory."""
        return self.setting, self.num_keys, self.model

    @property
    def counts(self) -> bool:
        """Whether the overall agreement is about it: FAVOR+, whose loss is decided by rounding, and
        the tanh baseline, whose loss is that of a layer norm, are left out."""
        return self.model != TANH and "favor" not in self.model


@cache
def published_losses() -> dict[tuple[int, int, str], PublishedLoss]:
    """All of them by setting, number of keys and memory."""
    text = files(__package__).joinpath("published.csv").read_text(encoding="utf-8")
    found = [
        PublishedLoss(
            int(row["setting"]),
            int(row["num_keys"]),
            "_".join(filter(None, (row["rule"], row["feature_map"], row["argument"]))),
            int(row["steps"]),
            float(row["loss"]),
            float(row["best"]),
        )
        for row in csv.DictReader(text.splitlines())
    ]
    return {loss.key: loss for loss in found}


def published_models(setting: int) -> list[str]:
    """The memories of a setting, in the order of the tables."""
    found = (loss.model for loss in published_losses().values() if loss.setting == setting)
    return in_order(found, MEMORY_NAMES)


def published_curve(setting: int, model: str) -> list[PublishedLoss]:
    """One memory's losses by number of keys."""
    return sorted(
        loss
        for loss in published_losses().values()
        if (loss.setting, loss.model) == (setting, model)
    )
