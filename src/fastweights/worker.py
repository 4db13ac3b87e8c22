"""One run of a study in a process of its own.

Where the system can fork, the processes are copies of one that has imported torch and the rest: a
run starts in milliseconds, not in the seconds that the imports take.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import multiprocessing
import os
import runpy
import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

from fastweights.atomic import write_json
from fastweights.experiments.experiment import Cell
from fastweights.train.config import save_config
from fastweights.train.errors import RunFolderError
from fastweights.train.lock import locked_folder

COMMAND = ("-m", "fastweights", "train", "--stop-at-eof", "--resume")
"""What a worker's Python runs, before the run folder."""

IMPORTED = (
    "fastweights.train.loop",
    "fastweights.kernels.cpu.kernel",
    "lightning_fabric",
    "torch._dynamo",  # every torch optimizer imports it
    "torch.utils.tensorboard",
)

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
        return f"{self.cell.task}/{self.cell.model}/seed_{self.cell.seed}"


class Worker:
    """One `fastweights train` in its own process. It ends as on Ctrl-C when its standard input
    does, and so also when this process dies."""

    def __init__(self, job: Job) -> None:
        self.job = job
        config = job.cell.config
        config = config.model_copy(update={"num_threads": config.num_threads or 1})
        job.folder.mkdir(parents=True, exist_ok=True)
        save_config(config, job.folder / "config.yaml")
        self._log = job.folder / "log.txt"
        self._log.touch()
        self._log_start = self._log.stat().st_size
        receiver, self._open = multiprocessing.Pipe(duplex=False)
        with receiver:
            self.process = _context().Process(
                target=_work,
                args=([*COMMAND, str(job.folder)], receiver, self._log, config.num_threads),
            )
            try:
                self.process.start()
            except OSError:
                self._open.close()
                raise
        job.status, job.error = "running", None

    def ended(self) -> bool:
        """True once the process has ended; the job's status then says how."""
        job, status = self.job, self.process.exitcode
        if status is None:
            return False
        self._open.close()
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
        self._open.close()

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.join()
        self._open.close()

    def _last_words(self, status: int) -> str:
        with contextlib.suppress(OSError):
            text = self._log.read_bytes()[self._log_start :]
            lines = text.decode("utf-8", errors="replace").split("\n")
            said = [line.strip() for line in lines if line.strip()]
            if said:
                return said[-1].removeprefix("fastweights: error: ")
        return f"ended with status {status}"


def _context() -> Any:
    methods = multiprocessing.get_all_start_methods()
    if "forkserver" not in methods:
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(IMPORTED))
    return context


def _work(arguments: list[str], held: Connection, log: Path, num_threads: int) -> None:
    """What `python ARGUMENTS` does, in this process: output into the log, standard input ends when
    the other end of `held` is closed, Ctrl-C in the terminal does not reach it."""
    if hasattr(os, "setsid"):
        os.setsid()
    with log.open("ab") as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    os.dup2(held.fileno(), 0)
    held.close()
    sys.stdin = os.fdopen(0, closefd=False)  # multiprocessing has put another there
    os.environ.update(OMP_NUM_THREADS=str(num_threads), MKL_NUM_THREADS=str(num_threads))
    first, *rest = arguments
    if first == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        runpy.run_path(first, run_name="__main__")


def stored_error(folder: Path) -> str:
    """What failure.json says, in one line."""
    try:
        return str(json.loads((folder / "failure.json").read_text(encoding="utf-8"))["error"])
    except (OSError, ValueError, KeyError, TypeError):
        return "failure.json cannot be read"
