"""How memories are drawn: colours of Okabe and Ito (2008) and two more; legends beside the axes."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fastweights.report.retrieval.memory import memory_name
from fastweights.report.style import INK, QUIET, Stroke
from fastweights.report.style import strokes as other_strokes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

# One figure shows one setting: there, no two memories share a colour or a marker. A feature map has
# the same colour in both, apart from DPFP-1, of which setting 2 has two.
_KNOWN = {
    "softmax": Stroke("#000000", "#000000", "o"),
    "sum_elu_plus_one": Stroke("#E69F00", "#8f6300", "^"),
    "sum_dpfp_1": Stroke("#009E73", "#00765a", "D"),
    "sum_dpfp_2": Stroke("#0072B2", "#005a8c", "P"),
    "sum_dpfp_3": Stroke("#56B4E9", "#1f6f9f", "X"),
    "sum_favor_64": Stroke("#CC79A7", "#9c4876", "v"),
    "sum_favor_128": Stroke("#D55E00", "#a84a00", "s"),
    "sum_favor_512": Stroke("#8a8a8a", "#5f5f5f", "h"),
    "sum_favor_128_scaled": Stroke("#882255", "#882255", "*"),
    "delta_elu_plus_one": Stroke("#E69F00", "#8f6300", "^"),
    "delta_dpfp_1": Stroke("#56B4E9", "#1f6f9f", "X"),
    "delta_dpfp_2": Stroke("#0072B2", "#005a8c", "P"),
    "delta_favor_64": Stroke("#CC79A7", "#9c4876", "v"),
    "delta_favor_128": Stroke("#D55E00", "#a84a00", "s"),
    "clamped_delta_dpfp_1": Stroke("#000000", "#000000", "o"),
    "clamped_delta_tanh": Stroke("#8a8a8a", "#5f5f5f", "h"),
}


def memory_strokes(models: Sequence[str]) -> dict[str, Stroke]:
    """The stroke of each memory, those not listed by their order."""
    others = other_strokes([model for model in models if model not in _KNOWN])
    return {model: _KNOWN.get(model) or others[model] for model in models}


def ours(stroke: Stroke, points: float) -> dict[str, Any]:
    """Line with filled markers."""
    return {
        "color": stroke.colour,
        "linewidth": 1.6,
        "marker": stroke.marker,
        "markersize": stroke.size(points),
        "markeredgecolor": "white",
        "markeredgewidth": 0.4,
    }


def theirs(stroke: Stroke, points: float) -> dict[str, Any]:
    """Thin dashed line with hollow markers."""
    return {
        "color": stroke.colour,
        "linewidth": 0.8,
        "linestyle": (0, (4, 2.5)),
        "marker": stroke.marker,
        "markersize": stroke.size(points),
        "markerfacecolor": "none",
        "markeredgewidth": 0.8,
    }


def legend_beside(
    figure: "Figure", strokes: Mapping[str, Stroke], styles: "Sequence[Line2D]"
) -> None:
    """Right of the axes: the memories, then what the styles of the lines mean."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], label=memory_name(model).figure, **ours(stroke, 6))
        for model, stroke in strokes.items()
    ]
    gap = Line2D([], [], linestyle="none", label=" ")
    legend = figure.legend(
        handles=[*handles, gap, *styles],
        loc="outside right center",
        frameon=False,
        fontsize=9.5,
        labelspacing=0.5,
    )
    inks = [stroke.ink for stroke in strokes.values()] + [INK] * (1 + len(styles))
    for text, ink in zip(legend.get_texts(), inks, strict=True):
        text.set_color(ink)


def style_handle(label: str, style: Mapping[str, Any]) -> "Line2D":
    """A grey entry of the legend."""
    from matplotlib.lines import Line2D

    return Line2D([], [], **{**style, "color": QUIET, "label": label})


def grey() -> Stroke:
    """For entries that stand for every memory."""
    return Stroke(QUIET, QUIET, "o")


def label_axes(axes: "Axes", across: str, up: str) -> None:
    """Names of both axes."""
    axes.set_xlabel(across, fontsize=9.5, color=INK)
    axes.set_ylabel(up, fontsize=9.5, color=INK)
