"""The runs of a retrieval study, arranged as points: setting x number of keys x memory."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastweights.experiments.retrieval import REPEATED, UNIQUE
from fastweights.report.cells import Spread
from fastweights.report.names import in_order
from fastweights.report.retrieval.memory import MEMORY_NAMES, num_features, standard_key
from fastweights.report.retrieval.published import PublishedLoss, published_losses
from fastweights.report.runs import Run

_SETTINGS = {UNIQUE: 1, REPEATED: 2}
_NON_FINITE = re.compile(r"the loss is -?(nan|inf)\b|\bnot finite\b")
"""How `fastweights.train` says that a run has diverged."""


@dataclass(frozen=True)
class Point:
    """All runs of one memory with one number of keys in one setting, by seed."""

    setting: int
    num_keys: int
    model: str
    runs: tuple[Run, ...]

    @property
    def done(self) -> tuple[Run, ...]:
        """The runs that ended with a finite loss."""
        return tuple(run for run in self.runs if _is_finite(final_loss(run)))

    @property
    def diverged(self) -> tuple[Run, ...]:
        """The runs that ended without one."""
        return tuple(run for run in self.runs if math.isnan(final_loss(run) or 0.0))

    @property
    def losses(self) -> list[float]:
        """The finite ones."""
        return [loss for run in self.done if (loss := final_loss(run)) is not None]

    @property
    def spread(self) -> Spread | None:
        return Spread.of(self.losses)

    @property
    def loss(self) -> float | None:
        """The mean over seeds; NaN where all that ended diverged, None where none has ended."""
        if self.losses:
            return math.fsum(self.losses) / len(self.losses)
        return math.nan if self.diverged else None

    @property
    def cpu_s(self) -> float | None:
        """CPU time of one run: the mean over those that measured it, None where none did."""
        times = [run.result.cpu_s for run in self.runs if run.result]
        known = [time for time in times if time is not None]
        return math.fsum(known) / len(known) if known else None

    @property
    def published(self) -> PublishedLoss | None:
        """The published loss of the same memory; a run without a configuration has the one that its
        folder names."""
        settings = [section(run.config, "model") for run in self.runs if run.config]
        keys = {standard_key(each) for each in settings} or {self.model}
        (key,) = keys if len(keys) == 1 else (None,)
        return published_losses().get((self.setting, self.num_keys, key or ""))

    @property
    def num_features(self) -> int | None:
        """d_dot, None where it is not finite, not known, or not the same for all seeds."""
        found = {num_features(section(run.config, "model")) for run in self.runs if run.config}
        return found.pop() if len(found) == 1 else None


@dataclass(frozen=True)
class RetrievalStudy:
    """A folder's runs and their points, in the order of settings, memories and sizes."""

    runs: tuple[Run, ...]
    points: tuple[Point, ...]

    @property
    def settings(self) -> list[int]:
        return sorted({point.setting for point in self.points})

    def of_setting(self, setting: int) -> list[Point]:
        return [point for point in self.points if point.setting == setting]

    def sizes(self, setting: int) -> list[int]:
        """Numbers of keys."""
        return sorted({point.num_keys for point in self.of_setting(setting)})

    def models(self, setting: int) -> list[str]:
        return in_order((point.model for point in self.of_setting(setting)), MEMORY_NAMES)

    def of_model(self, setting: int, model: str) -> list[Point]:
        """By number of keys."""
        return [point for point in self.of_setting(setting) if point.model == model]


def arrange(runs: Sequence[Run]) -> RetrievalStudy:
    """The runs by point. A run that has neither a configuration nor the name of a task is no part
    of a point."""
    places: dict[tuple[int, int, str], list[Run]] = {}
    for run in runs:
        place = _setting_and_size(run)
        if place:
            places.setdefault((*place, run.model), []).append(run)
    models = in_order((model for _, _, model in places), MEMORY_NAMES)
    order = sorted(places, key=lambda key: (key[0], models.index(key[2]), key[1]))
    points = tuple(Point(*key, tuple(places[key])) for key in order)
    others = [run for run in runs if not _setting_and_size(run)]
    return RetrievalStudy((*(run for point in points for run in point.runs), *others), points)


def final_loss(run: Run) -> float | None:
    """The squared error that a run ended with: on the test split, or at its last evaluation where
    there is none. NaN for a run that diverged, None for one that has not ended."""
    if run.status == "failed" and _NON_FINITE.search(run.error or ""):
        return math.nan
    if run.status != "done" or not run.result:
        return None
    scores = run.result.splits.get("test") or run.result.splits.get("validation")
    if scores is None:
        return None
    return math.nan if scores.squared_error is None else scores.squared_error


def evaluations(run: Run) -> tuple[list[int], list[float]]:
    """Steps and squared errors of the evaluations during training."""
    return run.curve("validation", "squared_error")


def is_published_variant(run: Run) -> bool:
    """Whether a run was evaluated as in the official code."""
    return section(run.config, "task").get("variant") == "published"


def _setting_and_size(run: Run) -> tuple[int, int] | None:
    """From the configuration, or from the name of the task where there is none."""
    task = section(run.config, "task")
    if isinstance(task.get("num_keys"), int):
        return (2 if task.get("replacement") else 1), task["num_keys"]
    named = re.fullmatch(rf"({UNIQUE}|{REPEATED})_(\d+)", run.task)
    return (_SETTINGS[named[1]], int(named[2])) if named else None


def _is_finite(loss: float | None) -> bool:
    return loss is not None and math.isfinite(loss)


def section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A part of a configuration, empty where there is none."""
    found = config.get(name)
    return found if isinstance(found, Mapping) else {}
