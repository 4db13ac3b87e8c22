"""Heat maps of what is left of a memory (`fastweights.memory_map`)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastweights.memory_map import MemoryMap
from fastweights.report.style import GRID, INK, QUIET, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_COLUMNS = 4
MOST_LABELS = 40
"""Up to so many steps, each is named on the axes."""


def memory_figure(maps: Sequence[MemoryMap], steps: Sequence[str], scale: str) -> "Figure":
    """A panel a map; `steps` names what each step stored, `scale` what is drawn, from -1 to 1."""
    columns = min(MOST_COLUMNS, len(maps))
    rows = -(-len(maps) // columns)
    size = 5.2 if columns == 1 else 3.1
    figure = new_figure(size * columns + 1.0, size * rows + 0.6)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    drawn = None
    for axes, each in zip(grid.flatten(), maps, strict=False):
        drawn = axes.imshow(each.retrieved.cpu().float().numpy(), cmap="RdBu", vmin=-1, vmax=1)
        axes.set_title(each.title, fontsize=10, color=INK, loc="left")
        axes.tick_params(colors=QUIET, labelsize=7.5, length=2)
        axes.set_facecolor(GRID)  # below the diagonal: not stored yet
        for spine in axes.spines.values():
            spine.set_visible(False)
        if len(steps) <= MOST_LABELS:
            names = [step.replace("$", r"\$") for step in steps]  # no formulas
            long = any(len(step) > 2 for step in steps)
            axes.set_xticks(range(len(steps)), names, rotation=90 if long else 0)
            axes.set_yticks(range(len(steps)), names)
    for axes in grid.flatten()[len(maps) :]:
        axes.set_axis_off()
    figure.supxlabel("after this write", fontsize=10, color=INK)
    figure.supylabel("the pair stored here", fontsize=10, color=INK)
    assert drawn is not None
    bar = figure.colorbar(drawn, ax=grid, shrink=0.8)
    bar.set_label(scale, fontsize=8.5, color=INK)
    bar.ax.tick_params(colors=QUIET, labelsize=8)
    return figure
