"""Run folders with made-up numbers, as training would write them."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

LENGTHS = (50, 100, 150, 200, 300, 400, 500, 750, 1000)
ENVIRONMENT = {
    "versions": {"python": "3.11.7", "torch": "2.13.0"},
    "platform": "Linux x86_64",
    "device": "cpu",
    "device_name": "cpu",
    "num_threads": 1,
    "commit": "0123456789abcdef0123456789abcdef01234567",
    "dirty": False,
    "started_at": "2030-01-01T00:00:00+00:00",
}


def config(language: str, layer: str, seed: int, protocol: str = "strict") -> dict[str, Any]:
    return {
        "task": {"kind": "formal_language", "language": language, "variant": protocol},
        "model": {
            "layer": layer,
            "layer_options": {"num_heads": 4},
            "dim": 32,
            "num_layers": 1,
            "ff_dim": 64,
        },
        "training": {"lr": 0.003, "batch_size": 64},
        "protocol": protocol,
        "seed": seed,
    }


def result(
    bin0: float,
    bin1: float,
    horizon: Sequence[float] | None = None,
    longest: int | None = None,
    **others: Any,
) -> dict[str, Any]:
    accuracies = None if horizon is None else list(horizon)
    return {
        "status": "done",
        "stopped_because": "validation at 100 %",
        "selected_step": 400,
        "steps": 500,
        "wall_s": 61.4,
        "num_parameters": 9539,
        "protocol": "strict",
        "selection": "validation",
        "splits": {
            name: {
                "sequence_accuracy": accuracy,
                "token_accuracy": accuracy,
                "nats_per_token": 0.1,
                "num_sequences": 2000,
            }
            for name, accuracy in (("validation", bin0), ("bin0", bin0), ("bin1", bin1))
        },
        "horizon": None
        if accuracies is None
        else {
            "lengths": list(LENGTHS[: len(accuracies)]),
            "sequence_accuracy": accuracies,
            "num_sequences": [64] * len(accuracies),
            "threshold": 0.99,
            "longest_length": longest,
        },
        **others,
    }


def write_run(
    place: Path,
    run_config: Mapping[str, Any] | None = None,
    run_result: Mapping[str, Any] | None = None,
    failure: str | None = None,
    curve: Sequence[tuple[int, float]] = (),
    split: str = "validation",
) -> Path:
    place.mkdir(parents=True)
    if run_config is not None:
        (place / "config.yaml").write_text(yaml.safe_dump(dict(run_config)))
        (place / "environment.json").write_text(json.dumps(ENVIRONMENT))
    if curve:
        lines = [
            {"step": step, "split": split, "sequence_accuracy": accuracy, "nats_per_token": 0.1}
            for step, accuracy in curve
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (place / "metrics.jsonl").write_text(text)
    if run_result is not None:
        (place / "result.json").write_text(json.dumps(run_result))
    if failure is not None:
        (place / "failure.json").write_text(json.dumps({"error": failure}))
    return place


# (final validation accuracy, length at which accuracy has halved; None: never, steps to learn)
_CHARACTERS = {
    "lstm": (1.0, None, 400),
    "e_lstm": (0.97, 400, 900),
    "transformer": (0.42, 55, 2500),
    "linear_transformer": (0.12, 45, 2500),
    "delta_net": (0.22, 50, 2500),
    "delta_net_0_2": (1.0, 600, 300),
    "recurrent_delta_net": (1.0, None, 700),
    "srwm": (1.0, 900, 1100),
}


def write_made_up_study(
    folder: Path, languages: Sequence[str], models: Sequence[str], seeds: Sequence[int]
) -> Path:
    """Smooth curves that differ by model, language and seed, the same at every call."""
    for place, language in enumerate(languages):
        for model in models:
            final, half, learn = _CHARACTERS.get(model, (0.8, 200, 1000))
            for seed in seeds:
                late = learn * (1 + 0.15 * seed + 0.1 * place)
                stop = 100 * round(late * 1.7 / 100) if final == 1.0 else 6000
                curve = [
                    (step, final / (1 + math.exp(-(step - late) / (0.09 * late))))
                    for step in range(50, stop, 50)
                ]
                curve.append((stop, final))
                horizon = [
                    final
                    if half is None
                    else final / (1 + (length / (half * (1 + 0.12 * seed))) ** 6)
                    for length in LENGTHS
                ]
                horizon = [1.0 if accuracy > 0.995 else accuracy for accuracy in horizon]
                longest = max(
                    [n for n, value in zip(LENGTHS, horizon, strict=True) if value >= 0.99],
                    default=0,
                )
                run_result = result(
                    final,
                    horizon[1],
                    horizon,
                    longest,
                    steps=stop,
                    wall_s=stop / 9,
                    stopped_because="validation at 100 %" if final == 1.0 else "max_steps",
                )
                write_run(
                    folder / language / model / f"seed_{seed}",
                    config(language, model.removesuffix("_0_2"), seed),
                    run_result,
                    curve=curve,
                )
    return folder
