"""The look of the figures: one colour and marker a model, quiet axes, no pyplot state.

Colours are those of Okabe and Ito (2008) without yellow, which is too faint on white, and a grey;
further models take from Tol's muted scheme. Both stay apart for readers with colour blindness.
"""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#222222"
QUIET = "#6b6b6b"
GRID = "#e4e4e4"
SHADE = "#f0efe9"


class Stroke(NamedTuple):
    """How a model is drawn: `ink` is the colour dark enough for text on white."""

    colour: str
    ink: str
    marker: str

    def size(self, points: float) -> float:
        """Marker size at which all markers look about as large as a circle of `points`."""
        return points * _MARKER_SCALE.get(self.marker, 1.0)


_MARKER_SCALE = {"*": 1.75, "P": 1.3, "X": 1.3, "s": 0.95, "D": 0.9, "^": 1.15, "v": 1.15}
_KNOWN = {
    "lstm": Stroke("#000000", "#000000", "o"),
    "e_lstm": Stroke("#8a8a8a", "#5f5f5f", "s"),
    "transformer": Stroke("#E69F00", "#8f6300", "^"),
    "linear_transformer": Stroke("#D55E00", "#a84a00", "v"),
    "delta_net": Stroke("#56B4E9", "#1f6f9f", "D"),
    "delta_net_0_2": Stroke("#0072B2", "#005a8c", "P"),
    "recurrent_delta_net": Stroke("#009E73", "#00765a", "X"),
    "srwm": Stroke("#CC79A7", "#9c4876", "*"),
}
_KNOWN |= {
    "softmax_attention_conv": _KNOWN["transformer"],
    "linear_transformer_conv": _KNOWN["linear_transformer"],
    "linear_transformer_dpfp_conv": _KNOWN["srwm"],
    "delta_net_conv": _KNOWN["delta_net_0_2"],
    "delta_net_dpfp_conv": _KNOWN["delta_net"],
    "lm_softmax": _KNOWN["transformer"],
    "lm_transformer_xl": _KNOWN["lstm"],
    "lm_linear": _KNOWN["linear_transformer"],
    "lm_linear_dpfp": _KNOWN["e_lstm"],
    "lm_delta_net": _KNOWN["delta_net"],
    "lm_delta_net_dpfp": _KNOWN["delta_net_0_2"],
    "lm_recurrent_delta": _KNOWN["recurrent_delta_net"],
    "lm_srwm": _KNOWN["srwm"],
}
_OTHERS = ("#332288", "#882255", "#999933", "#44AA99", "#AA4499", "#117733", "#CC6677")
_OTHER_MARKERS = ("p", "h", "<", ">", "d", "8", "H")


def strokes(models: Sequence[str]) -> dict[str, Stroke]:
    """The stroke of each model; models that are not known share further colours by their order, of
    those with the same colour each with its own marker."""
    others = sorted(set(models) - set(_KNOWN))
    drawn = dict(_KNOWN)
    for number, model in enumerate(others):
        turn, place = divmod(number, len(_OTHERS))
        marker = _OTHER_MARKERS[(place + turn) % len(_OTHER_MARKERS)]
        drawn[model] = Stroke(_OTHERS[place], _OTHERS[place], marker)
    return {model: drawn[model] for model in models}


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of `width` x `height` inches, which no global state knows of."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=150, layout="constrained", facecolor="white")


def quiet_axes(axes: "Axes") -> None:
    """Left and bottom lines only, thin horizontal grid, small grey ticks."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(QUIET)
        axes.spines[side].set_linewidth(0.8)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", colors=QUIET, labelsize=8.5, length=3, width=0.8)


def percent_axis(axes: "Axes", label: str | None) -> None:
    """A y axis from 0 to 100 %, with room for markers at both ends."""
    axes.set_ylim(-6, 106)
    axes.set_yticks([0, 25, 50, 75, 100])
    if label:
        axes.set_ylabel(label, fontsize=9.5, color=INK)


def png(figure: "Figure") -> bytes:
    """The figure as PNG; the same bytes for the same data and version of matplotlib."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def spread_apart(positions: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions at least `gap` apart and inside [low, high], in the same order, moved little."""
    order = sorted(range(len(positions)), key=lambda index: (positions[index], -index))
    gap = min(gap, (high - low) / max(1, len(positions) - 1))
    placed = [positions[index] for index in order]
    for _ in range(200):
        for i in range(1, len(placed)):
            lack = gap - (placed[i] - placed[i - 1])
            if lack > 0:
                placed[i - 1] -= lack / 2
                placed[i] += lack / 2
    for i in reversed(range(len(placed))):
        placed[i] = min(placed[i], high if i == len(placed) - 1 else placed[i + 1] - gap)
    for i in range(len(placed)):
        placed[i] = max(placed[i], low if i == 0 else placed[i - 1] + gap)
    return [placed[order.index(index)] for index in range(len(positions))]
