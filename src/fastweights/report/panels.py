"""Small multiples: one panel a language, the models' legend in the first free place; a single
language gets one panel with the models named at the ends of their lines."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from fastweights.report.names import language_name, model_name
from fastweights.report.style import INK, Stroke, new_figure, quiet_axes, spread_apart

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = {1: 1, 2: 3, 3: 2}  # languages: columns, the legend's place counted; else 3
_LEGEND_ENTRY = 0.25  # inches


def language_panels(
    languages: Sequence[str], models: Sequence[str], strokes: Mapping[str, Stroke]
) -> "tuple[Figure, dict[str, Axes]]":
    """A figure and the titled axes of each language, with a legend when there are several."""
    if len(languages) == 1:
        figure = new_figure(7.2, 4.0)
        axes = figure.subplots()
        _prepare(axes, languages[0])
        return figure, {languages[0]: axes}
    columns = _COLUMNS.get(len(languages), 3)
    rows = -(-(len(languages) + 1) // columns)
    height = max(2.65, _LEGEND_ENTRY * len(models) + 0.2)
    figure = new_figure(3.5 * columns, height * rows + 0.2)
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    panels = dict(zip(languages, grid, strict=False))
    for language, axes in panels.items():
        _prepare(axes, language)
    for axes in grid[len(languages) :]:
        axes.set_axis_off()
    _legend(grid[len(languages)], models, strokes)
    return figure, panels


def is_left(panels: "Mapping[str, Axes]", language: str) -> bool:
    """Whether a panel stands in the first column, where the y label goes."""
    place = panels[language].get_subplotspec()
    return place is None or place.colspan.start == 0


def name_lines(
    axes: "Axes", ends: Mapping[str, float], strokes: Mapping[str, Stroke], gap: float
) -> None:
    """Write each model's name right of the axes, near the height at which its line ends."""
    from matplotlib.transforms import blended_transform_factory

    low, high = axes.get_ylim()
    heights = spread_apart(list(ends.values()), gap, low, high)
    across = blended_transform_factory(axes.transAxes, axes.transData)
    for model, height in zip(ends, heights, strict=True):
        stroke = strokes[model]
        axes.plot(
            [1.035],
            [height],
            marker=stroke.marker,
            markersize=stroke.size(6),
            color=stroke.colour,
            markeredgecolor="white",
            markeredgewidth=0.4,
            transform=across,
            clip_on=False,
            linestyle="none",
        )
        axes.text(
            1.06,
            height,
            model_name(model).figure,
            transform=across,
            va="center_baseline",
            fontsize=9.5,
            color=stroke.ink,
        )
    axes.set_ylim(low, high)


def _prepare(axes: "Axes", language: str) -> None:
    quiet_axes(axes)
    axes.set_title(language_name(language).figure, fontsize=11, color=INK, loc="left")


def _legend(axes: "Axes", models: Sequence[str], strokes: Mapping[str, Stroke]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [],
            [],
            color=strokes[model].colour,
            marker=strokes[model].marker,
            linewidth=1.8,
            markersize=strokes[model].size(6),
            markeredgecolor="white",
            markeredgewidth=0.4,
            label=model_name(model).figure,
        )
        for model in models
    ]
    legend = axes.legend(
        handles=handles, loc="center left", frameon=False, fontsize=10, labelspacing=0.55
    )
    for text, model in zip(legend.get_texts(), models, strict=True):
        text.set_color(strokes[model].ink)
