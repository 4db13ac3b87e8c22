"""The report's tables, as Markdown."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from fastweights.report.cells import Cell, Study
from fastweights.report.names import escape_markdown, language_name, model_name
from fastweights.report.percent import percent_spread
from fastweights.report.published import (
    CLAIMS,
    EVIDENCE,
    EXPECTATIONS,
    THEORY,
    Claim,
    Expectation,
    claim,
)
from fastweights.report.runs import Run

SOLVED = 0.99  # mean Bin 1 accuracy from which a cell counts as solved


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, first column to the left, others centred. Cells are Markdown already."""
    lines = ["| " + " | ".join(header) + " |"]
    lines.append("|" + "|".join([":--"] + [":-:"] * (len(header) - 1)) + "|")
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def accuracy_text(cell: Cell) -> str:
    """`Bin 0 / Bin 1` in %, with spread, number of finished seeds and how many did not finish."""
    if not cell.runs:
        return "–"
    bins = [cell.accuracy(split) for split in ("bin0", "bin1")]
    missing = len(cell.runs) - len(cell.done)
    if not any(bins):
        return (
            f"– ({len(cell.done)}{_unfinished(missing)})"
            if cell.done
            else f"– ({missing} not finished)"
        )
    text = " / ".join(percent_spread(value.mean, value.std) if value else "–" for value in bins)
    count = max(value.count for value in bins if value)
    return f"{text} ({count}{_unfinished(missing)})"


def seeds_text(cell: Cell) -> str:
    """Finished seeds, `2 of 3` where some are not."""
    done, asked = len(cell.done), len(cell.runs)
    return str(done) if done == asked else f"{done} of {asked}"


def claim_text(known: Claim | None) -> str:
    """Published numbers with their source, or that there are none; then what theory expects."""
    if known is None:
        return "–"
    parts = []
    if known.bin0 is not None and known.bin1 is not None:
        numbers = f"{100 * known.bin0:.4g} / {100 * known.bin1:.4g} [{known.source}]"
        parts.append(f"{numbers}, {known.statement}" if known.statement else numbers)
    elif known.statement:
        parts.append(f"{known.statement} [{known.source}]")
    if known.expectation != "open":
        parts.append(f"*{known.expectation}* ({', '.join(known.reasons)})")
    return "; ".join(parts) or "*open*"


def horizon_text(cell: Cell) -> str:
    """The longest length that holds, `low – high` over seeds; `≥` where no longer one was tried."""
    reached = []
    for run in cell.done:
        horizon = run.result.horizon if run.result else None
        if horizon and horizon.longest_length is not None and horizon.lengths:
            reached.append((horizon.longest_length, max(horizon.lengths)))
    if not reached:
        return "–"
    low, high = min(reached), max(reached)
    texts = [
        f"≥ {longest}" if longest >= tried else str(longest) if longest else "none"
        for longest, tried in (low, high)
    ]
    return texts[0] if texts[0] == texts[1] else f"{texts[0]} – {texts[1]}"


def accuracy_table(study: Study) -> str:
    """Rows models, columns languages, cells `Bin 0 / Bin 1`."""
    return _grid(study, accuracy_text)


def horizon_table(study: Study) -> str:
    """Rows models, columns languages, cells the longest length that holds."""
    return _grid(study, horizon_text)


def published_table(study: Study) -> str:
    """Rows models, columns languages, cells what is published or follows from theory."""
    return _grid(study, lambda cell: claim_text(claim(cell.language, cell.model)))


def side_by_side_table(study: Study) -> str:
    """One language: measured, published and horizon in one row a model."""
    (language,) = study.languages
    cells = [study.cell(language, model) for model in study.models]
    header = ["model", "Bin 0 / Bin 1, %", "published or expected", "longest length"]
    return markdown_table(
        header,
        (
            [
                model_name(cell.model).markdown,
                accuracy_text(cell),
                claim_text(claim(language, cell.model)),
                horizon_text(cell),
            ]
            for cell in cells
        ),
    )


def disagreements(study: Study) -> tuple[int, list[dict[str, str]]]:
    """How many measured cells have a definite expectation (`solves` or `fails`), and those of them
    that came out otherwise; solved means a mean Bin 1 accuracy of at least `SOLVED`."""
    compared, different = 0, []
    for cell in study.cells.values():
        known, bin1 = claim(cell.language, cell.model), cell.accuracy("bin1")
        if known is None or bin1 is None or known.expectation not in ("solves", "fails"):
            continue
        compared += 1
        measured = "solves" if bin1.mean >= SOLVED else "fails"
        if measured != known.expectation:
            different.append(
                {
                    "language": cell.language,
                    "model": cell.model,
                    "expected": known.expectation,
                    "reasons": ", ".join(known.reasons),
                    "measured": percent_spread(bin1.mean, bin1.std),
                }
            )
    return compared, different


