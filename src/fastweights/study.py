"""A grid of runs over worker processes: what is done is skipped, what was stopped goes on, one
crash never loses the others.

STUDY/<task>/<model>/seed_<n>/ are run folders (config.yaml, written here before the run starts,
says what the run is), each with the run's output in log.txt; STUDY/study.yaml lists the cells.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import yaml

from fastweights.atomic import write_text
from fastweights.experiments.experiment import Cell
from fastweights.train.config import ConfigError, RunConfig, load_config
from fastweights.train.errors import RunFolderError
from fastweights.train.lock import is_unused, locked_folder
from fastweights.worker import Job, Status, Worker, stored_error

POLL_S = 0.2
STOP_WITHIN_S = 60.0
"""Time that a worker has to write its checkpoint before it is killed."""
SHOWN_MISTAKES = 5


class Watcher:
    """Told what happens; does nothing. The command line shows it (`cli.study`)."""

    def begin(self, jobs: Sequence[Job], workers: int) -> None:
        """Before the first worker starts."""

    def started(self, job: Job) -> None:
        """A worker took the job."""

    def ended(self, job: Job) -> None:
        """The job is done, failed or stopped."""

    def waiting(self) -> None:
        """A few times a second while workers run."""

    def stopping(self, running: Sequence[Job]) -> None:
        """The workers were asked to stop."""

    def close(self) -> None:
        """At the end, whatever happened."""


def plan_study(cells: Sequence[Cell], study_folder: Path) -> list[Job]:
    """The jobs of a study with what earlier calls left of them. Writes nothing.

    Raises ValueError for a layer or a layer option that does not exist, ConfigError, one line a run
    folder that holds another configuration, or for a device that is not there, and RunFolderError
    for a file, or a folder of something else, in the place of the study or of a run.
    """
    from fastweights.train.environment import find_device
    from fastweights.train.run_model import spelled_out  # torch: the layers know their options

    study_folder = Path(study_folder)
    if study_folder.exists() and not study_folder.is_dir():
        raise RunFolderError(f"{study_folder}: is not a folder")
    if (study_folder / "config.yaml").exists():
        raise RunFolderError(f"{study_folder}: holds a run; name another folder for the study")
    jobs: list[Job] = []
    mistakes: list[str] = []
    for cell in cells:
        cell = cell._replace(config=spelled_out(cell.config))
        find_device(cell.config.device)
        name = f"{cell.task}/{cell.model}/seed_{cell.seed}"
        job = Job(cell, study_folder / name, "new")
        if any(job.folder == other.folder for other in jobs):
            raise ValueError(f"{name} is asked for twice")
        job.status, job.error = _left_over(job.folder)
        if job.status != "new":
            mistakes += _other_configuration(cell.config, job.folder)
        jobs.append(job)
    if len(mistakes) > SHOWN_MISTAKES:
        rest = len(mistakes) - SHOWN_MISTAKES
        mistakes[SHOWN_MISTAKES:] = [f"{study_folder}: so do {rest} more runs"]
    if mistakes:
        raise ConfigError(mistakes)
    return jobs


def run_study(
    jobs: Sequence[Job],
    study_folder: Path,
    *,
    workers: int | None = None,
    retry_failed: bool = False,
    watcher: Watcher | None = None,
) -> None:
    """Run the jobs that are not done, `workers` at once (default: one a core that this process may
    use); each job's status says how it ended.

    A run that failed before is left as it is unless `retry_failed`. Raises KeyboardInterrupt on
    Ctrl-C or SIGTERM, once every worker has written its checkpoint and ended, and RunFolderError
    when another process runs a study in the same folder.
    """
    watcher = watcher or Watcher()
    count = usable_cores() if workers is None else workers
    if count < 1:
        raise ValueError(f"workers must be >= 1, got {count}")
    study_folder = Path(study_folder)
    with locked_folder(study_folder, "study"), _sigterm_as_ctrl_c():
        _write_cells(jobs, study_folder / "study.yaml")
        wanted = ("new", "stopped", "failed") if retry_failed else ("new", "stopped")
        queue = [job for job in jobs if job.status in wanted]
        running: list[Worker] = []
        watcher.begin(jobs, count)
        try:
            while queue or running:
                while queue and len(running) < count:
                    _start(queue.pop(0), running, watcher)
                time.sleep(POLL_S)
                for worker in [worker for worker in running if worker.ended()]:
                    running.remove(worker)
                    watcher.ended(worker.job)
                watcher.waiting()
        except KeyboardInterrupt:
            watcher.stopping([worker.job for worker in running])
            raise
        finally:
            _stop(running)  # none is left, except after Ctrl-C or an error of ours
            watcher.close()


def usable_cores() -> int:
    """CPU cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def last_metrics(run_folder: Path) -> tuple[int | None, float | None]:
    """The latest step and the latest accuracy (0 to 1; of sequences, where it is measured) in the
    end of metrics.jsonl, None where there is none."""
    step = accuracy = None
    try:
        with (run_folder / "metrics.jsonl").open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 16_384))
            lines = file.read().splitlines()
    except OSError:
        return None, None
    for line in reversed(lines):
        try:
            values = json.loads(line)
            step = values["step"] if step is None else step
        except (ValueError, KeyError, TypeError):
            continue  # the first line is cut, the last may be unfinished
        accuracy = values.get("sequence_accuracy", values.get("accuracy"))
        if accuracy is not None:
            break
    return step, accuracy


