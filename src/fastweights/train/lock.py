"""One process at a time in a run folder or a study folder."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from fastweights.atomic import is_temporary
from fastweights.train.errors import RunFolderError

LOCK_FILE = ".lock"


@contextlib.contextmanager
def locked_folder(folder: Path, what: str) -> Iterator[None]:
    """Make the folder, where it is not there, and hold its lock. The system drops the lock when the
    process ends, however it ends; there is none on Windows and some network disks.

    Raises RunFolderError where another process holds it, whose `what` the message names.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(ImportError):
            import fcntl

            file = stack.enter_context((folder / LOCK_FILE).open("w"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunFolderError(
                    f"{folder}: another fastweights {what} is running here"
                ) from None
            except OSError:
                pass
        yield


def is_unused(folder: Path) -> bool:
    """Is there no such folder, or nothing in it but what a killed process leaves behind?"""
    return not folder.exists() or all(
        entry.name == LOCK_FILE or is_temporary(entry) for entry in folder.iterdir()
    )
