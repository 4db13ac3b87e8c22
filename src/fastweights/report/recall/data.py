"""report.json of a recall study: every number of the page and of the figure."""

from collections.abc import Mapping, Sequence
from typing import Any

from fastweights.report.cells import Cell, Spread, Study
from fastweights.report.data import head_data, models_data, run_data, spread_data
from fastweights.report.recall.figure import training_lengths
from fastweights.report.recall.page import title
from fastweights.report.recall.tables import PAIRS, differences
from fastweights.report.tables import configuration


def report_data(study: Study, figures: Sequence[str], command: str) -> dict[str, Any]:
    """Plain dictionaries and lists; accuracies and their differences from 0 to 1."""
    return {
        **head_data(study, title(study), command),
        "models": models_data(study),
        "cells": [_cell(cell) for cell in study.cells.values()],
        "differences": [
            {"task": task, "models": pair, **_by_length(found)}
            for task in study.languages
            for pair in PAIRS
            if (found := differences(study, task, pair))
        ],
        "training_lengths": {task: training_lengths(study, task) for task in study.languages},
        "runs": [run_data(run) for run in study.runs],
        "figures": list(figures),
    }


def _cell(cell: Cell) -> dict[str, Any]:
    return {
        "task": cell.language,
        "model": cell.model,
        "num_runs": len(cell.runs),
        "num_done": len(cell.done),
        **_by_length(cell.by_length()),
        "configuration": configuration(cell),
    }


def _by_length(curve: Mapping[int, Sequence[float]]) -> dict[str, Any]:
    spreads = [spread_data(Spread.of(values)) for values in curve.values()]
    return {"lengths": list(curve), "accuracy": spreads}
