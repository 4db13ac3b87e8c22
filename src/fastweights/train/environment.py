"""Where and with what a run was computed: RUN/environment.json."""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

import fastweights
from fastweights.atomic import write_json
from fastweights.train.config import ConfigError, Device
from fastweights.train.errors import RunFolderError
from fastweights.train.processes import local_rank

VERSIONED = (
    "fastweights",
    "torch",
    "numba",
    "lightning-fabric",
    "safetensors",
    "numpy",
    "automata-lib",
)


def write_environment(
    run_folder: Path, device: torch.device, num_threads: int, resume_step: int | None
) -> None:
    """RUN/environment.json; a resumed run adds an entry to its list `resumed`."""
    path = Path(run_folder) / "environment.json"
    now = environment(device, num_threads)
    if resume_step is not None and path.exists():
        try:
            first = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            raise RunFolderError(f"{path}: damaged: not JSON") from None
        now = {**first, "resumed": [*first.get("resumed", []), {"step": resume_step, **now}]}
    write_json(path, now)


def find_device(name: Device) -> torch.device:
    """Where to compute; auto: cuda where there is a GPU, else cpu; a GPU for each process that
    torchrun starts on this machine. Raises ConfigError for a CUDA device that is not here."""
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise ConfigError(["device: 'cuda' was asked for, but there is no CUDA device here"])
    if name == "cpu" or not available:
        return torch.device("cpu")
    number, there = local_rank(), torch.cuda.device_count()
    if number >= there:
        raise ConfigError(
            [f"device: process {number} of this machine has no CUDA device, there are {there}"]
        )
    return torch.device("cuda", number)


def environment(device: torch.device, num_threads: int) -> dict[str, Any]:
    """Versions, device, commit, whether it was dirty, number of CPU threads, time (UTC)."""
    versions = {"python": platform.python_version()}
    for name in VERSIONED:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    commit, dirty = commit_and_dirty()
    return {
        "versions": versions,
        "platform": f"{platform.system()} {platform.machine()}",
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
        "num_threads": num_threads,
        "commit": commit,
        "dirty": dirty,
        "started_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def cpu_name() -> str:
    """The processor's name and its number of cores, as far as the system tells."""
    name = platform.processor()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    return f"{name or platform.machine()}, {os.cpu_count()} cores"


def commit_and_dirty() -> tuple[str | None, bool | None]:
    """HEAD of the checkout that tracks this package, else of the working folder's; (None, None)
    outside any checkout and before its first commit."""
    package = Path(fastweights.__file__)
    tracked = _git(package.parent, "ls-files", "--error-unmatch", package.name) is not None
    folder = package.parent if tracked else Path.cwd()
    commit = _git(folder, "rev-parse", "--verify", "HEAD")
    if commit is None:
        return None, None
    return commit, bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
