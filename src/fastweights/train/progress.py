"""What a run shows on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fastweights.train.protocol import Score


class ProgressBar:
    """Loss, accuracy, speed, time left, on stderr: a bar on a terminal, else lines."""

    def __init__(self, max_steps: int, start: int, loss_name: str, shown: bool) -> None:
        self._console = Console(stderr=True, highlight=False, quiet=not shown)
        self._shown = shown
        self._bar: Progress | None = None
        self._loss_name = loss_name.replace("_", " ")
        self._loss, self._score, self._speed = "-", "-", "-"
        self._max_steps = max_steps
        if shown and self._console.is_terminal:
            self._bar = Progress(
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[text]}"),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
            )
            self._task = self._bar.add_task("train", total=max_steps, completed=start, text="")
            self._bar.start()

    def step(self, step: int, loss: float, tokens_per_s: float) -> None:
        """After a few training steps."""
        self._loss, self._speed = f"{loss:.4f}", f"{tokens_per_s:,.0f}"
        self._update(step)

    def evaluated(self, step: int, split: str, score: Score) -> None:
        """After an evaluation."""
        self._score = f"{split} {score}"
        self._update(step)
        if self._bar is None:
            self.say(f"step {step}/{self._max_steps}  {self._text()}")

    def say(self, line: str) -> None:
        """One line above the bar."""
        self._console.print(line, markup=False, soft_wrap=True)

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()

    def _text(self) -> str:
        return f"{self._loss_name} {self._loss}  {self._score}  {self._speed} tokens/s"

    def _update(self, step: int) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=step, text=self._text())
