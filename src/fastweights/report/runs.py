"""Run folders, read for a report: config, environment, metrics, and result or failure.

A run that failed, is not finished or left nothing is a `Run` too, with the reason in `error`.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fastweights.experiments.retrieval import REPEATED, UNIQUE
from fastweights.report.retrieval.memory import memory_key

Status = Literal["done", "failed", "unfinished", "empty", "unreadable", "not started"]
_RUN_FILES = ("config.yaml", "metrics.jsonl", "result.json", "failure.json")


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class SplitScores(_Record):
    """Scores on one split, those that the task has; accuracies 0 to 1."""

    sequence_accuracy: float | None = Field(default=None, ge=0, le=1)
    token_accuracy: float | None = None
    nats_per_token: float | None = None
    bits_per_byte: float | None = None
    bits_per_character: float | None = None
    perplexity: float | None = None
    num_sequences: int | None = None
    squared_error: float | None = None
    accuracy: float | None = Field(default=None, ge=0, le=1)
    num_queries: int | None = None


def _check_same_number(lengths: Sequence[int], accuracies: Sequence[float]) -> None:
    """Raises ValueError where a length has no accuracy, or an accuracy no length."""
    if len(lengths) != len(accuracies):
        raise ValueError(f"{len(lengths)} lengths but {len(accuracies)} accuracies")


class Horizon(_Record):
    """Sequence accuracy (0 to 1) at exact lengths; at least `threshold` up to `longest_length`."""

    lengths: list[int]
    sequence_accuracy: list[float]
    num_sequences: list[int] | None = None
    threshold: float = 0.99
    longest_length: int | None = None

    @model_validator(mode="after")
    def _same_number(self) -> "Horizon":
        _check_same_number(self.lengths, self.sequence_accuracy)
        return self


class ByLength(_Record):
    """Accuracy (0 to 1) over the queries of sequences of a length."""

    lengths: list[int]
    accuracy: list[float]

    @model_validator(mode="after")
    def _same_number(self) -> "ByLength":
        _check_same_number(self.lengths, self.accuracy)
        return self


class ByPosition(_Record):
    """Loss on a text by position in windows of it: mean and standard error over the windows of each
    bucket of positions, which ends with `last_position` (counted from 1)."""

    context_length: int
    window_length: int
    num_windows: int
    last_position: list[int] = Field(min_length=1)
    nats_per_token: list[float | None]
    standard_error: list[float | None]

    @model_validator(mode="after")
    def _same_number(self) -> "ByPosition":
        counts = [len(x) for x in (self.last_position, self.nats_per_token, self.standard_error)]
        if len(set(counts)) > 1:
            raise ValueError(f"positions, losses and errors are {counts} of them")
        return self


class Reading(_Record):
    """How the texts of a language model were read."""

    window: str
    context_length: int


class Result(_Record):
    """What result.json says."""

    status: str
    stopped_because: str | None = None
    selected_step: int | None = None
    steps: int | None = None
    wall_s: float | None = None
    cpu_s: float | None = None
    num_parameters: int | None = None
    protocol: str | None = None
    selection: str | None = None
    splits: dict[str, SplitScores] = {}
    horizon: Horizon | None = None
    by_length: ByLength | None = None
    by_position: ByPosition | None = None
    reading: Reading | None = None


class ExpertUsage(_Record):
    """What experts.json says of one layer: `load`, each expert's share of all choices; `together`,
    the share of the tokens that chose both of two experts; `entropy`, that of the load as a share
    of the largest."""

    load: list[float]
    together: list[list[float]]
    entropy: float
    num_dead: int


@dataclass(frozen=True)
class Run:
    """One run folder. `path` is relative to the folder of the report (`.` for a single run);
    `task` and `model` are the names of its place in a study."""

    path: str
    task: str
    model: str
    seed: int | None
    status: Status
    error: str | None
    config: Mapping[str, Any]
    environment: Mapping[str, Any]
    metrics: tuple[Mapping[str, Any], ...]
    result: Result | None
    experts: Mapping[str, ExpertUsage] = field(default_factory=dict)
    """By layer, of a model with experts."""

    def accuracy(self, split: str) -> float | None:
        """Final sequence accuracy (0 to 1) on a split, None where the run has none."""
        scores = self.result.splits.get(split) if self.result else None
        return None if scores is None else scores.sequence_accuracy

    def by_length(self) -> dict[int, float]:
        """Of a recall run: length -> accuracy over its queries (0 to 1)."""
        measured = self.result.by_length if self.result else None
        if measured is None:
            return {}
        return dict(zip(measured.lengths, measured.accuracy, strict=True))

    def curve(self, split: str, score: str = "sequence_accuracy") -> tuple[list[int], list[float]]:
        """Steps and finite scores of a split during training, in step order."""
        points = {
            line["step"]: float(line[score])
            for line in self.metrics
            if line.get("split") == split
            and isinstance(line.get("step"), int)
            and isinstance(line.get(score), int | float)
            and math.isfinite(line[score])
        }
        steps = sorted(points)
        return steps, [points[step] for step in steps]


def read_runs(folder: Path) -> list[Run]:
    """Every run of a study folder (`<task>/<model>/seed_<n>`), or the one run that `folder` is.

    Cells that study.yaml names but that have no folder are runs with status `not started`.
    Raises ValueError, in one line, where there is no folder or it holds no run.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    if any((folder / name).is_file() for name in _RUN_FILES):
        return [_read_single_run(folder)]
    runs = {}
    for place in sorted(folder.glob("*/*/seed_*")):
        seed = re.fullmatch(r"seed_(\d+)", place.name)
        if seed and place.is_dir():
            path = place.relative_to(folder).as_posix()
            task, model, _ = path.split("/")
            runs[path] = _read_run(place, path, task, model, int(seed[1]))
    for task, model, number in _planned(folder / "study.yaml"):
        path = f"{task}/{model}/seed_{number}"
        if path not in runs:
            error = "named in study.yaml, no run folder"
            runs[path] = Run(path, task, model, number, "not started", error, {}, {}, (), None)
    if not runs:
        raise ValueError(f"{folder}: no runs (neither a run folder nor <task>/<model>/seed_<n>)")
    return sorted(runs.values(), key=lambda run: (run.task, run.model, run.seed or 0))


