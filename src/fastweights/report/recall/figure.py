"""Accuracy over the queries against the length of the sequences."""

from typing import TYPE_CHECKING

from fastweights.report.cells import Study
from fastweights.report.length_curves import length_curves

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def accuracy_curves(study: Study) -> "Figure | None":
    """One panel a task, see `length_curves`; None where no run has finished."""
    curves = {
        task: {model: study.cell(task, model).by_length() for model in study.models}
        for task in study.languages
    }
    trained = {task: max(training_lengths(study, task), default=0) for task in study.languages}
    return length_curves(
        curves, trained, study.models, "length of the sequence, tokens", "queries right, %"
    )


def training_lengths(study: Study, task: str) -> list[int]:
    """The lengths that every run of a task was trained on; none where they are not the same."""
    tasks = [run.config.get("task", {}) for run in study.runs if run.task == task and run.config]
    first, *others = [each.get("lengths", []) for each in tasks] or [[]]
    return list(first) if all(other == first for other in others) else []
