"""What was measured, as one JSON file that grows unit by unit."""

import importlib.metadata
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from benchmarks.shapes import Shape
from fastweights.atomic import write_text
from fastweights.train.environment import environment

FILE = "measurements.json"
PACKAGES = ("numba", "llvmlite", "flash-linear-attention", "transformers")


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Row(_Record):
    """One contender. What has no figure has a reason, by pass (or "memory")."""

    name: str
    ms: dict[str, tuple[float | None, ...]] = {}  # by pass; None for a round without it
    peak_mib: float | None = None
    output_error: float | None = None  # largest difference from ours over the largest entry
    gradient_error: float | None = None
    left_out: dict[str, str] = {}


class Unit(_Record):
    """What is measured at one go: a shape (or a language) with some threads, or its memory."""

    id: str
    question: str
    kind: Literal["time", "memory"]
    shape: Shape | None
    language: str | None = None
    threads: int
    rows: tuple[Row, ...] = ()
    wall_s: float = 0.0

    def row(self, name: str) -> Row | None:
        """The contender of that name."""
        return next((row for row in self.rows if row.name == name), None)


class Settings(_Record):
    """What must be equal in a file: times of different settings are not comparable."""

    rounds: int
    turn_s: float  # how long a contender is called in a round
    quick: bool


class Measurements(_Record):
    """The file."""

    settings: Settings
    environment: dict[str, Any]
    units: tuple[Unit, ...] = ()

    def unit(self, id: str) -> Unit | None:
        """The unit of that name."""
        return next((unit for unit in self.units if unit.id == id), None)

    def of(self, question: str, kind: str | None = None) -> list[Unit]:
        """The units of a question, in order; kind "time" or "memory", None for both."""
        return [u for u in self.units if u.question == question and kind in (None, u.kind)]

    def memory_of(self, timed: Unit) -> Unit | None:
        """The memory of the same shape."""
        found = self.of(timed.question, "memory")
        return next((unit for unit in found if unit.shape == timed.shape), None)


def begin(settings: Settings) -> Measurements:
    """Nothing measured yet, on this machine at this commit."""
    here = environment(torch.device("cpu"), torch.get_num_threads())
    del here["device"], here["num_threads"]  # the CPU; threads vary by unit
    for package in PACKAGES:
        try:
            here["versions"][package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            here["versions"][package] = "not installed"
    here["memory_gib"] = _memory_gib()
    here["vectors"] = torch.backends.cpu.get_cpu_capability()
    return Measurements(settings=settings, environment=here)


def load(path: Path) -> Measurements:
    """Raises ValueError, in one line, for a file that is none of ours."""
    try:
        return Measurements.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else None
        place = ".".join(str(part) for part in first["loc"]) if first else ""
        what = f"{place}: {first['msg']}" if first and place else "not JSON"
        raise ValueError(f"{path}: damaged: {what} (--fresh starts over)") from None


def save(path: Path, measured: Measurements) -> None:
    """The old file or the new one, never half of it; one line a contender."""
    data = measured.model_dump(mode="json", exclude_defaults=True)
    units = data.pop("units", [])
    lines = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in data.items()]
    lines.append(' "units": [' + ",".join(_unit_lines(unit) for unit in units) + "\n ]")
    write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")


def check_same(old: Measurements, now: Measurements, path: Path) -> None:
    """Raises ValueError, in one line, where a run cannot go on: other settings, another machine,
    other versions, another commit."""
    found = {
        "settings": (old.settings.model_dump(), now.settings.model_dump()),
        **{
            key: (old.environment.get(key), now.environment[key])
            for key in ("device_name", "versions", "commit")
        },
    }
    for what, (before, after) in found.items():
        if before != after:
            raise ValueError(
                f"{path}: was measured with {what} {_short(before, after)}, now it is "
                f"{_short(after, before)}: --fresh starts over, --out measures elsewhere"
            )


def with_unit(measured: Measurements, unit: Unit, order: Sequence[str]) -> Measurements:
    """With a further unit, or one replaced, in the order of the names."""
    units = [*(old for old in measured.units if old.id != unit.id), unit]
    places = {id: place for place, id in enumerate(order)}
    units.sort(key=lambda each: places.get(each.id, len(places)))
    return measured.model_copy(update={"units": tuple(units)})


def _unit_lines(unit: dict[str, Any]) -> str:
    rows = unit.pop("rows", [])
    head = json.dumps(unit)[:-1]
    return f'\n  {head}, "rows": [' + ",".join(f"\n   {json.dumps(row)}" for row in rows) + "]}"


def _short(value: Any, other: Any) -> str:
    """Only what differs."""
    if isinstance(value, dict) and isinstance(other, dict):
        different = [key for key in value if value[key] != other.get(key)]
        return ", ".join(f"{key} {value[key]}" for key in different) or "less"
    return str(value)[:60]


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, OSError, ValueError):
        return None
