"""What a mistyped name was meant to be."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable

MOST_LISTED = 40
"""Names in one line; more are left to `fastweights list`."""


def near_names(
    name: str, known: Iterable[str], otherwise_all: bool = True, shown: Callable[[str], str] = repr
) -> str:
    """`; did you mean 'lr'?`, or all the known names when none is near (or nothing).

    Near: similar (difflib's ratio >= 0.6), else with the same first three letters.
    """
    names = list(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    near = near or [other for other in names if other.startswith(name[:3]) and len(name) > 2]
    if near:
        return f"; did you mean {' or '.join(map(shown, near))}?"
    if not otherwise_all or not names:
        return ""
    if len(names) > MOST_LISTED:
        return f"; `fastweights list` has the {len(names)} that are known"
    return f"; known: {', '.join(names)}"


def check_name(name: str, known: Iterable[str], what: str) -> None:
    """Raise ValueError with the near names, or all of them, if `name` is not one of the known."""
    names = list(known)
    if name not in names:
        raise ValueError(f"unknown {what} {name!r}{near_names(str(name), names, shown=str)}")
