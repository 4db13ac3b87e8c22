"""Length windows, both ends included, in symbols: what the figures shade and the tables name."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from fastweights.tasks.formal.menu import LANGUAGES


class Windows(NamedTuple):
    """Shortest and longest string of each split."""

    train: tuple[int, int]
    bin0: tuple[int, int]
    bin1: tuple[int, int]


def find_windows(language: str, config: Mapping[str, Any]) -> Windows | None:
    """The windows of a run: from its configuration where the user set them, else the language's
    own in the variant of the run; None for a language that is not on the menu."""
    task = config.get("task")
    if isinstance(task, Mapping) and {"train_window", "test_window"} <= task.keys():
        train, test = task["train_window"], task["test_window"]
    elif language in LANGUAGES:
        variant = task.get("variant") if isinstance(task, Mapping) else None
        train, test = LANGUAGES[language].windows(variant or config.get("protocol", "strict"))
    else:
        return None
    return Windows((train[0], train[1]), (train[0], train[1]), (test[0], test[1]))
