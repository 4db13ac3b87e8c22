"""What kind of task a folder's runs are of: each kind has its own report."""

import re
from collections.abc import Iterable, Mapping
from typing import Literal, get_args

from fastweights.experiments.recall import TASKS as RECALL_TASKS
from fastweights.experiments.retrieval import REPEATED, UNIQUE
from fastweights.report.names import LANGUAGE_NAMES
from fastweights.report.runs import Run

Kind = Literal["formal languages", "retrieval", "recall", "text"]


def kind_of(runs: Iterable[Run]) -> Kind:
    """That of the configurations, or of the tasks' names where there are none; else formal
    languages. Raises ValueError, in one line, for runs of two kinds."""
    found = {kind: run.path for run in runs if (kind := _kind(run))}
    if len(found) > 1:
        (one, here), (other, there), *_ = sorted(found.items())
        raise ValueError(f"a report is about {one} or about {other}, not both: {here} and {there}")
    return next(iter(found), "formal languages")


def _kind(run: Run) -> Kind | None:
    if run.config:
        task = run.config.get("task")
        named = task.get("kind") if isinstance(task, Mapping) else None
        return next((kind for kind in get_args(Kind) if kind == named), "formal languages")
    if re.fullmatch(rf"({UNIQUE}|{REPEATED})_\d+", run.task):
        return "retrieval"
    if run.task in RECALL_TASKS:
        return "recall"
    return "formal languages" if run.task in LANGUAGE_NAMES else None
