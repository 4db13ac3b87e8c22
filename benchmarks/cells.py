"""Figures as the text of a table's cell, and where they are found."""

from benchmarks.passes import BOTH, FORWARD
from benchmarks.records import Row, Unit
from benchmarks.runner import MEMORY
from benchmarks.spread import Spread, gemm_share, ratio, time


def time_cell(unit: Unit, row: Row | None, which: str, detailed: bool = False) -> str:
    """`5.12 (5.08–5.20)` in ms, detailed with the smallest and the number of rounds."""
    found = None if row is None else time(unit, row.name, which)
    if found is None:
        return absent(row, which)
    more = f"; {number(found.least)}; {found.rounds}" if detailed else ""
    return f"{number(found.median)} ({number(found.low)}–{number(found.high)}{more})"


def peak_cell(unit: Unit | None, name: str) -> str:
    """In MiB."""
    row = None if unit is None else unit.row(name)
    if row is None or row.peak_mib is None:
        return absent(row, MEMORY)
    return number(row.peak_mib) if row.peak_mib >= 1 else "< 1"


def ratio_cell(unit: Unit, slow: str, fast: str) -> str:
    """How many times faster: forward / forward and backward."""
    return " / ".join(
        absent(unit.row(slow), which) if found is None else times(found)
        for which in (FORWARD, BOTH)
        for found in [ratio(unit, slow, fast, which)]
    )


def share_cell(unit: Unit, name: str) -> str:
    """Of the GEMM rate: forward / forward and backward."""
    shares = [gemm_share(unit, name, which) for which in (FORWARD, BOTH)]
    return " / ".join("–" if share is None else percent(share) for share in shares)


def absent(row: Row | None, which: str) -> str:
    """Why there is no figure, in a word or two; the list below the tables has the reason."""
    reason = None if row is None else row.left_out.get(which)
    if reason is None:
        return "–"
    kind = reason.partition(":")[0]
    return kind if kind in ("missing", "failed") else "left out"


def number(x: float) -> str:
    """Three significant digits, never an exponent."""
    if x >= 100:
        return f"{x:,.0f}"
    return f"{x:.1f}" if x >= 10 else f"{x:.2f}" if x >= 1 else f"{x:.3f}"


def times(found: Spread) -> str:
    """`6.9× (6.7–7.1)`."""
    return f"{number(found.median)}× ({number(found.low)}–{number(found.high)})"


def percent(found: Spread) -> str:
    """`72 % (71–73)`."""
    return f"{100 * found.median:.0f} % ({100 * found.low:.0f}–{100 * found.high:.0f})"
