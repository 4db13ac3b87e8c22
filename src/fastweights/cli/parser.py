"""An argument parser with one-line errors, near names on a typo, and options made when needed."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from fastweights.near_names import near_names


class Parser(argparse.ArgumentParser):
    """Reports `fastweights: error: ...` with exit status 2.

    `fill(parser)` adds the options; it is called when this parser is first used, so that the help
    of one command imports nothing for another.
    """

    def __init__(
        self, *args: Any, fill: Callable[[Parser], None] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})
        self._fill = fill

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """As argparse, but an unknown option is an error here, where its near names are known."""
        fill, self._fill = self._fill, None
        if fill is not None:
            fill(self)
        parsed, extras = super().parse_known_args(args, namespace)
        if extras:
            self.error(self._unknown(extras))
        return parsed, extras

    def error(self, message: str) -> NoReturn:
        """One line on stderr, exit status 2."""
        self.exit(2, f"fastweights: error: {' '.join(message.split())}\n")

    def _unknown(self, extras: Sequence[str]) -> str:
        option = next((extra for extra in extras if extra.startswith("-")), None)
        if option is None:
            return f"too many arguments: {' '.join(extras)}"
        name = option.split("=")[0]
        group, dot, last = name.lstrip("-").rpartition(".")
        flags = [flag[2:].rpartition(".") for flag in self._option_string_actions if flag[2:]]
        near = near_names(
            last, [known for its_group, _, known in flags if its_group == group], False
        )
        full_names = re.sub(r"'([^']+)'", rf"--{group}{dot}\1", near)
        return f"unknown option {name}{full_names}"

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            what = "command" if action.dest == "command" else action.metavar or action.dest
            raise argparse.ArgumentError(
                None, f"unknown {what} {value!r}{near_names(str(value), list(action.choices))}"
            )


def path(given: str) -> Path:
    """A type for add_argument: not empty, which `Path` takes for the working folder."""
    if not given:
        raise argparse.ArgumentTypeError("must not be empty")
    return Path(given)


def name_in(what: str, known: Iterable[str]) -> Callable[[str], str]:
    """A type for add_argument: one of the names, with `-` or `_`; else an error with near names."""
    names = list(known)

    def check(given: str) -> str:
        name = given.replace("-", "_").lower()
        if name not in names:
            raise argparse.ArgumentTypeError(f"unknown {what} {given!r}{near_names(name, names)}")
        return name

    return check