def _read_single_run(folder: Path) -> Run:
    """Names come from the place inside a study where there is one, else from config.yaml."""
    folder = folder.resolve()
    seed = re.fullmatch(r"seed_(\d+)", folder.name)
    model, task = folder.parent.name, folder.parent.parent.name
    config, _ = _read_mapping(folder / "config.yaml")
    own_task = _task_key(config.get("task"))
    if seed and task == own_task:
        return _read_run(folder, ".", task, model, int(seed[1]))
    settings = config.get("model")
    own_model = _model_key(settings) if isinstance(settings, dict) else None
    number = config.get("seed")
    return _read_run(
        folder,
        ".",
        own_task,
        str(own_model or "unknown model"),
        number if isinstance(number, int) else None,
    )


def _task_key(task: Any) -> str:
    """The menu's key; for a language of the user, its kind and its pattern, file or folder."""
    if not isinstance(task, dict):
        return "unknown language"
    if "language" in task:
        return str(task["language"])
    if "vocab_size" in task:
        filler = "_random" if task.get("random_filler") else ""
        rewritten = "_rewritten" if task.get("writes_per_key", 1) > 1 else ""
        return f"recall_{task['vocab_size']}{filler}{rewritten}"
    if "text" in task:
        return Path(str(task["text"])).name
    if "num_keys" in task:
        return f"{REPEATED if task.get('replacement') else UNIQUE}_{task['num_keys']}"
    place = task.get("path") or task.get("folder")
    source = Path(str(place)).name if place else task.get("pattern")
    return " ".join(str(part) for part in (task.get("kind"), source) if part) or "unknown language"


def _model_key(settings: Mapping[str, Any]) -> str | None:
    """The memory's name, or the layer's, with the feed-forward layer where it is not dense;
    `delta_net_0_2` for a DeltaNet whose write strength reaches 2."""
    if "rule" in settings:
        return memory_key(settings)
    feed_forward = settings.get("feed_forward", "dense")
    if feed_forward != "dense":
        return f"{settings.get('layer')} {feed_forward}"
    layer, options = settings.get("layer"), settings.get("layer_options")
    strength = options.get("max_write_strength") if isinstance(options, dict) else None
    return "delta_net_0_2" if layer == "delta_net" and strength == 2 else layer


