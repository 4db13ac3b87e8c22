"""Accuracies (0 to 1) as text in %."""

import math


def percent(accuracy: float) -> str:
    """In %, one decimal. Never rounded up to a clean 100 nor down to 0: 0.9996 is `99.96`."""
    value = 100 * accuracy
    if not math.isfinite(value):
        return "not a number"
    if 99.95 <= value < 100:
        return f"{value:.2f}" if value < 99.995 else ">99.99"
    if 0 < value < 0.05:
        return f"{value:.2f}" if value >= 0.005 else "<0.01"
    return f"{value:.1f}"


def spread_text(std: float) -> str:
    """A standard deviation (0 to 1) in percentage points, one decimal."""
    points = 100 * std
    return "<0.1" if 0 < points < 0.05 else f"{points:.1f}"


def percent_spread(mean: float, std: float | None) -> str:
    """`mean ± standard deviation` in %; the mean alone where `std` is None."""
    return percent(mean) if std is None else f"{percent(mean)} ± {spread_text(std)}"


def percent_short(accuracy: float) -> str:
    """In %, rounded down, at most four characters: whole numbers, one decimal from 99 to 100."""
    if not math.isfinite(accuracy):
        return "nan"
    thousandths = math.floor(1000 * accuracy + 1e-9)
    if thousandths >= 990 and accuracy < 1:
        return f"{thousandths / 10:.1f}"
    return "<1" if 0 < accuracy < 0.01 else f"{thousandths // 10}"
