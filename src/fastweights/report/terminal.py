"""The table that the terminal shows of a study or run folder."""

from pathlib import Path

from rich.console import RenderableType

from fastweights.report.cells import arrange
from fastweights.report.length_table import accuracy_by_length
from fastweights.report.retrieval.loss_table import loss_by_size
from fastweights.report.retrieval.study import arrange as arrange_retrieval
from fastweights.report.retrieval.study import is_retrieval
from fastweights.report.runs import read_runs


def length_table(folder: Path) -> RenderableType:
    """Sequence accuracy by length of string; for associative retrieval, loss by number of keys.

    Raises ValueError, in one line, where `folder` holds no run or runs of both kinds.
    """
    runs = read_runs(Path(folder))
    if is_retrieval(runs):
        return loss_by_size(arrange_retrieval(runs))
    return accuracy_by_length(arrange(Path(folder), runs))
