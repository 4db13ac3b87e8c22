"""What happens to a run in the middle of a step."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastweights.train import loop
from fastweights.train.config import RunConfig, TrainingConfig
from fastweights.train.errors import TrainingInterrupted
from fastweights.train.loop import train
from fastweights.train.optimizer import lr_at


def at_step(monkeypatch: pytest.MonkeyPatch, step: int, do: Callable[[], None]) -> None:
    """Do something in the middle of the step that begins when `step` steps are done."""

    def at_that_step(at: int, training: TrainingConfig) -> float:
        if at == step:
            do()
        return lr_at(at, training)

    monkeypatch.setattr(loop, "lr_at", at_that_step)


def send(number: int) -> Callable[[], None]:
    """What `at_step` does: raise a signal."""
    return lambda: signal.raise_signal(number)


def train_in_parts(
    config: RunConfig, run_folder: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> dict[str, Any]:
    """The result of a run that is interrupted at a step and resumed."""
    with monkeypatch.context() as patched:
        at_step(patched, step, send(signal.SIGINT))
        with pytest.raises(TrainingInterrupted):
            train(config, run_folder, progress=False)
    return train(config, run_folder, resume=True, progress=False)
