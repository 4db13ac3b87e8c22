"""Bits per byte for the terminal: rows models, columns splits, one table a text."""

from rich.console import Group
from rich.table import Table

from fastweights.report.cells import Study
from fastweights.report.length_table import missing_caption, model_text, titled_table
from fastweights.report.names import language_name
from fastweights.report.text.tables import bits, bits_text, spread_of


def bits_by_model(study: Study) -> Group:
    """Mean and spread over the finished seeds."""
    return Group(*(_table(study, text) for text in study.languages))


def _table(study: Study, text: str) -> Table:
    splits = ("validation", "test")
    table = titled_table(
        f"{language_name(text).plain}: bits per byte", missing_caption(study), ["model", *splits]
    )
    for model in study.models:
        cell = study.cell(text, model)
        table.add_row(
            model_text(cell), *(bits_text(spread_of(cell, bits(split))) for split in splits)
        )
    return table
