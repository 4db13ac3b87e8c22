"""Checkpoints that survive a crash, a full disk and a second look.

RUN/checkpoints/step_XXXXXXXX/ holds model.safetensors and training_state.pt; index.json names the
last and the best one and the SHA-256 of every file. A checkpoint is written into a temporary
folder, flushed, renamed; then the index is replaced; only then are older ones removed.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from fastweights.atomic import sync_folder, write_json
from fastweights.train.errors import CheckpointError

MODEL_FILE = "model.safetensors"
STATE_FILE = "training_state.pt"
TEMPORARY = ".writing_"


class Checkpoint(NamedTuple):
    """step; the model's tensors by name; what else the run needs (see `loop.RunState`)."""

    step: int
    model: dict[str, Tensor]
    training_state: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run folder: the last and the best one are kept."""

    def __init__(self, run_folder: Path) -> None:
        self.folder = Path(run_folder) / "checkpoints"
        self.index_path = self.folder / "index.json"

    def exist(self) -> bool:
        """True once a checkpoint has been written."""
        return self.index_path.exists()

    def index(self) -> dict[str, Any]:
        """{"last", "best": folder name or None, "checksums": {"step_.../file": hex}}.

        Raises CheckpointError if the file is missing, truncated or not an index.
        """
        try:
            index = json.loads(self.index_path.read_text(encoding="utf-8"))
            if not (isinstance(index["last"], str) and isinstance(index["checksums"], dict)):
                raise KeyError("last")
            return {"best": None, **index}
        except FileNotFoundError:
            raise CheckpointError(f"{self.index_path}: there is no checkpoint") from None
        except OSError as error:
            raise CheckpointError(f"{self.index_path}: cannot be read: {error.strerror}") from None
        except (ValueError, KeyError, TypeError):
            raise CheckpointError(f"{self.index_path}: damaged: not a checkpoint index") from None

    def save(
        self,
        step: int,
        model: Mapping[str, Tensor],
        training_state: Mapping[str, Any],
        *,
        best: bool,
    ) -> None:
        """Write the checkpoint of a step, name it last (and best), remove those that are neither.

        Raises CheckpointError (disk full, no permission); the index and every checkpoint that it
        names are then untouched and the temporary folder is gone.
        """
        name = f"step_{step:08d}"
        data = {
            MODEL_FILE: safetensors.torch.save(
                {key: value.detach().cpu().contiguous() for key, value in model.items()}
            ),
            STATE_FILE: _serialized(training_state),
        }
        old: dict[str, Any] = (
            self.index() if self.exist() else {"last": None, "best": None, "checksums": {}}
        )
        try:
            self.folder.mkdir(exist_ok=True)
            self._sweep({old["last"], old["best"]})
            if name not in (old["last"], old["best"]):
                self._write_folder(name, data)
                checksums = {
                    f"{name}/{file}": hashlib.sha256(content).hexdigest()
                    for file, content in data.items()
                }
            else:  # the same step of the same run: the same content
                checksums = {}
            index = {"last": name, "best": name if best else old["best"]}
            kept = {index["last"], index["best"]}
            checksums |= {
                file: digest
                for file, digest in old["checksums"].items()
                if file.split("/")[0] in kept
            }
            write_json(self.index_path, {**index, "checksums": checksums})
            self._sweep(kept)
        except OSError as error:
            intact = f"; {old['last']} is intact" if old["last"] else ""
            raise CheckpointError(
                f"{self.folder / name}: cannot be written: {error.strerror or error}{intact}"
            ) from None

    def load(self, which: Literal["last", "best"]) -> Checkpoint:
        """Read and check a checkpoint, tensors on the CPU.

        Raises CheckpointError naming the file and the reason: none there, a file missing, a
        checksum that differs, content that cannot be read.
        """
        index = self.index()
        name = index[which]
        if name is None:
            raise CheckpointError(f"{self.index_path}: there is no {which} checkpoint yet")
        data = {}
        for file in (MODEL_FILE, STATE_FILE):
            data[file] = self._read(f"{name}/{file}", index["checksums"])
        path = self.folder / name / STATE_FILE
        try:
            model = safetensors.torch.load(data[MODEL_FILE])
        except SafetensorError as error:
            path = self.folder / name / MODEL_FILE
            raise CheckpointError(f"{path}: damaged: {_one_line(error)}") from None
        try:
            state = torch.load(io.BytesIO(data[STATE_FILE]), map_location="cpu", weights_only=True)
        except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
            raise CheckpointError(f"{path}: damaged: {_one_line(error)}") from None
        return Checkpoint(int(name.removeprefix("step_")), model, state)

    def _read(self, name: str, checksums: Mapping[str, str]) -> bytes:
        path = self.folder / name
        try:
            data = path.read_bytes()
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None
        digest = hashlib.sha256(data).hexdigest()
        if checksums.get(name) != digest:
            want = checksums.get(name, "none")
            raise CheckpointError(
                f"{path}: damaged: checksum {digest[:12]} of {len(data)} bytes, "
                f"index.json says {want[:12]}"
            )
        return data

    def _write_folder(self, name: str, data: Mapping[str, bytes]) -> None:
        temporary = Path(tempfile.mkdtemp(dir=self.folder, prefix=TEMPORARY))
        try:
            temporary.chmod(0o755)
            for file, content in data.items():
                _write_file(temporary / file, content)
            sync_folder(temporary)
            os.rename(temporary, self.folder / name)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        sync_folder(self.folder)

    def _sweep(self, kept: set[str | None]) -> None:
        """Remove the folders that no index names: older ones and what a crash left half-way."""
        for folder in self.folder.iterdir():
            if folder.name.startswith(("step_", TEMPORARY)) and folder.name not in kept:
                shutil.rmtree(folder, ignore_errors=True)


def _write_file(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _serialized(state: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    return buffer.getvalue()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
