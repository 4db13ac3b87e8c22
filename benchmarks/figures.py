"""The figures, in the look of the other reports."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from benchmarks.candidates import (
    CANDIDATES,
    CHUNK,
    FLA_CHUNK,
    FLA_RECURRENCE,
    HUGGING_FACE,
    LOOP,
    SDPA,
    STEPS,
)
from benchmarks.passes import BOTH, FORWARD
from benchmarks.questions import QUESTIONS
from benchmarks.records import Measurements, Unit
from benchmarks.spread import memory_points, ratio, time_points
from benchmarks.tables import compared
from fastweights.report.style import GRID, INK, QUIET, Stroke, new_figure, quiet_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STROKES = {
    SDPA: Stroke("#E69F00", "#8f6300", "^"),
    CHUNK: Stroke("#56B4E9", "#1f6f9f", "D"),
    FLA_CHUNK: Stroke("#CC79A7", "#9c4876", "s"),
    FLA_RECURRENCE: Stroke("#8a8a8a", "#5f5f5f", "P"),
    HUGGING_FACE: Stroke("#D55E00", "#a84a00", "v"),
    LOOP: Stroke("#009E73", "#00765a", "X"),
    STEPS: Stroke("#000000", "#000000", "o"),
    "delta rule": Stroke("#0072B2", "#005a8c", "o"),
    "delta rule, chunk form": Stroke("#56B4E9", "#1f6f9f", "D"),
    "linear attention": Stroke("#D55E00", "#a84a00", "v"),
    "linear attention, chunk form": Stroke("#CC79A7", "#9c4876", "s"),
}
_PASSES = ((FORWARD, "forward"), (BOTH, "forward and backward"))


def speedups(measured: Measurements) -> "Figure | None":
    """How many times faster ours is than each peer, one thread: median and quartiles. A row a
    shape, a block an op. None where nothing was timed."""
    blocks = {
        name: [unit for unit in measured.of(name, "time") if unit.threads == 1]
        for name in compared(measured)
    }
    blocks = {name: units for name, units in blocks.items() if units}
    if not blocks:
        return None
    heights = [len(units) + 1.1 for units in blocks.values()]
    figure = new_figure(9.6, 0.36 * sum(heights) + 1.0)
    grid = figure.subplots(
        len(blocks), 2, squeeze=False, sharex=True, gridspec_kw={"height_ratios": heights}
    )
    drawn: dict[str, None] = {}
    for row, (name, units) in zip(grid, blocks.items(), strict=True):
        for axes, (which, label) in zip(row, _PASSES, strict=True):
            _prepare(axes, [str(unit.shape) for unit in units] if axes is row[0] else None)
            title = QUESTIONS[name].title if axes is row[0] else ""
            axes.set_title(title, fontsize=10.5, color=INK, loc="left")
            if name == next(iter(blocks)):
                axes.set_title(label, fontsize=9.5, color=QUIET, loc="right")
            for height, unit in enumerate(units):
                drawn |= dict.fromkeys(_draw_ratios(axes, unit, name, which, height))
            axes.set_ylim(len(units) - 0.4, -0.6)
    for axes in grid[-1]:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}×")
    figure.supxlabel("times as long as ours", fontsize=9.5, color=INK)
    _legend(figure, list(drawn))
    return figure


def scaling(measured: Measurements) -> "Figure | None":
    """Forward and backward pass: time a step of the sequence and peak memory over the length."""
    timed = measured.of("scaling", "time")
    weighed = measured.of("scaling", "memory")
    names = [each.name for each in CANDIDATES["scaling"]]
    times = {name: time_points(timed, name) for name in names}
    peaks = {name: memory_points(weighed, name) for name in names}
    if not any(times.values()):
        return None
    figure = new_figure(9.6, 4.0)
    left, right = figure.subplots(1, 2)
    for axes, curves, label in (
        (left, _per_step(times), "microseconds a step of the sequence"),
        (right, peaks, "peak memory, MiB"),
    ):
        quiet_axes(axes)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_title(label, fontsize=10.5, color=INK, loc="left")
        lengths = sorted({length for points in curves.values() for length, _ in points})
        axes.set_xticks(lengths, [f"{length:,}" for length in lengths], rotation=45)
        for name, points in curves.items():
            stroke = _STROKES[name]
            axes.plot(
                *zip(*points, strict=True) if points else ([], []),
                color=stroke.colour,
                marker=stroke.marker,
                markersize=stroke.size(5),
                markeredgecolor="white",
                markeredgewidth=0.4,
                linewidth=1.5,
            )
    figure.supxlabel("length T", fontsize=9.5, color=INK)
    _legend(figure, [name for name in names if times[name]])
    return figure


def _per_step(curves: dict[str, list[tuple[float, float]]]) -> dict[str, list[tuple[float, float]]]:
    """Milliseconds a pass as microseconds a step."""
    return {name: [(t, 1e3 * ms / t) for t, ms in points] for name, points in curves.items()}


def _draw_ratios(axes: "Axes", unit: Unit, question: str, which: str, height: int) -> list[str]:
    """Draws the peers of one shape; returns their names."""
    ours, *peers = (each.name for each in CANDIDATES[question])
    drawn = []
    for name in peers:
        found = ratio(unit, name, ours, which)
        if found is None:
            continue
        stroke = _STROKES[name]
        axes.plot([found.low, found.high], [height] * 2, color=stroke.colour, linewidth=2.2)
        axes.plot(
            [found.median],
            [height],
            color=stroke.colour,
            marker=stroke.marker,
            markersize=stroke.size(6.5),
            markeredgecolor="white",
            markeredgewidth=0.4,
        )
        drawn.append(name)
    return drawn


def _prepare(axes: "Axes", labels: Sequence[str] | None) -> None:
    quiet_axes(axes)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.axvline(1, color=QUIET, linewidth=1.0)
    axes.set_yticks(range(len(labels)) if labels else [], labels or [])


def _legend(figure: "Figure", names: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [],
            [],
            color=_STROKES[name].colour,
            marker=_STROKES[name].marker,
            markersize=_STROKES[name].size(6),
            markeredgecolor="white",
            markeredgewidth=0.4,
            linewidth=1.5,
            label=name,
        )
        for name in names
    ]
    legend = figure.legend(
        handles=handles, loc="outside upper center", ncols=4, frameon=False, fontsize=9
    )
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_color(_STROKES[name].ink)
