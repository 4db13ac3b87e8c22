"""Bits per byte against the position in a window."""

from typing import TYPE_CHECKING

from fastweights.report.cells import Study
from fastweights.report.learning_curves import draw_models, step_axis
from fastweights.report.panels import is_left, language_panels, name_lines
from fastweights.report.style import INK, QUIET, SHADE, strokes
from fastweights.report.text.positions import PositionCurves, position_curves

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SHOWN_ABOVE = 0.5
"""Share of the lowest value by which the y axis goes beyond it: the first positions, which nothing
is known of, would hide the differences at the end."""


def bits_by_position(study: Study) -> "Figure | None":
    """One panel a text; seeds thin, their mean bold, around it the standard error over the windows;
    the training context is shaded. None without measurements."""
    found = {text: position_curves(study, text) for text in study.languages}
    found = {text: curves for text, curves in found.items() if curves}
    if not found:
        return None
    drawn = strokes(study.models)
    figure, panels = language_panels(list(found), study.models, drawn)
    for text, axes in panels.items():
        curves = found[text]
        lines = {
            model: [(list(curve.last_position), list(run)) for run in curve.bits]
            for model, curve in curves.items()
        }
        ends = draw_models(axes, lines, drawn)
        for model, curve in curves.items():
            means = [sum(column) / len(curve.bits) for column in zip(*curve.bits, strict=True)]
            low = [mean - error for mean, error in zip(means, curve.error, strict=True)]
            high = [mean + error for mean, error in zip(means, curve.error, strict=True)]
            colour = drawn[model].colour
            axes.fill_between(curve.last_position, low, high, color=colour, alpha=0.13, linewidth=0)
        shown = [value for curve in curves.values() for run in curve.bits for value in run]
        lowest = min(shown)
        bottom = 0.95 * lowest
        top = min(max(shown) + 0.1 * lowest, max(ends.values()) + _SHOWN_ABOVE * lowest)
        axes.set_ylim(bottom, top)
        step_axis(axes)
        _shade(axes, curves)
        if is_left(panels, text):
            axes.set_ylabel("test, bits per byte", fontsize=9.5, color=INK)
        if len(found) == 1:
            name_lines(axes, ends, drawn, gap=(top - bottom) / 14)
    figure.supxlabel("position in the window, tokens", fontsize=9.5, color=INK)
    return figure


def _shade(axes: "Axes", curves: dict[str, PositionCurves]) -> None:
    """The training context, where it is the same for all models."""
    lengths = {curve.context_length for curve in curves.values()}
    furthest = max(curve.last_position[-1] for curve in curves.values())
    axes.set_xlim(1, furthest * 1.06)
    if len(lengths) == 1:
        (length,) = lengths
        axes.axvspan(1, length, color=SHADE, linewidth=0, zorder=0)
        axes.text(
            length / 1.05,
            0.97,
            f"trained: {length:,}",
            transform=axes.get_xaxis_transform(),
            ha="right",
            va="top",
            fontsize=7.5,
            color=QUIET,
        )
