"""Medians over rounds, with quartiles; ratios of two contenders, round by round."""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.gemm import GEMM_FLOPS
from benchmarks.passes import BOTH
from benchmarks.records import Unit
from benchmarks.shapes import flops


class Spread(NamedTuple):
    """Median, quartiles and smallest of `rounds` rounds."""

    median: float
    low: float
    high: float
    least: float
    rounds: int


def spread(values: Sequence[float]) -> Spread | None:
    """None for no values."""
    if not values:
        return None
    low, median, high = values[0], values[0], values[0]
    if len(values) > 1:
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high, min(values), len(values))


def times(unit: Unit | None, name: str, which: str) -> tuple[float | None, ...]:
    """Milliseconds by round; empty where there are none."""
    row = unit.row(name) if unit is not None else None
    return row.ms.get(which, ()) if row is not None else ()


def time(unit: Unit | None, name: str, which: str) -> Spread | None:
    """Milliseconds."""
    return spread([ms for ms in times(unit, name, which) if ms is not None])


def ratio(unit: Unit | None, slow: str, fast: str, which: str) -> Spread | None:
    """How many times faster `fast` was, in the rounds that both took part in."""
    pairs = zip(times(unit, slow, which), times(unit, fast, which), strict=False)
    return spread([a / b for a, b in pairs if a is not None and b])


def gemm_share(unit: Unit | None, name: str, which: str) -> Spread | None:
    """The arithmetic rate over that of the faster of the two matrix products of the same round."""
    work = None if unit is None or unit.shape is None else flops(unit.question, unit.shape, which)
    if work is None:
        return None
    rates = [
        [count / ms if ms else 0.0 for ms in times(unit, gemm, which)]
        for gemm, count in GEMM_FLOPS.items()
    ]
    best = [max(both) for both in zip(*rates, strict=True)]
    mine = times(unit, name, which)
    return spread([work / ms / rate for ms, rate in zip(mine, best, strict=False) if ms and rate])


def growth(points: Sequence[tuple[float, float]]) -> float | None:
    """The slope of log y over log x by least squares; None for fewer than three points."""
    if len(points) < 3:
        return None
    import numpy as np

    x, y = np.log(np.array(points).T)
    return float(np.polyfit(x, y, 1)[0])


def time_points(units: Sequence[Unit], name: str) -> list[tuple[float, float]]:
    """(T, milliseconds of a forward and backward pass)."""
    found = [(unit.shape.time, time(unit, name, BOTH)) for unit in units if unit.shape is not None]
    return [(length, taken.median) for length, taken in found if taken is not None]


def memory_points(units: Sequence[Unit], name: str) -> list[tuple[float, float]]:
    """(T, MiB)."""
    found = [(u.shape.time, row.peak_mib) for u in units if u.shape and (row := u.row(name))]
    return [(length, peak) for length, peak in found if peak]
