"""How a running study looks: bars on a terminal, else a line a run."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

from fastweights.cli.train import split_scores
from fastweights.study import Watcher, last_metrics
from fastweights.worker import Job

REFRESH_S = 1.0


def make_progress(quiet: bool) -> Watcher:
    """Nothing, bars or lines, all on stderr."""
    if quiet:
        return Watcher()
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    return Bars(console) if console.is_terminal else Lines(console)


class Lines(Watcher):
    """One line when the study begins, one when a run ends."""

    def __init__(self, console: Any) -> None:
        self._console = console
        self._jobs: Sequence[Job] = ()

    def begin(self, jobs: Sequence[Job], workers: int) -> None:
        """How many runs are done, failed, stopped, new."""
        self._jobs = jobs
        statuses = [job.status for job in jobs]
        counts = {
            "done before": statuses.count("done"),
            "failed before": statuses.count("failed"),
            "to go on": statuses.count("stopped"),
            "new": statuses.count("new"),
        }
        shown = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        runs = "run" if len(jobs) == 1 else "runs"
        self._say(f"{len(jobs)} {runs} ({shown}), {workers} at once")

    def ended(self, job: Job) -> None:
        """`[3/8] parity/srwm/seed_1: 1200 steps, 40 s, bin0 100.0 %, bin1 99.3 %`."""
        finished = sum(other.status in ("done", "failed") for other in self._jobs)
        said = _result_line(job) if job.status == "done" else f"{job.status}: {job.error}"
        self._say(f"[{finished}/{len(self._jobs)}] {job.name}: {said}")

    def stopping(self, running: Sequence[Job]) -> None:
        """Why it does not end at once."""
        if running:
            self._say(f"stopping {len(running)} at their checkpoints (Ctrl-C again: kill)")

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False, soft_wrap=True)


class Bars(Lines):
    """The lines, above one bar for the study and one for each running run."""

    def __init__(self, console: Any) -> None:
        super().__init__(console)
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
        )

        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[accuracy]}", markup=False),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._bars: dict[str, Any] = {}
        self._running: dict[str, Job] = {}
        self._refreshed = 0.0

    def begin(self, jobs: Sequence[Job], workers: int) -> None:
        """Start the bars."""
        super().begin(jobs, workers)
        self._all = self._progress.add_task("runs", total=len(jobs), accuracy="")
        self._count()
        self._progress.start()

    def started(self, job: Job) -> None:
        """A bar of optimizer steps for the run."""
        total = job.cell.config.training.max_steps
        self._bars[job.name] = self._progress.add_task(job.name, total=total, accuracy="")
        self._running[job.name] = job

    def ended(self, job: Job) -> None:
        """The run's bar becomes a line."""
        self._running.pop(job.name, None)
        bar = self._bars.pop(job.name, None)
        if bar is not None:
            self._progress.remove_task(bar)
        self._count()
        super().ended(job)

    def waiting(self) -> None:
        """Look at the metrics once a second."""
        if time.monotonic() - self._refreshed < REFRESH_S:
            return
        self._refreshed = time.monotonic()
        for name, job in self._running.items():
            step, accuracy = last_metrics(job.folder)
            shown = "" if accuracy is None else f"{100 * accuracy:5.1f} %"
            self._progress.update(self._bars[name], completed=step or 0, accuracy=shown)

    def close(self) -> None:
        """Take the bars away."""
        self._progress.stop()

    def _count(self) -> None:
        finished = sum(job.status in ("done", "failed") for job in self._jobs)
        self._progress.update(self._all, completed=finished)


def _result_line(job: Job) -> str:
    try:
        result = json.loads((job.folder / "result.json").read_text(encoding="utf-8"))
        steps = f"{result['steps']} steps"
        return ", ".join([steps, f"{result['wall_s']:.0f} s", *split_scores(result)])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "done, but result.json cannot be read"
