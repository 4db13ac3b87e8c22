"""report.json of a study of language models: every number of the page and of the figures."""

from collections.abc import Sequence
from typing import Any

from fastweights.report.cells import Cell, Spread, Study
from fastweights.report.data import head_data, models_data, run_data, spread_data
from fastweights.report.tables import configuration, joined
from fastweights.report.text.page import title
from fastweights.report.text.positions import PositionCurves, position_curves
from fastweights.report.text.published import comparisons, order_of
from fastweights.report.text.tables import (
    baseline,
    bits,
    differences,
    perplexity,
    reading_text,
    spread_of,
)


def report_data(study: Study, figures: Sequence[str], command: str) -> dict[str, Any]:
    """Plain dictionaries and lists."""
    return {
        **head_data(study, title(study), command),
        "models": models_data(study),
        "cells": [_cell(study, cell) for cell in study.cells.values()],
        "published": [
            {
                "text": text,
                "of": published.text,
                "perplexity": {cell.model: published.shown(cell.model) for cell in cells},
                "order": order_of(published, cells)._asdict(),
            }
            for text in study.languages
            for published, cells in comparisons(study, text)
        ],
        "runs": [
            run_data(run) | {"experts": {k: v.model_dump() for k, v in run.experts.items()}}
            for run in study.runs
        ],
        "figures": list(figures),
    }


def _cell(study: Study, cell: Cell) -> dict[str, Any]:
    base = baseline(study, cell.language)
    less = Spread.of(differences(cell, base)) if base else None
    return {
        "text": cell.language,
        "model": cell.model,
        "num_runs": len(cell.runs),
        "num_done": len(cell.done),
        "bits_per_byte": {
            split: spread_data(spread_of(cell, bits(split))) for split in ("validation", "test")
        },
        "baseline": base.model if base else None,
        "test_less_baseline": spread_data(less),
        "test_perplexity": spread_data(spread_of(cell, perplexity)),
        "read": joined(map(reading_text, cell.done)),
        "by_position": _by_position(position_curves(study, cell.language).get(cell.model)),
        "configuration": configuration(cell),
    }


def _by_position(curves: PositionCurves | None) -> dict[str, Any] | None:
    if curves is None:
        return None
    columns = zip(*curves.bits, strict=True)
    return {
        "context_length": curves.context_length,
        "last_position": list(curves.last_position),
        "bits_per_byte": [spread_data(Spread.of(column)) for column in columns],
        "standard_error": list(curves.error),
    }
