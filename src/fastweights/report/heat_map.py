"""Heat map of final sequence accuracy: rows models, columns languages, Bin 0 beside Bin 1."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fastweights.report.cells import Cell, Spread, Study
from fastweights.report.names import LANGUAGE_NAMES, language_name, model_name
from fastweights.report.percent import percent, spread_text
from fastweights.report.style import INK, QUIET, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

_BINS = (("bin0", "Bin 0"), ("bin1", "Bin 1"))
_HATCHED: dict[str, Any] = {
    "facecolor": "white",
    "edgecolor": "#c4c4c4",
    "hatch": "////",
    "linewidth": 0,
}


def heat_map(study: Study) -> "Figure | None":
    """Mean over finished seeds in %, below it the standard deviation where it is not 0; None where
    no run has an accuracy."""
    if not any(cell.accuracy(split) for cell in study.cells.values() for split, _ in _BINS):
        return None
    figure, panels = _one_panel(study) if len(study.languages) == 1 else _two_panels(study)
    for axes in panels:
        axes.set_yticks(
            range(len(study.models)), [model_name(model).figure for model in study.models]
        )
        axes.tick_params(length=0, labelsize=9.5, colors=INK)
        for spine in axes.spines.values():
            spine.set_visible(False)
    shown = [study.cell(language, model) for language in study.languages for model in study.models]
    if not all(cell.done for cell in shown):
        _explain_hatching(figure)
    return figure


def _one_panel(study: Study) -> "tuple[Figure, list[Axes]]":
    """One language: the two bins are the columns."""
    (language,) = study.languages
    figure = new_figure(4.6, _height(study))
    axes = figure.subplots()
    _draw(
        axes,
        [[(study.cell(language, model), split) for split, _ in _BINS] for model in study.models],
    )
    windows = study.windows(language)
    ranges = ["", ""] if windows is None else [_range(windows.bin0), _range(windows.bin1)]
    labels = [f"{name}{lengths}" for (_, name), lengths in zip(_BINS, ranges, strict=True)]
    axes.set_xticks(range(2), labels)
    _entitle(axes, language_name(language).figure)
    return figure, [axes]


def _two_panels(study: Study) -> "tuple[Figure, list[Axes]]":
    """Several languages: a panel a bin, a column a language."""
    width = 2 * max(0.62 * len(study.languages), 2.1) + 2.0
    figure = new_figure(width, _height(study))
    panels = list(figure.subplots(1, 2, sharey=True))
    for axes, (split, name) in zip(panels, _BINS, strict=True):
        _draw(
            axes,
            [
                [(study.cell(language, model), split) for language in study.languages]
                for model in study.models
            ],
        )
        _name_columns(axes, study.languages)
        _entitle(axes, name)
    return figure, panels


def _height(study: Study) -> float:
    return 0.46 * len(study.models) + 1.35


def _entitle(axes: "Axes", what: str) -> None:
    axes.set_title(f"{what}: sequence accuracy, %", fontsize=11, color=INK, loc="left", pad=10)


def _explain_hatching(figure: "Figure") -> None:
    from matplotlib.patches import Patch

    figure.legend(
        handles=[Patch(**_HATCHED)],
        labels=["no finished run"],
        loc="outside lower right",
        frameon=False,
        fontsize=8.5,
        labelcolor=QUIET,
    )


def _name_columns(axes: "Axes", languages: Sequence[str]) -> None:
    """The languages' names under the columns; slanted where one of the user's own is long."""
    names = [language_name(key).figure for key in languages]
    if any(len(key) > 11 for key in languages if key not in LANGUAGE_NAMES):
        axes.set_xticks(range(len(names)), names, rotation=30, ha="right", rotation_mode="anchor")
    else:
        axes.set_xticks(range(len(names)), [name.replace(" ", "\n") for name in names])


def _range(window: tuple[int, int]) -> str:
    return f"\nlengths {window[0]}–{window[1]}"


def _draw(axes: "Axes", rows: list[list[tuple[Cell, str]]]) -> None:
    """One box for each cell and split, from the top left."""
    from matplotlib.patches import Rectangle

    colours = _colours()
    for y, row in enumerate(rows):
        for x, (cell, split) in enumerate(row):
            value, corner = cell.accuracy(split), (x - 0.5, y - 0.5)
            if value is None:
                axes.add_patch(Rectangle(corner, 1, 1, **_HATCHED))
                continue
            colour = colours(value.mean)
            axes.add_patch(
                Rectangle(corner, 1, 1, facecolor=colour, edgecolor="white", linewidth=1.5)
            )
            _write(axes, x, y, value)
    axes.set_xlim(-0.5, len(rows[0]) - 0.5)
    axes.set_ylim(len(rows) - 0.5, -0.5)


def _write(axes: "Axes", x: int, y: int, value: Spread) -> None:
    """The mean; below it, smaller, a deviation that is not 0."""
    ink = "white" if value.mean > 0.55 else INK
    number = "100" if value.mean == 1 else percent(value.mean)
    lift = 0.14 if value.std else 0
    axes.text(x, y - lift, number, ha="center", va="center", fontsize=9, color=ink)
    if value.std:
        deviation = f"± {spread_text(value.std)}"
        axes.text(x, y + 0.24, deviation, ha="center", va="center", fontsize=6.8, color=ink)


def _colours() -> "Colormap":
    """White to dark blue, even in lightness: readable in grey and with colour blindness."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list(
        "accuracy", ["#f3f6fa", "#c5d9ec", "#7fb0d8", "#2f7ab8", "#0b3c6f"]
    )
