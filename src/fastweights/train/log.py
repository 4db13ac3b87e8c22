"""RUN/metrics.jsonl and RUN/failure.json."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from fastweights.atomic import write_json, write_text
from fastweights.train.errors import RunFolderError


class Metrics:
    """RUN/metrics.jsonl, one JSON object a line, and the same numbers for TensorBoard.

    Opened with `resume_step`, it first removes what was logged after that step.
    """

    def __init__(self, run_folder: Path, resume_step: int | None = None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.path = Path(run_folder) / "metrics.jsonl"
        if resume_step is not None and self.path.exists():
            cut_after(self.path, resume_step)
        purge_step = None if resume_step is None else resume_step + 1
        folder = Path(run_folder) / "tensorboard"
        try:
            self._tensorboard = SummaryWriter(str(folder), purge_step=purge_step)
            self._file = self.path.open("a", encoding="utf-8")
        except OSError as error:
            raise self._cannot_write(error) from None

    def write(self, *, step: int, split: str, **values: float | None) -> None:
        """One line. Raises RunFolderError when it cannot be written (disk full)."""
        line = json.dumps({"step": step, "split": split, **values}, allow_nan=False)
        try:
            self._file.write(line + "\n")
            self._file.flush()
            for name, value in values.items():
                if name not in ("epoch", "wall_s") and value is not None:
                    self._tensorboard.add_scalar(f"{name}/{split}", value, step)
        except OSError as error:
            raise self._cannot_write(error) from None

    def sync(self) -> None:
        """Flush the lines to the disk, before the checkpoint that relies on them.

        Raises RunFolderError when they cannot be written (disk full).
        """
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._cannot_write(error) from None

    def close(self) -> None:
        """Close both files, the second also where the first cannot be; again: nothing happens.

        Raises RunFolderError for what could not be written (disk full).
        """
        try:
            with contextlib.closing(self._tensorboard):
                self._file.close()
        except OSError as error:
            raise self._cannot_write(error) from None

    def _cannot_write(self, error: OSError) -> RunFolderError:
        reason = error.strerror or error
        return RunFolderError(f"{self.path.parent}: metrics cannot be written: {reason}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except RunFolderError:
            if error is None:  # else that one is told
                raise


class NoMetrics:
    """In the place of `Metrics` where another process writes."""

    def write(self, **values: object) -> None:
        """Nothing."""

    def sync(self) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def cut_after(path: Path, step: int) -> None:
    """Remove the lines after a step, and a last line that a crash left unfinished.

    Raises RunFolderError for any other line that is not a JSON object with a step.
    """
    kept = []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            at = json.loads(line)["step"]
        except (ValueError, KeyError, TypeError):
            if number == len(lines):
                continue
            raise RunFolderError(f"{path}: line {number}: not a metrics line") from None
        if at <= step:
            kept.append(line + "\n")
    write_text(path, "".join(kept))


def write_failure(run_folder: Path, error: BaseException) -> None:
    """RUN/failure.json: the error in one line. Nothing is raised if the disk refuses it, too."""
    message = " ".join(str(error).split()) or type(error).__name__
    with contextlib.suppress(OSError):
        write_json(Path(run_folder) / "failure.json", {"error": message})
