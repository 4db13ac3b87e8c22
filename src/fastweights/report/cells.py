"""The runs of a folder, arranged as cells (language x model) with mean and spread over seeds."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fastweights.report.names import ALL_MODEL_NAMES, LANGUAGE_NAMES, in_order
from fastweights.report.runs import Run, read_runs
from fastweights.report.windows import Windows, find_windows


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (n - 1; None for one value) of `count` values."""

    mean: float
    std: float | None
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread | None":
        """None for no values."""
        if not values:
            return None
        std = statistics.stdev(values) if len(values) > 1 else None
        return cls(math.fsum(values) / len(values), std, len(values))


@dataclass(frozen=True)
class Cell:
    """All runs of one model on one language, by seed."""

    language: str
    model: str
    runs: tuple[Run, ...]

    @property
    def done(self) -> tuple[Run, ...]:
        return tuple(run for run in self.runs if run.status == "done")

    def accuracy(self, split: str) -> Spread | None:
        """Sequence accuracy (0 to 1) on a split over the finished runs."""
        found = [run.accuracy(split) for run in self.done]
        return Spread.of([value for value in found if value is not None])

    def horizon(self) -> dict[int, list[float]]:
        """Length -> sequence accuracies (0 to 1), one a finished run that measured it."""
        curve: dict[int, list[float]] = {}
        for run in self.done:
            if run.result and run.result.horizon:
                measured = run.result.horizon
                for length, value in zip(measured.lengths, measured.sequence_accuracy, strict=True):
                    curve.setdefault(length, []).append(value)
        return dict(sorted(curve.items()))

    def by_length(self) -> dict[int, list[float]]:
        """Of recall: length -> accuracies over its queries (0 to 1), one a finished run."""
        curve: dict[int, list[float]] = {}
        for run in self.done:
            for length, value in run.by_length().items():
                curve.setdefault(length, []).append(value)
        return dict(sorted(curve.items()))


@dataclass(frozen=True)
class Study:
    """A folder's runs; languages and models in the order of the tables."""

    folder: Path
    runs: tuple[Run, ...]
    languages: tuple[str, ...]
    models: tuple[str, ...]
    cells: dict[tuple[str, str], Cell]

    def cell(self, language: str, model: str) -> Cell:
        """The cell, without runs where nobody asked for it."""
        return self.cells.get((language, model)) or Cell(language, model, ())

    def windows(self, language: str) -> Windows | None:
        """Length windows of a language, None where they are not known or runs differ in them."""
        configs = [run.config for run in self.runs if run.task == language]
        first, *others = [find_windows(language, config) for config in configs or [{}]]
        return first if all(other == first for other in others) else None

    @property
    def curve_split(self) -> str:
        """The split of the learning curves: validation, or Bin 1 where no run has that."""
        has_validation = any(run.curve("validation")[0] for run in self.runs)
        return "validation" if has_validation else "bin1"


def read_study(folder: Path) -> Study:
    """Raises ValueError, in one line, where `folder` holds no run."""
    return arrange(folder, read_runs(folder))


def arrange(folder: Path, found: Sequence[Run]) -> Study:
    """The runs that a folder holds. Those of recall and of text have tasks and texts where those of
    formal languages have languages."""
    runs = tuple(found)
    languages = tuple(in_order((run.task for run in runs), LANGUAGE_NAMES))
    models = tuple(in_order((run.model for run in runs), ALL_MODEL_NAMES))
    cells = {}
    for language in languages:
        for model in models:
            members = tuple(run for run in runs if (run.task, run.model) == (language, model))
            if members:
                cells[language, model] = Cell(language, model, members)
    return Study(folder, runs, languages, models, cells)