def configuration(cell: Cell) -> dict[str, str]:
    """What was run, as text: equal over seeds once, else from the smallest to the largest."""
    models = [_section(run, "model") for run in cell.runs]
    options = [_section(run, "model", "layer_options") for run in cell.runs]
    trainings = [_section(run, "training") for run in cell.runs]
    results = [run.result for run in cell.done if run.result]
    return {
        "layer": joined([model.get("layer") for model in models]),
        "layers": value_range([model.get("num_layers") for model in models], "{:g}"),
        "dim": value_range([model.get("dim") for model in models], "{:g}"),
        "feed-forward": joined([_feed_forward(model) for model in models]),
        "heads": value_range([each.get("num_heads") for each in options], "{:g}"),
        "options": joined([_options(each) for each in options]),
        "lr": value_range([training.get("lr") for training in trainings], "{:g}"),
        "batch": value_range([training.get("batch_size") for training in trainings], "{:g}"),
        "parameters": value_range([result.num_parameters for result in results], "{:,}"),
        "steps": value_range([result.steps for result in results], "{:,}"),
        "selected step": value_range([result.selected_step for result in results], "{:,}"),
        "stopped because": joined([result.stopped_because for result in results]),
        "wall time, s": value_range([result.wall_s for result in results], "{:.0f}"),
    }


def configuration_table(study: Study, task: str = "language") -> str:
    """One row a cell; `task` is what the tasks are called."""
    described = [(cell, configuration(cell)) for cell in study.cells.values()]
    columns = list(described[0][1])
    return markdown_table(
        [task, "model", *columns],
        (
            [
                language_name(cell.language).markdown,
                model_name(cell.model).markdown,
                *(escape_markdown(found[column]) for column in columns),
            ]
            for cell, found in described
        ),
    )


class ClaimKeys(NamedTuple):
    """The keys of EXPECTATIONS, EVIDENCE and THEORY that need explaining."""

    expectations: list[Expectation]
    evidence: list[str]
    theory: list[str]


def claim_keys(study: Study) -> ClaimKeys:
    """What the published claims of this study's cells refer to."""
    shown = [
        known
        for language in study.languages
        for model in study.models
        if (known := claim(language, model))
    ]
    text = " ".join(claim_text(known) for known in shown)
    reasons = {reason for known in shown for reason in known.reasons}
    return ClaimKeys(
        [name for name in EXPECTATIONS if f"*{name}*" in text],
        [key for key in EVIDENCE if f"[{key}]" in text],
        [key for key in THEORY if key in reasons],
    )


def has_claims(study: Study) -> bool:
    """Whether anything is known of any cell of the study."""
    return any(
        language in CLAIMS.get(model, {}) for language in study.languages for model in study.models
    )


def _grid(study: Study, text: Callable[[Cell], str]) -> str:
    return markdown_table(
        ["model", *(language_name(language).markdown for language in study.languages)],
        (
            [
                model_name(model).markdown,
                *(text(study.cell(language, model)) for language in study.languages),
            ]
            for model in study.models
        ),
    )


def _unfinished(count: int) -> str:
    return f", {count} not finished" if count else ""


def _section(run: Run, *names: str) -> Mapping[str, Any]:
    found: Any = run.config
    for name in names:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _feed_forward(model: Mapping[str, Any]) -> str:
    """Its name, width and options; runs from before there was a choice say the width alone."""
    if model.get("block") == "plain":
        return "none"
    name = model.get("feed_forward", "dense")
    options = {"ff_dim": model.get("ff_dim"), **model.get("feed_forward_options", {})}
    kept = (f"{option} {value}" for option, value in options.items() if value is not None)
    return ", ".join([str(name), *kept])


def _options(options: Mapping[str, Any]) -> str | None:
    return ", ".join(f"{name} {options[name]}" for name in options if name != "num_heads") or None


def value_range(values: Iterable[Any], form: str) -> str:
    numbers = [value for value in values if isinstance(value, int | float) and math.isfinite(value)]
    if not numbers:
        return "–"
    low, high = form.format(min(numbers)), form.format(max(numbers))
    return low if low == high else f"{low} – {high}"


def joined(values: Iterable[Any]) -> str:
    texts = [str(value) for value in values if value is not None]
    return "; ".join(dict.fromkeys(texts)) or "–"
