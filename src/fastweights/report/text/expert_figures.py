"""What the experts of each model do: how evenly they are used, and which are used together."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from fastweights.report.cells import Study
from fastweights.report.names import model_name
from fastweights.report.runs import ExpertUsage, Run
from fastweights.report.style import INK, QUIET, new_figure, quiet_axes, strokes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = 3


def models_with_experts(study: Study) -> dict[str, list[Run]]:
    """The finished runs that know what their experts do, by model."""
    found = {
        model: [run for run in study.runs if run.model == model and run.experts]
        for model in study.models
    }
    return {model: runs for model, runs in found.items() if runs}


def expert_load(study: Study) -> "Figure | None":
    """One panel a model: the load of the experts of each layer, the busiest first, as a multiple of
    an even load; a line for each layer and seed. None without experts."""
    from matplotlib.ticker import MaxNLocator

    found = models_with_experts(study)
    if not found:
        return None
    drawn = strokes(study.models)
    figure, panels = _panels(list(found), width=3.2, height=2.4)
    for number, (model, runs) in enumerate(found.items()):
        axes = panels[model]
        quiet_axes(axes)
        axes.axhline(1, color=QUIET, linewidth=0.8, linestyle=":")
        for run in runs:
            for usage in run.experts.values():
                ordered = sorted(usage.load, reverse=True)
                multiples = [len(ordered) * share for share in ordered]
                ranks = range(1, len(ordered) + 1)
                axes.plot(ranks, multiples, color=drawn[model].colour, linewidth=1.0, alpha=0.6)
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if number % _COLUMNS == 0:
            axes.set_ylabel("load / even load", fontsize=9.5, color=INK)
    figure.supxlabel("experts of a layer, the busiest first", fontsize=9.5, color=INK)
    return figure


def expert_pairs(study: Study) -> "Figure | None":
    """One panel a model that chooses several experts a token: how often two experts are chosen
    together, as a multiple of what independent choices of the same loads would give; the last layer
    of the first seed, its experts by load. None without such a model."""
    found = {
        model: usage
        for model, runs in models_with_experts(study).items()
        if chosen_per_token(usage := _last_layer(runs[0].experts)) > 1.5
    }
    if not found:
        return None
    figure, panels = _panels(list(found), width=2.6, height=2.4)
    image = None
    for model, usage in found.items():
        axes = panels[model]
        image = axes.imshow(_lift(usage), cmap="viridis", vmin=0, vmax=3, interpolation="nearest")
        axes.set_xticks([])
        axes.set_yticks([])
    assert image is not None
    bar = figure.colorbar(image, ax=list(panels.values()), shrink=0.8, extend="max")
    bar.set_label("together / by chance", fontsize=9.5, color=INK)
    bar.ax.tick_params(colors=QUIET, labelsize=8.5)
    return figure


def chosen_per_token(usage: ExpertUsage) -> float:
    """K: experts that a token chooses."""
    return sum(_shares(usage))


def _shares(usage: ExpertUsage) -> list[float]:
    """Of each expert, the share of the tokens that chose it."""
    return [row[number] for number, row in enumerate(usage.together)]


def _last_layer(experts: Mapping[str, ExpertUsage]) -> ExpertUsage:
    return list(experts.values())[-1]


def _lift(usage: ExpertUsage) -> list[list[float]]:
    """P(i and j) / (P(i) P(j)), not a number on the diagonal and for dead experts."""
    share = _shares(usage)
    order = sorted(range(len(share)), key=lambda expert: -share[expert])
    return [
        [
            usage.together[i][j] / (share[i] * share[j])
            if i != j and share[i] * share[j] > 0
            else float("nan")
            for j in order
        ]
        for i in order
    ]


def _panels(models: list[str], width: float, height: float) -> "tuple[Figure, dict[str, Axes]]":
    columns = min(_COLUMNS, len(models))
    rows = -(-len(models) // columns)
    figure = new_figure(width * columns + 0.6, height * rows + 0.3)
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes in grid[len(models) :]:
        axes.set_axis_off()
    panels = dict(zip(models, grid, strict=False))
    for model, axes in panels.items():
        axes.set_title(model_name(model).figure, fontsize=10.5, color=INK, loc="left")
    return figure, panels