def _read_run(place: Path, path: str, task: str, model: str, seed: int | None) -> Run:
    config, config_error = _read_mapping(place / "config.yaml")
    environment, _ = _read_mapping(place / "environment.json")
    metrics = _read_metrics(place / "metrics.jsonl")
    status, error, result = _read_outcome(place, metrics)
    experts, experts_error = _read_experts(place / "experts.json")
    if config_error and status == "done":
        status, error = "unreadable", config_error
    if experts_error and status == "done":
        status, error = "unreadable", experts_error
    return Run(
        path, task, model, seed, status, error, config, environment, metrics, result, experts
    )


def _read_outcome(
    place: Path, metrics: tuple[Mapping[str, Any], ...]
) -> tuple[Status, str | None, Result | None]:
    """result.json wins over failure.json: it is written last, by a run that was taken up again."""
    if (place / "result.json").is_file():
        content, error = _read_mapping(place / "result.json")
        if error:
            return "unreadable", error, None
        try:
            result = Result.model_validate(content)
        except ValidationError as problem:
            return "unreadable", _fault("result.json", problem), None
        if result.status == "done":
            return "done", None, result
        return "unfinished", _one_line(f"result.json says status {result.status!r}"), None
    if (place / "failure.json").is_file():
        content, error = _read_mapping(place / "failure.json")
        return "failed", error or _one_line(str(content.get("error", "no reason given"))), None
    if not any(entry for entry in place.iterdir()):
        return "empty", "empty run folder", None
    steps = [line["step"] for line in metrics if isinstance(line.get("step"), int)]
    reached = f"last metrics at step {max(steps)}" if steps else "no metrics"
    return "unfinished", f"no result.json ({reached})", None


def _read_experts(path: Path) -> tuple[dict[str, ExpertUsage], str | None]:
    content, error = _read_mapping(path)
    try:
        return {name: ExpertUsage.model_validate(each) for name, each in content.items()}, error
    except ValidationError as problem:
        return {}, _fault(path.name, problem)


def _fault(file: str, problem: ValidationError) -> str:
    """The first thing that is wrong with a file, in one line."""
    first = problem.errors()[0]
    where = ".".join(map(str, first["loc"]))
    return _one_line(f"{file}: {where}: {first['msg']}")


def _read_metrics(path: Path) -> tuple[Mapping[str, Any], ...]:
    """The lines that are JSON objects; a line cut short by an interrupted run is passed over."""
    if not path.is_file():
        return ()
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict):
            lines.append(line)
    return tuple(lines)


def _read_mapping(path: Path) -> tuple[dict[str, Any], str | None]:
    """A YAML or JSON mapping and None, or an empty one and the reason in one line. A missing file
    is an empty mapping."""
    if not path.is_file():
        return {}, None
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as problem:
        return {}, _one_line(f"{path.name}: {problem}")
    if not isinstance(content, dict):
        return {}, f"{path.name}: a mapping is expected, got {type(content).__name__}"
    return content, None


def _planned(path: Path) -> list[tuple[str, str, int]]:
    """The cells of study.yaml: mappings with task, model and seed, under `cells`."""
    if not path.is_file():
        return []
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as problem:
        raise ValueError(_one_line(f"{path}: {problem}")) from None
    cells = content.get("cells") if isinstance(content, dict) else None
    if not isinstance(cells, list):
        raise ValueError(f"{path}: is damaged: no list of cells")
    planned = []
    for cell in cells:
        try:
            planned.append((str(cell["task"]), str(cell["model"]), int(cell["seed"])))
        except (KeyError, TypeError, ValueError):
            raise ValueError(
                f"{path}: a cell needs task, model and seed, got {_one_line(str(cell))}"
            ) from None
    return planned


def _one_line(text: str) -> str:
    return " ".join(text.split()) or "no reason given"
