"""Loss against optimizer steps at one number of keys: Figure 3 of Schlag et al. (2021)."""

from typing import TYPE_CHECKING

from fastweights.report.learning_curves import Curve, mean_curve, step_axis
from fastweights.report.retrieval.strokes import (
    grey,
    label_axes,
    legend_beside,
    memory_strokes,
    ours,
    style_handle,
    theirs,
)
from fastweights.report.retrieval.study import Point, RetrievalStudy, evaluations
from fastweights.report.style import INK, Stroke, new_figure, quiet_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PREFERRED = {1: 200, 2: 20}
"""Setting 1: where only DPFP-2, DPFP-3 and softmax hold all keys. Setting 2: the size of
Figure 3."""


def curve_size(study: RetrievalStudy, setting: int) -> int | None:
    """The number of keys shown: of the sizes at which most memories have evaluations, the largest
    up to the preferred one, else the smallest; None without evaluations."""
    counts: dict[int, int] = {}
    for point in study.of_setting(setting):
        if _curves(point):
            counts[point.num_keys] = counts.get(point.num_keys, 0) + 1
    complete = [size for size in counts if counts[size] == max(counts.values())]
    below = [size for size in complete if size <= PREFERRED[setting]]
    return max(below) if below else min(complete, default=None)


def loss_by_step(study: RetrievalStudy, setting: int) -> "Figure | None":
    """Both axes logarithmic; seeds thin, their mean bold, a marker at the end of the last."""
    size = curve_size(study, setting)
    points = [p for p in study.of_setting(setting) if p.num_keys == size and _curves(p)]
    if not points:
        return None
    strokes = memory_strokes([point.model for point in points])
    figure = new_figure(8.6, 4.2)
    axes = figure.subplots()
    quiet_axes(axes)
    axes.set_yscale("log")
    for point in points:
        _draw(axes, point, strokes[point.model])
    step_axis(axes)
    label_axes(axes, "optimizer steps", "squared error")
    axes.set_title(f"setting {setting}, S = {size}", fontsize=11, color=INK, loc="left")
    styles = [
        style_handle("ours, at the end", ours(grey(), 6)),
        style_handle("published, at the end", theirs(grey(), 6) | {"linestyle": "none"}),
    ]
    legend_beside(figure, strokes, styles)
    return figure


def _draw(axes: "Axes", point: Point, stroke: Stroke) -> None:
    curves = _curves(point)
    if len(curves) > 1:
        for steps, losses in curves:
            axes.plot(steps, losses, color=stroke.colour, linewidth=0.7, alpha=0.35)
    steps, means = mean_curve(curves)
    axes.plot(steps, means, zorder=3, markevery=[-1], **ours(stroke, 6))
    if point.published and point.published.loss > 0:
        end = theirs(stroke, 9) | {"linestyle": "none"}
        axes.plot([point.published.steps], [point.published.loss], zorder=4, **end)


def _curves(point: Point) -> list[Curve]:
    """Of all seeds with a loss above 0, which is what a logarithmic axis can show."""
    found = []
    for run in point.runs:
        pairs = [(step, x) for step, x in zip(*evaluations(run), strict=True) if step and x > 0]
        if pairs:
            found.append(([step for step, _ in pairs], [loss for _, loss in pairs]))
    return found
