"""Horizon: sequence accuracy at exact lengths, far beyond the training window."""

from typing import TYPE_CHECKING

from fastweights.report.cells import Study
from fastweights.report.length_curves import length_curves

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def horizon_curves(study: Study) -> "Figure | None":
    """One panel a language, see `length_curves`; None where no run has a horizon."""
    curves = {
        language: {model: study.cell(language, model).horizon() for model in study.models}
        for language in study.languages
    }
    windows = {language: study.windows(language) for language in study.languages}
    trained = {language: found.train[1] for language, found in windows.items() if found}
    return length_curves(
        curves, trained, study.models, "length of the string", "sequence accuracy, %"
    )
