"""The menu of languages, and the task that a configuration describes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastweights.near_names import check_name
from fastweights.tasks.formal.counter import Counter2, Counter3
from fastweights.tasks.formal.dyck import Dyck1, Shuffle2
from fastweights.tasks.formal.files import read_folder
from fastweights.tasks.formal.language import Example, FormalLanguage
from fastweights.tasks.formal.regular import AAStar, ABABStar, Parity
from fastweights.tasks.formal.reset_dyck import ResetDyck1
from fastweights.tasks.formal.splits import make_splits

LANGUAGES: dict[str, FormalLanguage] = {
    "parity": Parity(),
    "aa_star": AAStar(),
    "abab_star": ABABStar(),
    "counter_2": Counter2(),
    "counter_3": Counter3(),
    "shuffle_2": Shuffle2(),
    "dyck_1": Dyck1(),
    "reset_dyck_1": ResetDyck1(),
}

SAMPLING_KEYS = (
    "train_window",
    "test_window",
    "num_train",
    "num_validation",
    "num_bin0",
    "num_bin1",
)
TASK_KEYS: dict[str, tuple[str, ...]] = {
    "formal_language": ("language", "variant"),
    "regex": ("pattern", "symbols", *SAMPLING_KEYS),
    "dfa": ("path", *SAMPLING_KEYS),
    "files": ("folder", "variant"),
}


@dataclass(frozen=True)
class Task:
    """What a model learns: the alphabets, in id order, and the sets that exist, by name.

    `splits` has `train` and, where they exist, `validation`, `bin0`, `bin1`. `language` is None
    for a task given by files.
    """

    name: str
    symbols: tuple[str, ...]
    labels: tuple[str, ...]
    splits: dict[str, list[Example]]
    language: FormalLanguage | None


def load_task(task: Mapping[str, Any], seed: int) -> Task:
    """The task that `task` describes: its `kind` and the keys of `TASK_KEYS`; None = left out.

    kind `formal_language` (the default): language, variant; `regex`: pattern, symbols; `dfa`:
    path; `files`: folder, variant. The variant is `strict` unless given; the regex and dfa kinds
    have only that one. Raises ValueError, one line, near names included.
    """
    options = {key: value for key, value in task.items() if value is not None}
    kind = options.pop("kind", "formal_language")
    check_name(kind, TASK_KEYS, "task kind")
    for key in options:
        check_name(key, TASK_KEYS[kind], f"key of task kind {kind}:")
    required = TASK_KEYS[kind][0]
    if required not in options:
        raise ValueError(f"task kind {kind} needs the key {required!r}")
    subject = options.pop(required)
    if kind == "files":
        folder = Path(subject)
        data = read_folder(folder, options.get("variant", "strict"), seed)
        name = folder.resolve().name
        return Task(name, data.symbols, data.labels, data.splits.non_empty(), None)
    language = load_language({"kind": kind, required: subject, **options})
    splits = make_splits(language, options.get("variant", "strict"), seed)
    return Task(language.name, language.symbols, language.labels, splits.non_empty(), language)


def load_language(task: Mapping[str, Any]) -> FormalLanguage:
    """The language of a task of kind formal_language, regex or dfa (see `load_task`), no sets."""
    options = {key: value for key, value in task.items() if value is not None}
    kind = options.pop("kind", "formal_language")
    if kind == "formal_language":
        return find_language(options["language"])
    from fastweights.tasks.formal.automaton import dfa_language, regex_language

    if kind == "regex":
        return regex_language(**options)
    if kind == "dfa":
        return dfa_language(**options)
    raise ValueError(f"task kind {kind!r} has no language")


def find_language(name: str) -> FormalLanguage:
    """The language of the menu with that name. Raises ValueError with the near names."""
    check_name(name, LANGUAGES, "language")
    return LANGUAGES[name]
