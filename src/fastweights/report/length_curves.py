"""Accuracy against length, one panel a task: mean over seeds, a band from the worst to the best."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from fastweights.report.panels import is_left, language_panels, name_lines
from fastweights.report.style import INK, QUIET, SHADE, Stroke, percent_axis, strokes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curve = dict[int, list[float]]
"""Length -> accuracies (0 to 1), one a seed."""
_STEP = 1.0  # points between lines that lie on each other


def length_curves(
    curves: Mapping[str, Mapping[str, Curve]],
    longest_trained: Mapping[str, int],
    models: Sequence[str],
    across: str,
    up: str,
) -> "Figure | None":
    """`curves` by task and model; the training lengths of a task are shaded where they are known.
    None where nothing is measured.

    Lines that lie on each other are set 1 point apart, so that all of them stay visible.
    """
    measured = {
        task: {model: of_task[model] for model in models if of_task.get(model)}
        for task, of_task in curves.items()
        if any(of_task.values())
    }
    if not measured:
        return None
    drawn = strokes(models)
    figure, panels = language_panels(list(measured), models, drawn)
    for task, axes in panels.items():
        lengths = sorted({length for curve in measured[task].values() for length in curve})
        _shade(axes, lengths, longest_trained.get(task, 0))
        percent_axis(axes, up if is_left(panels, task) else None)
        places = lifts({model: _means(curve) for model, curve in measured[task].items()})
        ends = {
            model: _draw(axes, curve, drawn[model], places[model])
            for model, curve in measured[task].items()
        }
        if len(measured) == 1:
            name_lines(axes, ends, drawn, gap=7.5)
    figure.supxlabel(across, fontsize=9.5, color=INK)
    return figure


def lifts(means: dict[str, dict[int, float]]) -> dict[str, float]:
    """How far up each line is drawn, in points: 0 for a line on its own, steps of 1 around 0 for
    lines that lie on each other (within 1 % at some length, directly or through a third line)."""
    groups: list[list[str]] = []
    for model in means:
        near = [group for group in groups if any(_touch(means[model], means[m]) for m in group)]
        groups = [group for group in groups if group not in near]
        groups.append([*(member for group in near for member in group), model])
    order = list(means)
    found = {}
    for group in groups:
        for place, model in enumerate(sorted(group, key=order.index)):
            found[model] = _STEP * ((len(group) - 1) / 2 - place)
    return found


def _touch(one: dict[int, float], other: dict[int, float]) -> bool:
    return any(abs(one[length] - other[length]) < 0.01 for length in one.keys() & other.keys())


def _means(curve: Curve) -> dict[int, float]:
    return {length: sum(values) / len(values) for length, values in curve.items()}


def _draw(axes: "Axes", curve: Curve, stroke: Stroke, lift: float) -> float:
    """Draws one model; returns the height in % at which its line ends."""
    from matplotlib.transforms import ScaledTranslation

    figure = axes.get_figure()
    assert figure is not None
    moved = axes.transData + ScaledTranslation(0, lift / 72, figure.dpi_scale_trans)
    lengths = list(curve)
    means = [100 * mean for mean in _means(curve).values()]
    axes.fill_between(
        lengths,
        [100 * min(values) for values in curve.values()],
        [100 * max(values) for values in curve.values()],
        color=stroke.colour,
        alpha=0.13,
        linewidth=0,
        transform=moved,
    )
    axes.plot(
        lengths,
        means,
        color=stroke.colour,
        marker=stroke.marker,
        markersize=stroke.size(4.6),
        markeredgecolor="white",
        markeredgewidth=0.4,
        linewidth=1.5,
        transform=moved,
        clip_on=False,
    )
    return means[-1]


def _shade(axes: "Axes", lengths: list[int], longest_trained: int) -> None:
    """Log axis over the measured lengths, the training window shaded and named."""
    low = min(lengths[0], longest_trained or lengths[0]) / 1.5
    axes.set_xscale("log")
    axes.set_xlim(low, lengths[-1] * 1.06)
    axes.set_xticks(_ticks(lengths), [f"{length:,}" for length in _ticks(lengths)])
    axes.set_xticks([], minor=True)
    if longest_trained > low:
        axes.axvspan(low, longest_trained, color=SHADE, linewidth=0, zorder=0)
        axes.text(
            low * 1.03,
            50,
            "trained",
            rotation=90,
            va="center",
            ha="left",
            fontsize=7.5,
            color=QUIET,
        )


def _ticks(lengths: list[int]) -> list[int]:
    """Measured lengths that lie at least a factor 1.7 apart, the longest included."""
    ticks = [lengths[-1]]
    for length in reversed(lengths[:-1]):
        if ticks[0] / length >= 1.7:
            ticks.insert(0, length)
    return ticks
