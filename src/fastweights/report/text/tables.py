"""The tables of a report on language models, as Markdown."""

from collections.abc import Callable

from fastweights.report.cells import Cell, Spread, Study
from fastweights.report.names import model_name
from fastweights.report.runs import Run
from fastweights.report.tables import markdown_table, seeds_text, value_range
from fastweights.report.text.expert_figures import models_with_experts

BASELINE = "dense"
"""Others are compared with this model, where it is there."""


def spread_of(cell: Cell, number: Callable[[Run], float | None]) -> Spread | None:
    """Over the finished runs that have the number."""
    found = [number(run) for run in cell.done]
    return Spread.of([value for value in found if value is not None])


def bits(split: str) -> Callable[[Run], float | None]:
    """Bits per byte of a split of a run."""

    def of_run(run: Run) -> float | None:
        scores = run.result.splits.get(split) if run.result else None
        return scores.bits_per_byte if scores else None

    return of_run


def differences(study: Study, text: str, model: str) -> list[float]:
    """Bits per byte of the test text less those of BASELINE, one a seed that both finished."""
    one, other = (
        {run.seed: bits("test")(run) for run in study.cell(text, each).done}
        for each in (model, BASELINE)
    )
    pairs = [(one[seed], other[seed]) for seed in one.keys() & other.keys()]
    return sorted(a - b for a, b in pairs if a is not None and b is not None)


def bits_table(study: Study, text: str) -> str:
    """Rows models, the best first."""
    cells = [study.cell(text, model) for model in study.models]
    rows = []
    for cell in sorted(cells, key=_test_bits):
        difference = Spread.of(differences(study, text, cell.model))
        rows.append(
            [
                model_name(cell.model).markdown,
                seeds_text(cell),
                value_range([run.result.num_parameters for run in cell.done if run.result], "{:,}"),
                bits_text(spread_of(cell, bits("validation"))),
                bits_text(spread_of(cell, bits("test"))),
                bits_text(difference, sign="+") if cell.model != BASELINE else "–",
                value_range([run.result.cpu_s for run in cell.done if run.result], "{:.0f}"),
            ]
        )
    less = f"test less {model_name(BASELINE).markdown}"
    header = ["model", "seeds", "parameters", "validation", "test", less, "CPU time, s"]
    return markdown_table(header, rows)


def experts_table(study: Study) -> str:
    """Rows models with experts; over all layers and seeds."""
    rows = []
    for model, runs in models_with_experts(study).items():
        usages = [usage for run in runs for usage in run.experts.values()]
        largest = max(len(usage.load) * max(usage.load) for usage in usages)
        rows.append(
            [
                model_name(model).markdown,
                str(len(usages)),
                f"{sum(usage.entropy for usage in usages) / len(usages):.3f}",
                f"{largest:.1f}",
                f"{sum(usage.num_dead for usage in usages)} of {sum(len(u.load) for u in usages)}",
            ]
        )
    header = ["model", "layers x seeds", "entropy of the load", "largest load", "dead experts"]
    return markdown_table(header, rows) if rows else ""


def bits_text(spread: Spread | None, sign: str = "") -> str:
    """`1.834 ± 0.012`."""
    if spread is None:
        return "–"
    text = f"{spread.mean:{sign}.3f}"
    return text if spread.std is None else f"{text} ± {spread.std:.3f}"


def _test_bits(cell: Cell) -> float:
    spread = spread_of(cell, bits("test"))
    return spread.mean if spread else float("inf")
