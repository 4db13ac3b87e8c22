"""Run folders of language models with made-up numbers, as training would write them."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastweights.train.config import parse_config
from tests.report.synthetic_study import write_run

TEXT = "python_stdlib"


def write_text_run(
    study: Path,
    model: str,
    bits: float,
    *,
    seed: int = 1,
    curve: Sequence[float] = (),
    experts: dict[str, Any] | None = None,
    perplexity: float | None = None,
    carried: bool = False,
    **others: Any,
) -> Path:
    """A finished run with these bits per byte on the test text, 0.1 less on the validation text,
    and these during training; with the test text's perplexity where its tokens are not bytes."""
    task = {"kind": "text", "carry_state": carried}
    settings = parse_config({"task": task, "seed": seed}).resolved()
    scores = {
        split: {"nats_per_token": math.log(2) * value, "bits_per_byte": value, "num_tokens": 1000}
        for split, value in (("validation", bits - 0.1), ("test", bits))
    }
    if perplexity is not None:
        scores["test"] |= {"nats_per_token": math.log(perplexity), "perplexity": perplexity}
    outcome = {
        "status": "done",
        "stopped_because": "max_steps",
        "selected_step": 150,
        "steps": 200,
        "wall_s": 3.0,
        "cpu_s": 1.5,
        "num_parameters": 1000,
        "protocol": "strict",
        "selection": "validation",
        "splits": scores,
        **others,
    }
    folder = study / (f"{TEXT}_carried" if carried else TEXT) / model / f"seed_{seed}"
    place = write_run(folder, settings.model_dump(mode="json"), outcome)
    lines = [
        {"step": 50 * number, "split": "validation", "nats_per_token": 1.0, "bits_per_byte": value}
        for number, value in enumerate(curve, start=1)
    ]
    (place / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if experts is not None:
        (place / "experts.json").write_text(json.dumps(experts))
    return place


def by_position(bits: Sequence[float], error: float = 0.02) -> dict[str, Any]:
    """An entry of result.json: runs of 4 positions, read in windows of 16, lose these bits at 1, 2,
    3 and 4, 5 to 8, 9 to 16."""
    return {
        "context_length": 4,
        "window_length": 16,
        "num_windows": 30,
        "last_position": [1, 2, 4, 8, 16],
        "nats_per_token": [math.log(2) * value for value in bits],
        "standard_error": [math.log(2) * error] * 5,
    }


def usage(together: Sequence[Sequence[float]]) -> dict[str, Any]:
    """One layer's entry of experts.json; `together` is symmetric, its diagonal each expert's share
    of the tokens."""
    chosen = [row[number] for number, row in enumerate(together)]
    return {
        "num_tokens": 100,
        "load": [share / sum(chosen) for share in chosen],
        "entropy": 0.75,
        "num_dead": chosen.count(0),
        "together": [list(row) for row in together],
    }
