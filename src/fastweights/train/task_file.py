"""What a run learned, in the run folder itself: RUN/task.json, and a copy of the automaton that
the user gave, so that the run can be read where the user's own files are not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fastweights.atomic import write_bytes, write_json
from fastweights.tasks.formal.language import Example
from fastweights.tasks.formal.menu import Task
from fastweights.train.config import DfaTask, FilesTask, RunConfig
from fastweights.train.errors import RunFolderError


class TaskNames(NamedTuple):
    """A task's name, and its symbols and labels in the order of the model's ids."""

    name: str
    symbols: tuple[str, ...]
    labels: tuple[str, ...]


def write_task(config: RunConfig, task: Task, run_folder: Path) -> None:
    """Write task.json, with checksums of the user's own strings, and automaton.* for a task of kind
    dfa, unless they are there.

    Raises RunFolderError where task.json has other symbols or labels than the task: the ids of the
    weights would mean something else; and for other strings in the user's files.
    """
    if (run_folder / "task.json").exists():
        there = read_task(run_folder)
        for kind in ("symbols", "labels"):
            old, new = getattr(there, kind), getattr(task, kind)
            if old != new:
                raise RunFolderError(
                    f"{run_folder / 'task.json'}: the {kind} are {' '.join(old)} there, "
                    f"those of the data are {' '.join(new)}"
                )
        check_files(config, task, run_folder)
        return
    if isinstance(config.task, DfaTask):
        write_bytes(_automaton(config.task, run_folder), config.task.path.read_bytes())
    names = TaskNames(task.name, task.symbols, task.labels)
    checksums = {"checksums": _checksums(task)} if isinstance(config.task, FilesTask) else {}
    write_json(run_folder / "task.json", {**names._asdict(), **checksums})


def check_files(config: RunConfig, task: Task, run_folder: Path) -> None:
    """Raise RunFolderError where the user's files hold other strings than when the run began."""
    if not isinstance(config.task, FilesTask):
        return
    then = json.loads((run_folder / "task.json").read_text(encoding="utf-8")).get("checksums")
    now = _checksums(task)
    if isinstance(then, dict) and then != now:
        changed = [name for name in (*now, *then) if then.get(name) != now.get(name)]
        raise RunFolderError(
            f"{config.task.folder}: the files have changed since the run {run_folder} began: "
            f"{', '.join(dict.fromkeys(changed))}"
        )


def read_task(run_folder: Path) -> TaskNames:
    """The content of task.json. Raises RunFolderError where it is missing or damaged."""
    path = run_folder / "task.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        names = TaskNames(values["name"], tuple(values["symbols"]), tuple(values["labels"]))
    except OSError as error:
        raise RunFolderError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise RunFolderError(f"{path}: damaged: no name, symbols and labels") from None
    if not all(isinstance(text, str) for text in (names.name, *names.symbols, *names.labels)):
        raise RunFolderError(f"{path}: damaged: symbols and labels must be text")
    return names


def own_automaton(config: RunConfig, run_folder: Path) -> RunConfig:
    """The configuration with the run folder's copy of the automaton in the place of the user's."""
    if not isinstance(config.task, DfaTask):
        return config
    task = config.task.model_copy(update={"path": _automaton(config.task, run_folder)})
    return config.model_copy(update={"task": task})


def _checksums(task: Task) -> dict[str, str]:
    """SHA-256 of each split's strings and labels, in their order."""
    return {name: _checksum(examples) for name, examples in task.splits.items()}


def _checksum(examples: Sequence[Example]) -> str:
    digest = hashlib.sha256()
    for example in examples:
        digest.update(f"{' '.join(example.inputs)}\t{' '.join(example.targets)}\n".encode())
    return digest.hexdigest()


def _automaton(task: DfaTask, run_folder: Path) -> Path:
    return run_folder / f"automaton{task.path.suffix}"
