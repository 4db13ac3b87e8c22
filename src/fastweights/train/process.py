"""What a run changes in its process, and puts back: threads, generators, signals, hooks."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import torch

from fastweights.train.data import generator_for
from fastweights.train.errors import TrainingInterrupted


@contextlib.contextmanager
def cpu_threads(num_threads: int | None) -> Iterator[None]:
    """Set torch's number of CPU threads (None: leave it) and put it back."""
    before = torch.get_num_threads()
    if num_threads is not None:
        torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def default_generators(seed: int, device: torch.device, number: int = 0) -> Iterator[None]:
    """torch's default generators, seeded from the run's seed and the number of the process; their
    states are put back."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        dropout = generator_for(seed, "dropout", number).initial_seed()
        torch.default_generator.manual_seed(dropout)
        if devices:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(dropout)
        yield


@contextlib.contextmanager
def full_disk_in_threads() -> Iterator[None]:
    """An OSError in a thread prints no traceback: that of TensorBoard's writer is raised again by
    the next line that is logged."""
    before = threading.excepthook

    def hook(what: threading.ExceptHookArgs) -> None:
        if not isinstance(what.exc_value, OSError):
            before(what)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before


class Signals:
    """Turns Ctrl-C and SIGTERM into a flag that the loop reads between steps; a second one, or any
    once `at_once` is set, raises TrainingInterrupted where it arrives. Main thread only; a signal
    that is ignored stays so."""

    def __init__(self) -> None:
        self.received = False
        self.at_once = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler or signal.SIG_DFL)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received or self.at_once:
            raise TrainingInterrupted(f"interrupted by {signal.Signals(number).name}")
        self.received = True
