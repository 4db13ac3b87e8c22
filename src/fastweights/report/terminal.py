"""The table that the terminal shows of a study or run folder."""

from pathlib import Path

from rich.console import RenderableType

from fastweights.report.cells import arrange
from fastweights.report.kind import kind_of
from fastweights.report.length_table import accuracy_by_length
from fastweights.report.recall.length_table import recall_by_length
from fastweights.report.retrieval.loss_table import loss_by_size
from fastweights.report.retrieval.study import arrange as arrange_retrieval
from fastweights.report.runs import read_runs
from fastweights.report.text.bits_table import bits_by_model


def length_table(folder: Path) -> RenderableType:
    """Sequence accuracy by length of string; for associative retrieval, loss by number of keys;
    for recall, accuracy over the queries by length; for text, bits per byte.

    Raises ValueError, in one line, where `folder` holds no run or runs of two kinds.
    """
    runs = read_runs(Path(folder))
    match kind_of(runs):
        case "retrieval":
            return loss_by_size(arrange_retrieval(runs))
        case "recall":
            return recall_by_length(arrange(Path(folder), runs))
        case "text":
            return bits_by_model(arrange(Path(folder), runs))
        case "formal languages":
            return accuracy_by_length(arrange(Path(folder), runs))
