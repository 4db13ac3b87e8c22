"""The report's tables: targets, our kernels, everybody."""

from benchmarks.candidates import CANDIDATES, OURS
from benchmarks.cells import (
    number,
    peak_cell,
    percent,
    ratio_cell,
    share_cell,
    time_cell,
    times,
)
from benchmarks.gemm import GEMM_FLOPS
from benchmarks.passes import BOTH, FORWARD
from benchmarks.questions import QUESTIONS
from benchmarks.records import Measurements, Row
from benchmarks.shapes import FLOPS_PER_STEP
from benchmarks.spread import time
from benchmarks.targets import GEMM, MEMORY, Verdict, verdicts
from fastweights.report.names import escape_markdown
from fastweights.report.tables import markdown_table

DIFFERS = 1e-4
"""Relative difference from which a result counts as another one."""
DTYPE = "float32"
PASS_NAMES = {FORWARD: "forward", BOTH: "forward + backward"}
_TIMES = [f"{name}, ms" for name in PASS_NAMES.values()]


def compared(measured: Measurements) -> list[str]:
    """The questions that have been measured and that compare candidates on shapes."""
    found = [name for name in QUESTIONS if name in CANDIDATES and name != "scaling"]
    return [name for name in found if measured.of(name)]


def targets_table(measured: Measurements) -> str:
    """Required, measured, met or not."""
    rows = []
    for verdict in verdicts(measured):
        target = verdict.target
        against = f"{target.against} ({target.note})" if target.note else target.against
        met = {None: "not measured", True: "met", False: "**not met**"}[verdict.met]
        shown = [PASS_NAMES[verdict.which], _required(verdict), _measured(verdict), met]
        rows.append([verdict.what, against, *shown])
    header = ["op, one thread", "against", "pass", "required", "measured", "verdict"]
    return markdown_table(header, rows)


def ours_table(measured: Measurements, question: str) -> str:
    """A row a shape and a number of threads: ours, and how many times faster than each peer."""
    peers = [each.name for each in CANDIDATES[question] if each.name != OURS]
    shares = question in FLOPS_PER_STEP
    header = ["shape", "dtype", "threads", *_TIMES, "peak, MiB"]
    header += ["share of the GEMM rate"] * shares + [f"× {name}" for name in peers]
    rows = []
    for unit in measured.of(question, "time"):
        cells = [str(unit.shape), DTYPE, str(unit.threads)]
        cells += [time_cell(unit, unit.row(OURS), which) for which in PASS_NAMES]
        cells.append(peak_cell(measured.memory_of(unit), OURS))
        cells += [share_cell(unit, OURS)] * shares
        rows.append(cells + [ratio_cell(unit, name, OURS) for name in peers])
    return markdown_table(header, rows) if rows else ""


def weighed_table(measured: Measurements, question: str) -> str:
    """Shapes of which only the memory was measured: MiB by contender."""
    timed = {unit.shape for unit in measured.of(question, "time")}
    names = [each.name for each in CANDIDATES[question]]
    rows = [
        [str(unit.shape), DTYPE, *(peak_cell(unit, name) for name in names)]
        for unit in measured.of(question, "memory")
        if unit.shape not in timed
    ]
    return markdown_table(["peak, MiB", "dtype", *names], rows) if rows else ""


def gemm_line(measured: Measurements, question: str) -> str:
    """The machine's rate beside this op's first shape."""
    parts = []
    for threads in (1, 2):
        units = [u for u in measured.of(question, "time") if u.threads == threads]
        for name, count in GEMM_FLOPS.items():
            found = time(units[0], name, FORWARD) if units else None
            if found is not None:
                rate = number(count / found.median / 1e6)
                counted = "1 thread" if threads == 1 else f"{threads} threads"
                parts.append(f"{name} {rate} GFLOP/s with {counted}")
    return f"Beside the first shape: {', '.join(parts)}." if parts else ""


def everything_table(measured: Measurements) -> str:
    """A row a shape, a number of threads and a contender."""
    rows = []
    for question in compared(measured):
        for unit in measured.of(question, "time"):
            for row in unit.rows:
                cells = [QUESTIONS[question].title, str(unit.shape), str(unit.threads), row.name]
                cells += [time_cell(unit, row, which, detailed=True) for which in PASS_NAMES]
                cells.append(peak_cell(measured.memory_of(unit), row.name))
                rows.append([*cells, _difference(row)])
    header = ["op", "shape", "threads", "contender", *_TIMES, "peak, MiB", "differs from ours by"]
    return markdown_table(header, rows) if rows else ""


def left_out_list(measured: Measurements) -> str:
    """Every reason, with the shapes that it holds for."""
    places: dict[tuple[str, str, str], dict[str, None]] = {}
    for unit in measured.units:
        for row in unit.rows:
            for which, reason in row.left_out.items():
                key = row.name, PASS_NAMES.get(which, which), reason
                place = f"{QUESTIONS[unit.question].title}, {unit.shape or unit.language}"
                places.setdefault(key, {})[place] = None
    return "\n".join(
        f"- {name}, {what}: {escape_markdown(reason)} ({'; '.join(where)})"
        for (name, what, reason), where in places.items()
    )


def _required(verdict: Verdict) -> str:
    if verdict.target.against == MEMORY:
        return f"≤ {verdict.required:,.0f} MiB"
    if verdict.target.against == GEMM:
        return f"≥ {100 * verdict.required:.0f} %"
    return f"≥ {verdict.required:.3g}×"


def _measured(verdict: Verdict) -> str:
    if verdict.measured is None:
        return "–"
    if verdict.target.against == MEMORY:
        return f"{number(verdict.measured.median)} MiB"
    return percent(verdict.measured) if verdict.target.against == GEMM else times(verdict.measured)


def _difference(row: Row) -> str:
    errors = [row.output_error, row.gradient_error]
    if errors == [None, None]:
        return "–"
    text = " / ".join("–" if error is None else f"{error:.0e}" for error in errors)
    return f"**{text}: another result**" if max(e or 0.0 for e in errors) > DIFFERS else text
