"""The tables of a report on language models, as Markdown."""

import math
from collections.abc import Callable

from fastweights.report.cells import Cell, Spread, Study
from fastweights.report.names import model_name
from fastweights.report.runs import Run
from fastweights.report.tables import joined, markdown_table, seeds_text, value_range
from fastweights.report.text.expert_figures import models_with_experts

_BASELINES = ("dense", "lm_delta_net")


def baseline(study: Study, text: str) -> Cell | None:
    """The model on a text that others are compared with; None where none of them was asked for."""
    found = (study.cell(text, model) for model in _BASELINES)
    return next((cell for cell in found if cell.runs), None)


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


def perplexity(run: Run) -> float | None:
    """Of the test text, where its tokens are not bytes; else it says what the bits say."""
    scores = run.result.splits.get("test") if run.result else None
    if scores is None or scores.bits_per_byte is None or scores.nats_per_token is None:
        return None
    of_bytes = math.isclose(scores.bits_per_byte * math.log(2), scores.nats_per_token, rel_tol=1e-6)
    return None if of_bytes else scores.perplexity


def reading_text(run: Run) -> str | None:
    """How its texts were read: `segments of 256`, `carried over pieces of 256`."""
    reading = run.result.reading if run.result else None
    if reading is None:
        return None
    pieces = "carried over pieces" if reading.window == "carried" else reading.window
    return f"{pieces} of {reading.context_length:,}"


def readings(study: Study) -> list[str]:
    """The distinct ones of the finished runs."""
    found = [text for run in study.runs if (text := reading_text(run))]
    return list(dict.fromkeys(found))


def differences(cell: Cell, other: Cell) -> list[float]:
    """Bits per byte of the test text less those of another model or text, one a seed that both
    finished."""
    one, two = ({run.seed: bits("test")(run) for run in each.done} for each in (cell, other))
    pairs = [(one[seed], two[seed]) for seed in one.keys() & two.keys()]
    return sorted(a - b for a, b in pairs if a is not None and b is not None)


def bits_table(study: Study, text: str) -> str:
    """Rows models, the best first; with perplexities where tokens are not bytes, and with the way
    of reading where there are several."""
    cells = [study.cell(text, model) for model in study.models]
    cells = sorted((cell for cell in cells if cell.runs), key=_test_bits)
    columns: dict[str, Callable[[Cell], str]] = {
        "model": lambda cell: model_name(cell.model).markdown,
        "seeds": seeds_text,
        "parameters": lambda cell: value_range(
            [run.result.num_parameters for run in cell.done if run.result], "{:,}"
        ),
        "validation": lambda cell: bits_text(spread_of(cell, bits("validation"))),
        "test": lambda cell: bits_text(spread_of(cell, bits("test"))),
    }
    base = baseline(study, text)
    if base:
        columns[f"test less {model_name(base.model).markdown}"] = lambda cell: (
            bits_text(Spread.of(differences(cell, base)), sign="+") if cell is not base else "–"
        )
    columns |= {
        "test perplexity": lambda cell: perplexity_text(spread_of(cell, perplexity)),
        "read": lambda cell: joined(map(reading_text, cell.done)),
        "CPU time, s": lambda cell: value_range(
            [run.result.cpu_s for run in cell.done if run.result], "{:.0f}"
        ),
    }
    if not any(spread_of(cell, perplexity) for cell in cells):
        del columns["test perplexity"]
    if len(readings(study)) < 2:
        del columns["read"]
    return markdown_table(list(columns), [[of(cell) for of in columns.values()] for cell in cells])


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


def perplexity_text(spread: Spread | None) -> str:
    """`34.1 ± 0.3`."""
    if spread is None:
        return "–"
    return f"{spread.mean:.2f}" + ("" if spread.std is None else f" ± {spread.std:.2f}")


def _test_bits(cell: Cell) -> float:
    spread = spread_of(cell, bits("test"))
    return spread.mean if spread else float("inf")
