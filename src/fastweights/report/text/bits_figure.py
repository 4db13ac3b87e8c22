"""Learning curves of language models: bits per byte of the validation text against steps."""

from typing import TYPE_CHECKING

from fastweights.report.cells import Study
from fastweights.report.learning_curves import Curve, draw_models, step_axis
from fastweights.report.panels import is_left, language_panels, name_lines
from fastweights.report.style import INK, strokes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SHOWN_ABOVE = 0.6
"""Share of the lowest value at the end by which the y axis goes beyond it: the first steps, near 8
bits, would hide the differences at the end."""


def bits_by_step(study: Study) -> "Figure | None":
    """One panel a text; seeds thin, their mean bold; None without measurements."""
    curves = {
        text: {model: _curves(study, text, model) for model in study.models}
        for text in study.languages
    }
    texts = [text for text in study.languages if any(curves[text].values())]
    if not texts:
        return None
    drawn = strokes(study.models)
    figure, panels = language_panels(texts, study.models, drawn)
    for text, axes in panels.items():
        ends = draw_models(axes, curves[text], drawn)
        low, high = min(ends.values()), max(ends.values())
        first = max(values[0] for found in curves[text].values() for _, values in found)
        bottom, top = 0.95 * low, min(high + _SHOWN_ABOVE * low, first + 0.05 * low)
        axes.set_ylim(bottom, top)
        step_axis(axes)
        if is_left(panels, text):
            axes.set_ylabel("validation, bits per byte", fontsize=9.5, color=INK)
        if len(texts) == 1:
            name_lines(axes, ends, drawn, gap=(top - bottom) / 14)
    figure.supxlabel("optimizer steps", fontsize=9.5, color=INK)
    return figure


def _curves(study: Study, text: str, model: str) -> list[Curve]:
    found = (run.curve("validation", "bits_per_byte") for run in study.cell(text, model).runs)
    return [curve for curve in found if curve[0]]
