"""Horizon: sequence accuracy at exact lengths, far beyond the training window."""

from typing import TYPE_CHECKING

from fastweights.report.cells import Study
from fastweights.report.panels import is_left, language_panels, name_lines
from fastweights.report.style import INK, QUIET, SHADE, Stroke, percent_axis, strokes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STEP = 1.0  # points between lines that lie on each other


def horizon_curves(study: Study) -> "Figure | None":
    """Mean over seeds, a band from the worst to the best seed; None where no run has a horizon.

    Lines that lie on each other are set 1 point apart, so that all of them stay visible.
    """
    languages = [
        language
        for language in study.languages
        if any(study.cell(language, model).horizon() for model in study.models)
    ]
    if not languages:
        return None
    drawn = strokes(study.models)
    figure, panels = language_panels(languages, study.models, drawn)
    for language, axes in panels.items():
        _shade(axes, study, language)
        percent_axis(axes, "sequence accuracy, %" if is_left(panels, language) else None)
        curves = {model: study.cell(language, model).horizon() for model in study.models}
        curves = {model: curve for model, curve in curves.items() if curve}
        places = lifts({model: _means(curve) for model, curve in curves.items()})
        ends = {
            model: _draw(axes, curve, drawn[model], places[model])
            for model, curve in curves.items()
        }
        if len(languages) == 1:
            name_lines(axes, ends, drawn, gap=7.5)
    figure.supxlabel("length of the string", fontsize=9.5, color=INK)
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


def _means(curve: dict[int, list[float]]) -> dict[int, float]:
    return {length: sum(values) / len(values) for length, values in curve.items()}


def _draw(axes: "Axes", curve: dict[int, list[float]], stroke: Stroke, lift: float) -> float:
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


def _shade(axes: "Axes", study: Study, language: str) -> None:
    """Log axis over the measured lengths, the training window shaded and named."""
    lengths = sorted(
        {length for model in study.models for length in study.cell(language, model).horizon()}
    )
    windows = study.windows(language)
    longest_trained = windows.train[1] if windows else 0
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
