"""Learning curves: sequence accuracy during training against optimizer steps."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from fastweights.report.cells import Cell, Study
from fastweights.report.panels import is_left, language_panels, name_lines
from fastweights.report.style import INK, Stroke, percent_axis, strokes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curve = tuple[list[int], list[float]]


def learning_curves(study: Study) -> "Figure | None":
    """Seeds thin, their mean bold, a marker at the end of the last; None without measurements."""
    split = study.curve_split
    languages = [
        language
        for language in study.languages
        if any(run.curve(split)[0] for run in study.runs if run.task == language)
    ]
    if not languages:
        return None
    drawn = strokes(study.models)
    figure, panels = language_panels(languages, study.models, drawn)
    name = "validation accuracy, %" if split == "validation" else "Bin 1 accuracy, %"
    for language, axes in panels.items():
        percent_axis(axes, name if is_left(panels, language) else None)
        curves = {model: _curves(study.cell(language, model), split) for model in study.models}
        ends = draw_models(axes, curves, drawn)
        step_axis(axes)
        if len(languages) == 1:
            name_lines(axes, ends, drawn, gap=7.5)
    figure.supxlabel("optimizer steps", fontsize=9.5, color=INK)
    return figure


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """Mean over curves at every step that one of them measured, from the first step that all have
    reached. Between its measurements and after its end a curve keeps its last value."""
    start = max(steps[0] for steps, _ in curves)
    grid = sorted({step for steps, _ in curves for step in steps if step >= start})
    means = []
    places = [0] * len(curves)
    for step in grid:
        total = 0.0
        for number, (steps, values) in enumerate(curves):
            while places[number] + 1 < len(steps) and steps[places[number] + 1] <= step:
                places[number] += 1
            total += values[places[number]]
        means.append(total / len(curves))
    return grid, means


def draw_models(
    axes: "Axes", curves: Mapping[str, Sequence[Curve]], drawn: Mapping[str, Stroke]
) -> dict[str, float]:
    """Draws the curves of every model; returns the height at which its mean ends, of those that
    have one."""
    return {model: _draw(axes, found, drawn[model]) for model, found in curves.items() if found}


def _draw(axes: "Axes", curves: Sequence[Curve], stroke: Stroke) -> float:
    """Draws one model, its seeds thin and their mean bold; returns the height at which the mean
    ends."""
    if len(curves) > 1:
        for steps, values in curves:
            axes.plot(steps, values, color=stroke.colour, linewidth=0.7, alpha=0.35)
    steps, means = mean_curve(curves)
    axes.plot(steps, means, color=stroke.colour, linewidth=1.8)
    axes.plot(
        steps[-1:],
        means[-1:],
        marker=stroke.marker,
        color=stroke.colour,
        markersize=stroke.size(5.5),
        markeredgecolor="white",
        markeredgewidth=0.4,
        clip_on=False,
        zorder=5,
    )
    return means[-1]


def _curves(cell: Cell, split: str) -> list[Curve]:
    """Of each run, in %, without a measurement at step 0, which a log axis cannot show."""
    curves = []
    for run in cell.runs:
        points = [point for point in zip(*run.curve(split), strict=True) if point[0] > 0]
        if points:
            curves.append(([step for step, _ in points], [100 * value for _, value in points]))
    return curves


def step_axis(axes: "Axes") -> None:
    """Logarithmic, labelled 1, 2, 5, 10, ..."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=20))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
