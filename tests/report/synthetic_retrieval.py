"""Run folders of associative retrieval with made-up numbers, as training would write them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastweights.experiments.retrieval import config
from tests.report.synthetic_study import write_run


def write_memory(
    study: Path,
    task: str,
    model: str,
    loss: float | None,
    *,
    seed: int = 1,
    steps: int = 200,
    cpu_s: float | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Path:
    """A finished run; `loss` None: its last evaluation is not a number."""
    settings = config(task, model, seed, overrides or {}).model_dump(mode="json")
    published = settings["protocol"] == "published"
    scores = {"squared_error": loss, "accuracy": 0.5, "num_queries": 400}
    outcome = {
        "status": "done",
        "stopped_because": "squared_error below 0.001",
        "selected_step": steps,
        "steps": steps,
        "wall_s": 1.5,
        "cpu_s": cpu_s,
        "num_parameters": 17472,
        "protocol": settings["protocol"],
        "selection": "last" if published else "validation",
        "splits": {"validation" if published else "test": scores},
    }
    place = write_run(study / task / model / f"seed_{seed}", settings, outcome)
    lines = [
        {"step": step, "split": split, "squared_error": value}
        for step in range(100, steps + 1, 100)
        for split, value in (("train", 0.7), ("validation", 0.5 if step < steps else loss))
    ]
    (place / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return place


def write_failed(study: Path, task: str, model: str, error: str, seed: int = 1) -> Path:
    """A run that failed."""
    settings = config(task, model, seed, {}).model_dump(mode="json")
    return write_run(study / task / model / f"seed_{seed}", settings, failure=error)
