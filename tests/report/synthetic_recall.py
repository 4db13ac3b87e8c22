"""Run folders of multi-query recall with made-up numbers, as training would write them."""

from collections.abc import Sequence
from pathlib import Path

from fastweights.experiments.recall import config
from tests.report.synthetic_study import write_run

LENGTHS = (64, 256, 1024)


def write_recall(
    study: Path,
    model: str,
    accuracies: Sequence[float],
    *,
    seed: int = 1,
    task: str = "recall_1024",
) -> Path:
    """A finished run with these accuracies at the first of `LENGTHS`."""
    settings = config(task, model, seed, {}).model_dump(mode="json")
    outcome = {
        "status": "done",
        "stopped_because": "max_steps",
        "selected_step": 150,
        "steps": 200,
        "wall_s": 1.5,
        "num_parameters": 17472,
        "protocol": "strict",
        "selection": "validation",
        "splits": {"validation": {"accuracy": 0.5, "nats_per_query": 1.5, "num_queries": 400}},
        "by_length": {
            "lengths": LENGTHS[: len(accuracies)],
            "accuracy": accuracies,
            "threshold": 0.99,
            "longest_length": 0,
        },
    }
    return write_run(study / task / model / f"seed_{seed}", settings, outcome)
