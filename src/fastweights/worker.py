"""One run of a study in a process of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO, Literal

from fastweights.atomic import write_json
from fastweights.experiments.formal_languages import Cell
from fastweights.train.config import save_config
from fastweights.train.errors import RunFolderError
from fastweights.train.lock import locked_folder

COMMAND = ("-m", "fastweights", "train", "--stop-at-eof", "--resume")
"""What a worker's Python runs, before the run folder."""

Status = Literal["new", "stopped", "running", "done", "failed"]


@dataclasses.dataclass
class Job:
    """A cell, its run folder, and how far it is; `error` is one line where it failed."""

    cell: Cell
    folder: Path
    status: Status
    error: str | None = None

    @property
    def name(self) -> str:
        """`parity/delta_net/seed_1`."""
        return f"{self.cell.language}/{self.cell.model}/seed_{self.cell.seed}"


class Worker:
    """One `fastweights train` in its own process. It ends as on Ctrl-C when its standard input
    does, and so also when this process dies."""

    def __init__(self, job: Job) -> None:
        self.job = job
        config = job.cell.config
        config = config.model_copy(update={"num_threads": config.num_threads or 1})
        job.folder.mkdir(parents=True, exist_ok=True)
        save_config(config, job.folder / "config.yaml")
        threads = str(config.num_threads)
        self.log: IO[bytes] = (job.folder / "log.txt").open("ab")
        self._log_start = self.log.tell()
        try:
            self.process = subprocess.Popen(
                [sys.executable, *COMMAND, str(job.folder)],
                stdin=subprocess.PIPE,
                stdout=self.log,
                stderr=subprocess.STDOUT,
                env={
                    **os.environ,
                    "OMP_NUM_THREADS": threads,
                    "MKL_NUM_THREADS": threads,
                    "PYTHONUNBUFFERED": "1",
                },
                start_new_session=True,  # Ctrl-C in the terminal reaches this process alone
            )
        except OSError:
            self.log.close()
            raise
        job.status, job.error = "running", None

    def ended(self) -> bool:
        """True once the process has ended; the job's status then says how."""
        if self.process.poll() is None:
            return False
        self._close()
        job, status = self.job, self.process.returncode
        if status == 0 and (job.folder / "result.json").is_file():
            job.status = "done"
        elif status == 130:
            job.status, job.error = "stopped", "stopped from outside; the same command goes on"
        elif status < 0:
            name = signal.Signals(-status).name if -status in list(signal.Signals) else str(-status)
            job.status, job.error = "failed", f"killed by {name}; the same command goes on"
        else:
            job.status = "failed"
            if (job.folder / "failure.json").is_file():
                job.error = stored_error(job.folder)
            else:
                job.error = self._last_words(status)
                # Not where a worker of a study that was killed still holds the run: it can go on.
                with (
                    contextlib.suppress(OSError, RunFolderError),
                    locked_folder(job.folder, "training"),
                ):
                    write_json(job.folder / "failure.json", {"error": job.error})
        return True

    def ask_to_stop(self) -> None:
        """The worker writes its checkpoint and ends."""
        if self.process.stdin is not None:
            with contextlib.suppress(OSError):
                self.process.stdin.close()

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait()
        self._close()

    def _close(self) -> None:
        self.ask_to_stop()
        self.log.close()

    def _last_words(self, status: int) -> str:
        with contextlib.suppress(OSError):
            text = (self.job.folder / "log.txt").read_bytes()[self._log_start :]
            lines = text.decode("utf-8", errors="replace").split("\n")
            said = [line.strip() for line in lines if line.strip()]
            if said:
                return said[-1].removeprefix("fastweights: error: ")
        return f"ended with status {status}"


def stored_error(folder: Path) -> str:
    """What failure.json says, in one line."""
    try:
        return str(json.loads((folder / "failure.json").read_text(encoding="utf-8"))["error"])
    except (OSError, ValueError, KeyError, TypeError):
        return "failure.json cannot be read"
