"""Text typed by the user to values, and `name=value` pairs to nested mappings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fastweights.near_names import near_names


def parse_value(text: str) -> Any:
    """A number, true, false, null or other JSON; a list for `50,100`; else the text itself."""
    for candidate in (text, f"[{text}]" if "," in text else text):
        try:
            return json.loads(candidate)
        except ValueError:
            continue
    return text


def parse_assignments(
    pairs: Sequence[str], option: str, names: Mapping[str, str]
) -> dict[str, Any]:
    """`["training.lr=1e-3"]` to `{"training": {"lr": 1e-3}}`.

    `names`: what may stand alone, and the dotted name that it stands for. Raises ValueError for a
    pair without `=` and for an unknown name without dots; dotted ones the configuration checks.
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name:
            raise ValueError(f"{option}: must be NAME=VALUE, got {pair!r}")
        if "." not in name and name not in names:
            raise ValueError(f"{option}: unknown name {name!r}{near_names(name, list(names))}")
        *groups, last = names.get(name, name).split(".")
        place = values
        for group in groups:
            place = place.setdefault(group, {})
            if not isinstance(place, dict):
                raise ValueError(f"{option}: {name} lies inside a value that is set, too")
        place[last] = parse_value(text)
    return values
