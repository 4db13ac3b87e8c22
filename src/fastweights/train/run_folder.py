"""May a run begin, or go on, in this folder?"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from fastweights.train.checkpoint import Checkpoint, Checkpoints
from fastweights.train.config import RunConfig, differences, load_config, parse_config
from fastweights.train.errors import CheckpointError, RunFolderError
from fastweights.train.lock import is_unused
from fastweights.train.run_model import spelled_out

MAY_DIFFER = ("device", "strategy", "num_threads")
"""What a resumed run may change: where it computes, not what."""


def check_folder(run_folder: Path, resume: bool) -> None:
    """Raise RunFolderError unless the folder is new (or empty), or holds a run to resume."""
    if run_folder.exists() and not run_folder.is_dir():
        raise RunFolderError(f"{run_folder}: is not a folder")
    if not resume and not is_unused(run_folder):
        raise RunFolderError(f"{run_folder}: is not empty; resume the run or name another folder")
    if resume and not (run_folder / "config.yaml").exists():
        raise RunFolderError(f"{run_folder}: no run to resume (no config.yaml)")


def finished_result(config: RunConfig, run_folder: Path) -> dict[str, Any]:
    """The content of result.json. Raises CheckpointError if it is of another configuration."""
    _check_same(config, load_config(run_folder / "config.yaml"), run_folder)
    path = run_folder / "result.json"
    try:
        result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise RunFolderError(f"{path}: damaged: not JSON") from None
    return result


def last_checkpoint(config: RunConfig, run_folder: Path) -> Checkpoint | None:
    """The checkpoint to go on from; None, said aloud, for a run stopped before its first."""
    checkpoints = Checkpoints(run_folder)
    if not checkpoints.exist():
        if any(checkpoints.folder.glob("step_*")):
            raise CheckpointError(f"{checkpoints.index_path}: missing beside its checkpoints")
        _check_same(config, load_config(run_folder / "config.yaml"), run_folder)
        print(f"{run_folder}: no checkpoint yet, starting at step 0", file=sys.stderr)
        return None
    last = checkpoints.load("last")
    name = checkpoints.folder / f"step_{last.step:08d}"
    _check_same(config, parse_config(json.loads(last.training_state["config"])), name)
    return last


def different(stored: RunConfig, asked: RunConfig) -> list[tuple[str, Any, Any]]:
    """`differences` that matter. What a stored configuration does not say, as older ones do not
    know every field, is the default."""
    there = spelled_out(stored).model_dump(mode="json")
    found = differences(there, asked.model_dump(mode="json"))
    return [entry for entry in found if entry[0] not in MAY_DIFFER]


def _check_same(config: RunConfig, stored: RunConfig, where: Path) -> None:
    for key, old, new in different(stored, config):
        raise CheckpointError(
            f"{where}: belongs to another configuration: {key} is {old!r} there, "
            f"{new!r} was asked for"
        )
