"""One report: report.md, report.json and the figures, from a study folder or a run folder."""

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fastweights.atomic import write_bytes, write_text
from fastweights.report.cells import arrange
from fastweights.report.data import report_data, to_json
from fastweights.report.heat_map import heat_map
from fastweights.report.horizon_curves import horizon_curves
from fastweights.report.kind import Kind, kind_of
from fastweights.report.learning_curves import learning_curves
from fastweights.report.page import page
from fastweights.report.recall import data as recall_data
from fastweights.report.recall import page as recall_page
from fastweights.report.recall.figure import accuracy_curves
from fastweights.report.retrieval import data as retrieval_data
from fastweights.report.retrieval import page as retrieval_page
from fastweights.report.retrieval.size_figure import loss_by_size
from fastweights.report.retrieval.step_figure import loss_by_step
from fastweights.report.retrieval.study import arrange as arrange_retrieval
from fastweights.report.runs import Run, read_runs
from fastweights.report.style import png
from fastweights.report.text import data as text_data
from fastweights.report.text import page as text_page
from fastweights.report.text.bits_figure import bits_by_step
from fastweights.report.text.expert_figures import expert_load, expert_pairs
from fastweights.report.text.position_figure import bits_by_position

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class _Parts(NamedTuple):
    """What a report is made of: figures by file name, None where the runs have no numbers for one;
    data and page, given the names of the figures that there are and the command."""

    figures: "Mapping[str, Figure | None]"
    data: Callable[[Sequence[str], str], dict[str, Any]]
    page: Callable[[Sequence[str], str], str]


def build_report(folder: Path, out: Path | None = None) -> Path:
    """Write the report into `out` (default: the folder itself) and return the path of report.md.

    The same run folders give the same bytes. Each file is renamed into its place when it is whole.
    Raises ValueError, in one line, where `folder` holds no run, or runs of two kinds of task, or
    where `out` is a file.
    """
    folder = Path(folder)
    runs = read_runs(folder)
    parts = _PARTS[kind_of(runs)](folder, runs)
    target = folder if out is None else Path(out)
    if target.exists() and not target.is_dir():
        raise ValueError(f"{target}: is not a folder")
    target.mkdir(parents=True, exist_ok=True)
    figures = _draw(parts.figures, target)
    command = f"fastweights report {shlex.quote(_shown(folder))}"
    if out is not None and target.resolve() != folder.resolve():
        command += f" --out {shlex.quote(_shown(target))}"
    write_text(target / "report.json", to_json(parts.data(figures, command)))
    write_text(target / "report.md", parts.page(figures, command))
    return target / "report.md"


def _of_formal_languages(folder: Path, runs: Sequence[Run]) -> _Parts:
    study = arrange(folder, runs)
    drawn = {
        "accuracy_heat_map.png": heat_map(study),
        "horizon_curves.png": horizon_curves(study),
        "learning_curves.png": learning_curves(study),
    }
    return _Parts(drawn, partial(report_data, study), partial(page, study))


def _of_retrieval(folder: Path, runs: Sequence[Run]) -> _Parts:
    study = arrange_retrieval(runs)
    drawn = {}
    for setting in study.settings:
        by_size, by_step = retrieval_page.FIGURES[setting]
        drawn[by_size] = loss_by_size(study, setting)
        drawn[by_step] = loss_by_step(study, setting)
    return _Parts(
        drawn,
        partial(retrieval_data.report_data, study),
        partial(retrieval_page.page, study),
    )


def _of_recall(folder: Path, runs: Sequence[Run]) -> _Parts:
    study = arrange(folder, runs)
    return _Parts(
        {recall_page.FIGURE: accuracy_curves(study)},
        partial(recall_data.report_data, study),
        partial(recall_page.page, study),
    )


def _of_text(folder: Path, runs: Sequence[Run]) -> _Parts:
    study = arrange(folder, runs)
    drawn = {
        text_page.BITS: bits_by_step(study),
        text_page.POSITIONS: bits_by_position(study),
        text_page.LOAD: expert_load(study),
        text_page.TOGETHER: expert_pairs(study),
    }
    return _Parts(drawn, partial(text_data.report_data, study), partial(text_page.page, study))


_PARTS: dict[Kind, Callable[[Path, Sequence[Run]], _Parts]] = {
    "formal languages": _of_formal_languages,
    "retrieval": _of_retrieval,
    "recall": _of_recall,
    "text": _of_text,
}


def _draw(drawn: "Mapping[str, Figure | None]", target: Path) -> list[str]:
    """Write the figures that the runs have numbers for; returns their file names."""
    names = []
    for name, figure in drawn.items():
        if figure is not None:
            write_bytes(target / name, png(figure))
            names.append(name)
    return names


def _shown(path: Path) -> str:
    """The path below the working folder; the name alone for a place outside of it, so that a page
    tells nothing about the machine it was made on."""
    below = os.path.relpath(path.resolve())
    return path.resolve().name if below.startswith("..") else Path(below).as_posix()