# --- what is there already ------------------------------------------------------------------------


def _left_over(folder: Path) -> tuple[Status, str | None]:
    """What an earlier call left in a run folder."""
    if (folder / "config.yaml").is_file():
        if (folder / "result.json").is_file():
            return "done", None
        if (folder / "failure.json").is_file():
            return "failed", stored_error(folder)
        return "stopped", None
    if folder.exists() and not (folder.is_dir() and is_unused(folder)):
        raise RunFolderError(f"{folder}: is in the way: no run folder (no config.yaml)")
    return "new", None


def _other_configuration(config: RunConfig, folder: Path) -> list[str]:
    from fastweights.train.run_folder import different  # torch, like spelled_out

    found = different(load_config(folder / "config.yaml"), config)
    if not found:
        return []
    key, old, new = found[0]
    others = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return [
        f"{folder}: holds a run with {key} {old!r}, {new!r} is asked for{others}; "
        "remove it or name another folder"
    ]


def _write_cells(jobs: Sequence[Job], path: Path) -> None:
    """study.yaml: the cells of earlier calls and of this one."""
    cells = [
        {"task": job.cell.task, "model": job.cell.model, "seed": job.cell.seed} for job in jobs
    ]
    if path.is_file():
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
            before = [dict(cell) for cell in content["cells"]]
        except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError):
            raise RunFolderError(f"{path}: is damaged: no list of cells") from None
        cells = before + [cell for cell in cells if cell not in before]
    write_text(path, yaml.safe_dump({"cells": cells}, sort_keys=False))


# --- workers --------------------------------------------------------------------------------------


def _start(job: Job, running: list[Worker], watcher: Watcher) -> None:
    """Start a worker; where the system refuses, the job has failed and the others go on."""
    try:
        worker = Worker(job)
    except OSError as error:
        job.status, job.error = "failed", f"cannot be started: {error.strerror or error}"
        watcher.ended(job)
        return
    running.append(worker)
    watcher.started(job)


def _stop(running: list[Worker]) -> None:
    """Ask all to stop, wait until they have; a second Ctrl-C or STOP_WITHIN_S kills them."""
    for worker in running:
        worker.ask_to_stop()
    deadline = time.monotonic() + STOP_WITHIN_S
    with contextlib.suppress(KeyboardInterrupt):
        while running and time.monotonic() < deadline:
            running[:] = [worker for worker in running if not worker.ended()]
            time.sleep(POLL_S)
    for worker in running:
        worker.kill()
        worker.job.status = "stopped"
    running.clear()


@contextlib.contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: Any = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
