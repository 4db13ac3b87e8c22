"""Checks of the arguments of a layer, whose messages name the value."""

from typing import Any, get_args


def check_sizes(**sizes: int) -> None:
    """Raises ValueError for a size that is not 1 or more, NaN included."""
    for name, size in sizes.items():
        if not size >= 1:
            raise ValueError(f"{name} must be >= 1, got {size}")


def check_probability(name: str, value: float) -> None:
    """Raises ValueError for a dropout probability outside [0, 1)."""
    if not 0 <= value < 1:
        raise ValueError(f"{name} must be in [0, 1), got {value}")


def check_choice(name: str, value: str, choices: Any) -> None:
    """Raises ValueError for a value that is none of `choices`, a `Literal`."""
    names = get_args(choices)
    if value not in names:
        raise ValueError(f"{name} must be one of {', '.join(names)}, got {value!r}")
