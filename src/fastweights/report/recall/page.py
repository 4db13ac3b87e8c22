"""report.md of a recall study, from its runs, its figures and the command that remakes it."""

from collections.abc import Sequence

from fastweights.report.cells import Study
from fastweights.report.names import language_name
from fastweights.report.page import counted, ending, how, whole
from fastweights.report.recall.figure import training_lengths
from fastweights.report.recall.tables import accuracy_table, lengths

FIGURE = "recall_curves.png"


def title(study: Study) -> str:
    """What was compared, in numbers."""
    return f"Multi-query associative recall: {counted(study, 'tasks')}"


def page(study: Study, figures: Sequence[str], command: str) -> str:
    """The whole page."""
    parts = [f"# {title(study)}", how(study), "## Accuracy by length", _note()]
    for task in study.languages:
        if len(study.languages) > 1:
            parts.append(f"### {language_name(task).markdown}")
        if lengths(study, task):
            parts += [_trained(study, task), accuracy_table(study, task)]
    if FIGURE in figures:
        parts += [
            f"![Accuracy by length]({FIGURE})",
            "Mean over seeds, with a band from the worst to the best seed; the training lengths "
            "are shaded.",
        ]
    return whole([*parts, *ending(study, command, "task")])


def _note() -> str:
    return (
        "Queries answered with the right value, in %, on test sequences of exact lengths: mean ± "
        "sample standard deviation over the finished seeds (one seed has no deviation). The "
        "difference of two models is in percentage points, of the same seed each."
    )


def _trained(study: Study, task: str) -> str:
    trained = training_lengths(study, task)
    return f"Trained on lengths {', '.join(map(str, trained))}." if trained else ""
