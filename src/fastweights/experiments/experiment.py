"""What an experiment is: a grid of tasks, models and seeds, each cell one configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from fastweights.near_names import check_name
from fastweights.train.config import RunConfig, merge


class Cell(NamedTuple):
    """One run of a grid: the names of its task and its model, its seed, all that determines it."""

    task: str
    model: str
    seed: int
    config: RunConfig


class Quick(NamedTuple):
    """The short form of an experiment."""

    tasks: tuple[str, ...]
    models: tuple[str, ...]
    settings: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A grid that `fastweights study` runs.

    Args:
        summary: one sentence.
        config: the configuration of a task, a model and a seed, with overrides laid over it.
        tasks, models: their names, in order.
        seeds: of each cell.
        belongs: whether a task is asked of a model.
        quick: the short form: some tasks, some models, settings laid under the overrides.
    """

    summary: str
    config: Callable[[str, str, int, Mapping[str, Any]], RunConfig]
    tasks: tuple[str, ...]
    models: tuple[str, ...]
    seeds: tuple[int, ...] = (1, 2, 3)
    belongs: Callable[[str, str], bool] = lambda task, model: True
    quick: Quick | None = None

    def cells(
        self,
        tasks: Sequence[str] | None = None,
        models: Sequence[str] | None = None,
        seeds: Sequence[int] | None = None,
        overrides: Mapping[str, Any] | None = None,
        *,
        quick: bool = False,
    ) -> list[Cell]:
        """Every cell, or those of some tasks, models and seeds. Raises ValueError, with the near
        names, for one that the experiment does not have, and where no cell is left."""
        if quick and self.quick is None:
            raise ValueError("--quick: this study has no short form")
        short = self.quick if quick else None
        for kind, asked, known in (
            ("task", tasks, self.tasks),
            ("model", models, self.models),
        ):
            for name in asked or ():
                check_name(name, known, kind)
        if short is not None:
            tasks, models = tasks or short.tasks, models or short.models
        settings = merge(short.settings if short else {}, overrides or {})
        cells = [
            Cell(task, model, seed, self.config(task, model, seed, settings))
            for seed in seeds or self.seeds
            for task in tasks or self.tasks
            for model in models or self.models
            if self.belongs(task, model)
        ]
        if not cells:
            raise ValueError("none of these models belongs to any of these tasks")
        return cells
