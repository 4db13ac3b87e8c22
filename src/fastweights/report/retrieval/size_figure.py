"""Loss against the number of keys, beside the published losses: Figures 2 and 5 of Schlag et al.
(2021)."""

import math
from typing import TYPE_CHECKING, Any

from fastweights.report.retrieval.floor import floor
from fastweights.report.retrieval.published import PublishedLoss, published_curve
from fastweights.report.retrieval.strokes import (
    grey,
    label_axes,
    legend_beside,
    memory_strokes,
    ours,
    style_handle,
    theirs,
)
from fastweights.report.retrieval.study import Point, RetrievalStudy
from fastweights.report.style import Stroke, new_figure, quiet_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HIGHEST = 1.0
"""Losses above it are outside of the figure."""
_FLOOR: dict[str, Any] = {"linestyle": (0, (1, 1.6)), "linewidth": 1.3}


def loss_by_size(study: RetrievalStudy, setting: int) -> "Figure | None":
    """Mean over finished seeds, a bar from the lowest to the highest; None without losses."""
    points = {
        model: [point for point in study.of_model(setting, model) if point.losses]
        for model in study.models(setting)
    }
    points = {model: found for model, found in points.items() if found}
    if not points:
        return None
    strokes = memory_strokes(list(points))
    figure = new_figure(8.6, 4.6)
    axes = figure.subplots()
    quiet_axes(axes)
    label_axes(axes, "number of keys S", "squared error")
    published = {model: _published(found) for model, found in points.items()}
    for model, found in points.items():
        _draw_published(axes, published[model], strokes[model])
        _draw(axes, found, strokes[model])
    styles = [style_handle("ours", ours(grey(), 6)), style_handle("published", theirs(grey(), 6))]
    shown = [each for found in published.values() for each in found]
    last = max([*study.sizes(setting), *(each.num_keys for each in shown)])
    if setting == 1 and _draw_floors(axes, points, strokes, last):
        styles.append(style_handle("floor ½ (1 – d/S)", _FLOOR))
    _limit(axes)
    legend_beside(figure, strokes, styles)
    return figure


def _published(points: list[Point]) -> list[PublishedLoss]:
    """The finite published losses of a memory at every size, if the study has it as published."""
    known = [point.published for point in points if point.published]
    found = published_curve(known[0].setting, known[0].model) if known else []
    return [loss for loss in found if math.isfinite(loss.loss)]


def _draw(axes: "Axes", points: list[Point], stroke: Stroke) -> None:
    for point in points:
        low, high = min(point.losses), max(point.losses)
        if high > low:
            axes.vlines(point.num_keys, low, high, color=stroke.colour, linewidth=1)
    sizes = [point.num_keys for point in points]
    means = [point.spread.mean for point in points if point.spread]
    axes.plot(sizes, means, zorder=3, **ours(stroke, 4.6))


def _draw_published(axes: "Axes", published: list[PublishedLoss], stroke: Stroke) -> None:
    sizes, losses = [each.num_keys for each in published], [each.loss for each in published]
    axes.plot(sizes, losses, zorder=2, **theirs(stroke, 6.6))


def _draw_floors(
    axes: "Axes", points: dict[str, list[Point]], strokes: dict[str, Stroke], last: int
) -> bool:
    """Of ELU+1 and DPFP, whose losses follow theirs; whether there was one to draw."""
    drawn = False
    for model, found in points.items():
        features = found[0].num_features
        if features is None or "favor" in model or features >= last:
            continue
        sizes = range(features, last + 1)
        heights = [floor(features, size) for size in sizes]
        axes.plot(sizes, heights, color=strokes[model].ink, zorder=1, **_FLOOR)
        drawn = True
    return drawn


def _limit(axes: "Axes") -> None:
    """Round sizes, and the losses up to HIGHEST."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(10, steps=[1, 2, 5, 10], integer=True))
    top = min(HIGHEST, axes.get_ylim()[1])
    axes.set_ylim(-0.03 * top, top)
