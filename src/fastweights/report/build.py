"""One report: report.md, report.json and the figures, from a study folder or a run folder."""

import os
import shlex
from pathlib import Path

from fastweights.atomic import write_bytes, write_text
from fastweights.report.cells import Study, read_study
from fastweights.report.data import report_data, to_json
from fastweights.report.heat_map import heat_map
from fastweights.report.horizon_curves import horizon_curves
from fastweights.report.learning_curves import learning_curves
from fastweights.report.page import page
from fastweights.report.style import png


def build_report(folder: Path, out: Path | None = None) -> Path:
    """Write the report into `out` (default: the folder itself) and return the path of report.md.

    The same run folders give the same bytes. Each file is renamed into its place when it is whole.
    Raises ValueError, in one line, where `folder` holds no run or `out` is a file.
    """
    folder = Path(folder)
    study = read_study(folder)
    target = folder if out is None else Path(out)
    if target.exists() and not target.is_dir():
        raise ValueError(f"{target}: is not a folder")
    target.mkdir(parents=True, exist_ok=True)
    figures = _draw(study, target)
    command = f"fastweights report {shlex.quote(_shown(folder))}"
    if out is not None and target.resolve() != folder.resolve():
        command += f" --out {shlex.quote(_shown(target))}"
    write_text(target / "report.json", to_json(report_data(study, figures, command)))
    write_text(target / "report.md", page(study, figures, command))
    return target / "report.md"


def _draw(study: Study, target: Path) -> list[str]:
    """Write the figures that the runs have numbers for; returns their file names."""
    drawn = {
        "accuracy_heat_map.png": heat_map(study),
        "horizon_curves.png": horizon_curves(study),
        "learning_curves.png": learning_curves(study),
    }
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
