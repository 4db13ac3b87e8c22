"""Accuracy by length for the terminal: rows models, columns lengths, one table a task."""

from rich.console import Group
from rich.table import Table

from fastweights.report.cells import Spread, Study
from fastweights.report.length_table import (
    accuracy_text,
    missing_caption,
    model_text,
    shown_lengths,
    titled_table,
)
from fastweights.report.names import language_name
from fastweights.report.recall.tables import lengths

_ROOM = 8  # columns in 80 characters


def recall_by_length(study: Study) -> Group:
    """Queries answered, in %, mean over the finished seeds."""
    return Group(*(_table(study, task) for task in study.languages))


def _table(study: Study, task: str) -> Table:
    columns = shown_lengths(lengths(study, task), _ROOM)
    table = titled_table(
        f"{language_name(task).plain}: queries right, %",
        missing_caption(study),
        ["model", *map(str, columns)],
    )
    for model in study.models:
        cell = study.cell(task, model)
        curve = cell.by_length()
        values = [Spread.of(curve.get(length, [])) for length in columns]
        table.add_row(model_text(cell), *map(accuracy_text, values))
    return table
