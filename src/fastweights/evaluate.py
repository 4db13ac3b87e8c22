"""A trained run, loaded from its folder: its accuracy on any strings, its labels for one string."""

from __future__ import annotations

import dataclasses
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from fastweights.models.menu import build_model
from fastweights.tasks.formal.encode import Vocabulary
from fastweights.tasks.formal.language import Example, FormalLanguage
from fastweights.tasks.formal.menu import Task, find_language, load_language, load_task
from fastweights.train.accuracy import Accuracy, evaluate_examples, horizon
from fastweights.train.checkpoint import Checkpoints
from fastweights.train.config import RunConfig, load_config
from fastweights.train.data import load_run_task

CheckpointName = Literal["best", "last"]
TEST_SPLITS = ("validation", "bin0", "bin1")


@dataclasses.dataclass(frozen=True)
class LoadedRun:
    """A run's model with the weights of one checkpoint, in evaluation mode on `device`.

    `symbols` and `labels` are in the order of the model's ids; `language` is None for one on files.
    """

    folder: Path
    config: RunConfig
    symbols: tuple[str, ...]
    labels: tuple[str, ...]
    language: FormalLanguage | None
    model: nn.Module
    step: int
    device: torch.device


@dataclasses.dataclass(frozen=True)
class Prediction:
    """One position, counted from 1. `label` is None where the model chose its padding output;
    `probability` is that of the choice; `expected` is None where the label is not known."""

    position: int
    symbol: str
    label: str | None
    probability: float
    expected: str | None


def load_run(run_folder: Path, checkpoint: CheckpointName = "best") -> LoadedRun:
    """The model of a run folder, on the device that its configuration names.

    Raises ConfigError (no run folder, damaged configuration), ValueError (a task or a layer that is
    not there any more) and CheckpointError (none yet, damaged).
    """
    run_folder = Path(run_folder)
    if not (run_folder / "config.yaml").is_file():
        raise ValueError(f"{run_folder}: is not a run folder (no config.yaml)")
    config = load_config(run_folder / "config.yaml")
    symbols, labels, language = _alphabets(config)
    weights = Checkpoints(run_folder).load(checkpoint)
    model: nn.Module = build_model(config.model, len(symbols) + 1, len(labels) + 1)
    if config.precision == "64-true":
        model = model.double()
    try:
        model.load_state_dict(weights.model)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{run_folder}: the weights do not fit config.yaml: {reason}") from None
    use_gpu = config.device != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda", 0) if use_gpu else torch.device("cpu")
    return LoadedRun(
        run_folder, config, symbols, labels, language, model.to(device).eval(), weights.step, device
    )


def evaluate_run(run: LoadedRun) -> dict[str, Accuracy]:
    """Accuracy on the run's own held-out splits, drawn again from its seed."""
    return evaluate_splits(run, load_run_task(run.config).splits)


def evaluate_language(run: LoadedRun, name: str) -> dict[str, Accuracy]:
    """Accuracy on the held-out splits of another language of the menu.

    Raises ValueError for an unknown name, and for symbols or labels that the run does not know.
    """
    check_alphabets(run, find_language(name))
    task = load_task({"language": name, "variant": run.config.protocol}, seed=run.config.seed)
    return evaluate_splits(run, task.splits)


def evaluate_splits(run: LoadedRun, splits: Mapping[str, Sequence[Example]]) -> dict[str, Accuracy]:
    """Accuracy on validation, bin0 and bin1, those that exist."""
    return {name: evaluate_on(run, splits[name]) for name in TEST_SPLITS if splits.get(name)}


def evaluate_on(run: LoadedRun, examples: Sequence[Example]) -> Accuracy:
    """Accuracy on given examples. Raises ValueError for none and for unknown symbols or labels."""
    with _autocast(run):
        return evaluate_examples(run.model, examples, run.symbols, run.labels, device=run.device)


def horizon_of_run(
    run: LoadedRun, lengths: Sequence[int], language: FormalLanguage | None = None
) -> dict[str, Any]:
    """Sequence accuracy at the lengths, as `result.json` has it; `language` None: the run's own.

    Raises ValueError where no language is known, and for lengths below 1.
    """
    language = language or run.language
    if language is None:
        raise ValueError(f"{run.folder}: trained on files: no language is known")
    if min(lengths) < 1:
        raise ValueError(f"lengths must be >= 1, got {min(lengths)}")
    check_alphabets(run, language)
    task = Task(language.name, run.symbols, run.labels, {}, language)
    config = run.config
    with _autocast(run):
        measured = horizon(
            run.model,
            task,
            sorted(set(lengths)),
            config.horizon_sequences,
            config.seed,
            device=run.device,
        )
    if not measured or not measured["lengths"]:
        asked = ", ".join(map(str, lengths))
        raise ValueError(f"{language.name}: has no string of length {asked} or a little longer")
    return measured


@torch.inference_mode()
def predict(run: LoadedRun, string: Sequence[str]) -> list[Prediction]:
    """The label of every prefix of a string.

    `expected` ends where no word of the language goes on like the string. Raises ValueError for an
    empty string, and for an unknown symbol with its position.
    """
    if not string:
        raise ValueError("the string is empty")
    ids = Vocabulary(run.symbols).encode(string)
    with _autocast(run):
        logits = run.model(torch.tensor([ids], device=run.device)).logits[0]
    probabilities = logits.double().softmax(-1)
    best = probabilities.argmax(-1).tolist()
    expected = _expected(run.language, string)
    return [
        Prediction(
            position=i + 1,
            symbol=symbol,
            label=run.labels[best[i]] if best[i] < len(run.labels) else None,
            probability=float(probabilities[i, best[i]]),
            expected=expected[i] if i < len(expected) else None,
        )
        for i, symbol in enumerate(string)
    ]


def check_alphabets(run: LoadedRun, language: FormalLanguage) -> None:
    """Raises ValueError where the language has a symbol or a label that the run does not know."""
    for kind, wanted, known in (
        ("symbol", language.symbols, run.symbols),
        ("label", language.labels, run.labels),
    ):
        missing = [name for name in wanted if name not in known]
        if missing:
            raise ValueError(
                f"{language.name} has the {kind} {missing[0]!r}, which {run.folder} does not know "
                f"(known: {' '.join(known)})"
            )


def _expected(language: FormalLanguage | None, string: Sequence[str]) -> list[str]:
    """The labels of the longest prefix that has them."""
    if language is None:
        return []

    def has_no_label(length: int) -> bool:
        try:
            language.label(string[:length])
        except ValueError:
            return True
        return False

    lengths = range(1, len(string) + 1)
    longest = bisect_left(lengths, True, key=has_no_label)
    return language.label(string[:longest]) if longest else []


def _alphabets(
    config: RunConfig,
) -> tuple[tuple[str, ...], tuple[str, ...], FormalLanguage | None]:
    """Symbols, labels and language of a run; no set is drawn unless the task is given by files."""
    if config.task.kind == "files":
        task = load_run_task(config)
        return task.symbols, task.labels, None
    language = load_language(config.task.model_dump())
    return language.symbols, language.labels, language


def _autocast(run: LoadedRun) -> torch.autocast:
    mixed = run.config.precision == "bf16-mixed"
    return torch.autocast(run.device.type, dtype=torch.bfloat16, enabled=mixed)
