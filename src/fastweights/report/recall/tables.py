"""The tables of a recall report, as Markdown."""

from fastweights.report.cells import Spread, Study
from fastweights.report.names import model_name
from fastweights.report.percent import percent_spread, spread_text
from fastweights.report.tables import markdown_table, seeds_text

PAIRS = (
    ("delta_net_conv", "linear_transformer_conv"),
    ("delta_net_dpfp_conv", "linear_transformer_dpfp_conv"),
)
"""Models with the same feature map and memories of the same size, whose difference is shown."""


def lengths(study: Study, task: str) -> list[int]:
    """The lengths that a finished run of a task has measured."""
    cells = (study.cell(task, model) for model in study.models)
    return sorted({length for cell in cells for length in cell.by_length()})


def differences(study: Study, task: str, pair: tuple[str, str]) -> dict[int, list[float]]:
    """Length -> the first model's accuracy less the second's, one a seed that both finished."""
    one, other = ({run.seed: run.by_length() for run in study.cell(task, m).done} for m in pair)
    found: dict[int, list[float]] = {}
    for seed in one.keys() & other.keys():
        for length in one[seed].keys() & other[seed].keys():
            found.setdefault(length, []).append(one[seed][length] - other[seed][length])
    return dict(sorted(found.items()))


def accuracy_table(study: Study, task: str) -> str:
    """Rows models, and the differences of pairs; columns lengths."""
    columns = lengths(study, task)
    rows = []
    for model in study.models:
        cell = study.cell(task, model)
        values = [Spread.of(cell.by_length().get(length, [])) for length in columns]
        texts = [percent_spread(value.mean, value.std) if value else "–" for value in values]
        rows.append([model_name(model).markdown, seeds_text(cell), *texts])
    for pair in PAIRS:
        difference = differences(study, task, pair)
        if difference:
            values = [Spread.of(difference.get(length, [])) for length in columns]
            count = str(max(map(len, difference.values())))
            names = " less ".join(model_name(model).markdown for model in pair)
            rows.append([names, count, *(points_text(value) if value else "–" for value in values)])
    return markdown_table(["model", "seeds", *(f"{length:,}" for length in columns)], rows)


def points_text(spread: Spread) -> str:
    """A difference of accuracies in percentage points, with its sign."""
    text = f"{100 * spread.mean:+.1f}"
    return text if spread.std is None else f"{text} ± {spread_text(spread.std)}"
