"""report.json: everything the page says, by cell and by run, with accuracies from 0 to 1."""

import json
import math
from collections.abc import Sequence
from typing import Any

from fastweights.report.cells import Cell, Spread, Study
from fastweights.report.environments import environments
from fastweights.report.names import language_name, model_name
from fastweights.report.page import protocols, title
from fastweights.report.published import EVIDENCE, EXPECTATIONS, THEORY, claim
from fastweights.report.runs import Run
from fastweights.report.tables import SOLVED, configuration, disagreements


def report_data(study: Study, figures: Sequence[str], command: str) -> dict[str, Any]:
    """Plain dictionaries and lists."""
    compared, different = disagreements(study)
    return {
        **head_data(study, title(study), command),
        "languages": [
            {"key": key, "name": language_name(key).plain, "windows": _windows(study, key)}
            for key in study.languages
        ],
        "models": models_data(study),
        "cells": [_cell(cell) for cell in study.cells.values()],
        "expectations": {"threshold": SOLVED, "compared": compared, "different": different},
        "runs": [run_data(run, "language") for run in study.runs],
        "failures": [
            {
                "language": run.task,
                "model": run.model,
                "seed": run.seed,
                "status": run.status,
                "error": run.error,
            }
            for run in study.runs
            if run.status != "done"
        ],
        "figures": list(figures),
        "legend": {"evidence": EVIDENCE, "expectations": EXPECTATIONS, "theory": THEORY},
    }


def head_data(study: Study, heading: str, command: str) -> dict[str, Any]:
    """What is compared, how to make it again, under which protocols and on which machines."""
    return {
        "title": heading,
        "command": command,
        "protocols": protocols(study),
        "environments": environments(study.runs),
    }


def models_data(study: Study) -> list[dict[str, str]]:
    """The models, in the order of the tables."""
    return [{"key": key, "name": model_name(key).plain} for key in study.models]


def to_json(data: dict[str, Any]) -> str:
    """JSON with one line for each entry of the top-level lists, so that a diff can be read. NaN and
    infinities become null."""
    parts = []
    for key, value in _finite(data).items():
        if isinstance(value, list) and value:
            lines = ",\n".join("  " + _dump(entry) for entry in value)
            parts.append(f" {_dump(key)}: [\n{lines}\n ]")
        else:
            parts.append(f" {_dump(key)}: {_dump(value)}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, default=str)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return value


def _windows(study: Study, language: str) -> dict[str, Any] | None:
    windows = study.windows(language)
    return windows._asdict() if windows else None


def _cell(cell: Cell) -> dict[str, Any]:
    known = claim(cell.language, cell.model)
    horizon = cell.horizon()
    longest = [
        run.result.horizon.longest_length for run in cell.done if run.result and run.result.horizon
    ]
    return {
        "language": cell.language,
        "model": cell.model,
        "num_runs": len(cell.runs),
        "num_done": len(cell.done),
        "bin0": spread_data(cell.accuracy("bin0")),
        "bin1": spread_data(cell.accuracy("bin1")),
        "horizon": {
            "lengths": list(horizon),
            "sequence_accuracy": [spread_data(Spread.of(values)) for values in horizon.values()],
            "longest_length": longest,
        }
        if horizon
        else None,
        "published": known._asdict() if known else None,
        "configuration": configuration(cell),
    }


def spread_data(spread: Spread | None) -> dict[str, Any] | None:
    """None for no values."""
    return {"mean": spread.mean, "std": spread.std, "num_seeds": spread.count} if spread else None


def run_data(run: Run, task: str = "task", **scores: float | None) -> dict[str, Any]:
    """One run: its place, its outcome with these scores, its configuration; `task` is what its
    task is called."""
    return {
        "path": run.path,
        task: run.task,
        "model": run.model,
        "seed": run.seed,
        "status": run.status,
        "error": run.error,
        **scores,
        "result": run.result.model_dump(exclude_unset=True) if run.result else None,
        "config": dict(run.config),
    }
