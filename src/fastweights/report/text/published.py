"""What is published of the same comparisons: whether ours come out in the same order, and what a
carried state changes."""

from collections.abc import Mapping
from itertools import combinations
from typing import NamedTuple

from fastweights.experiments.sparse_language_models import PUBLISHED as SPARSE
from fastweights.experiments.wikitext103 import ROWS
from fastweights.report.cells import Cell, Spread, Study
from fastweights.report.names import language_name, model_name
from fastweights.report.tables import markdown_table
from fastweights.report.text.tables import bits, bits_text, differences, spread_of


class Published(NamedTuple):
    """Test perplexities by our model, of single runs.

    text: what they are of, and where from; carried: whether our runs beside them carry the state
    from segment to segment; bounds: models of which it is published only that they are above.
    """

    text: str
    carried: bool
    perplexity: Mapping[str, float]
    bounds: Mapping[str, float] = {}

    def above(self, model: str) -> float:
        """Its perplexity, or what that is above."""
        return {**self.perplexity, **self.bounds}[model]

    def shown(self, model: str) -> str:
        """`35.2`, `> 260`."""
        return f"> {self.bounds[model]:g}" if model in self.bounds else str(self.perplexity[model])


def _tests(rows: Mapping[str, str]) -> dict[str, float]:
    """By our model, from the name of the published row."""
    found = {model: ROWS[row].published.test for model, row in rows.items()}
    return {model: test for model, test in found.items() if test is not None}


_SMALL = {
    "lm_softmax": "small_transformer",
    "lm_linear": "small_linear",
    "lm_linear_dpfp": "small_dpfp",
    "lm_delta_net_dpfp": "small_dpfp_delta",
    "lm_recurrent_delta": "small_recurrent_delta",
    "lm_delta_rnn": "small_delta_rnn",
    "lm_delta_lstm": "small_delta_lstm",
}
_SMALL_CARRIED = {
    "lm_delta_rnn": "small_delta_rnn_carried",
    "lm_recurrent_delta": "small_recurrent_delta_carried",
}
_MEDIUM_CARRIED = {
    "lm_transformer_xl": "medium_transformer_xl",
    "lm_delta_net": "medium_delta_carried",
}
_FEED_FORWARDS = {
    "dense": "dense",
    "top_k": "top_128",
    "pkm": "pkm_parameters_relu_init",
    "switch": "switch",
    "s_base": "s_base",
    "sigma_moe": "sigma_moe",
}
_WT_S = {name: values[0] for name, values in SPARSE.items() if values[0] is not None}
_FEED_FORWARD_TEXT = (
    "WikiText-103, pieces of words, Transformer-XL of 47 million parameters that carries its "
    "memory (Csordás et al., 2023, Tables 1, 4, 6)"
)

PUBLISHED = (
    Published(
        "WikiText-103, words, 44 to 47 million parameters, context 256 (Schlag et al., 2021, "
        "Tables 2 and 5; Irie et al., 2021, who have 35.2 for DeltaNet where Table 2 has 35.5)",
        False,
        {**_tests(_SMALL), "lm_delta_net": 35.2},
    ),
    Published(
        "WikiText-103, words, 90 million parameters, state carried (Schlag et al., 2021, Table 4)",
        True,
        _tests(_MEDIUM_CARRIED),
        {"lm_linear": 260.0},
    ),
    Published(
        "WikiText-103, words, 44 million parameters, state carried (Irie et al., 2021)",
        True,
        _tests(_SMALL_CARRIED),
    ),
    Published(
        _FEED_FORWARD_TEXT, False, {model: _WT_S[row] for model, row in _FEED_FORWARDS.items()}
    ),
    Published(
        f"{_FEED_FORWARD_TEXT}; ours is below DeltaNet",
        False,
        {
            "lm_delta_net" if model == "dense" else f"lm_delta_net_{model}": _WT_S[row]
            for model, row in _FEED_FORWARDS.items()
        },
    ),
    *(
        Published(
            f"the same rows of WikiText-103, words, {size} (Schlag et al., 2021; Irie et al., "
            "2021)",
            carried,
            _tests(
                {
                    f"wt103_{row}": row
                    for row in ROWS
                    if row.startswith(size)
                    and (bool(ROWS[row].settings.get("task", {}).get("carry_state"))) == carried
                }
            ),
        )
        for size in ("small", "medium")
        for carried in (False, True)
    ),
    Published(_FEED_FORWARD_TEXT, True, {f"wt_s_{row}": value for row, value in _WT_S.items()}),
)

_CHANGES = {
    "lm_delta_net": ("medium_delta_no_positions", "medium_delta_carried"),
    "lm_delta_rnn": ("small_delta_rnn", "small_delta_rnn_carried"),
    "lm_recurrent_delta": ("small_recurrent_delta", "small_recurrent_delta_carried"),
}
CHANGES = {
    "lm_linear": f"{ROWS['medium_linear'].published.test} to > 260",
    **{
        model: " to ".join(str(ROWS[row].published.test) for row in rows)
        for model, rows in _CHANGES.items()
    },
}
"""Test perplexity without and with carried state, as published."""


class Order(NamedTuple):
    """How pairs of models, the better one as published first, come out: in the published order, the
    other way round, or undecided: closer than the standard deviation of their difference over the
    seeds, or of one seed alone."""

    same: list[tuple[str, str]]
    reversed: list[tuple[str, str]]
    undecided: list[tuple[str, str]]


def comparisons(study: Study, text: str) -> list[tuple[Published, list[Cell]]]:
    """The published comparisons of which two models at least have a result on a text, each with
    those models' cells, the best first as published."""
    found = []
    for published in PUBLISHED:
        order = sorted({**published.perplexity, **published.bounds}, key=published.above)
        cells = [study.cell(text, model) for model in order]
        cells = [
            cell
            for cell in cells
            if spread_of(cell, bits("test")) and _carried(cell) == published.carried
        ]
        if len(cells) > 1:
            found.append((published, cells))
    return found


def order_of(published: Published, cells: list[Cell]) -> Order:
    """Of all pairs whose published numbers differ; differences are of the same seed each."""
    order = Order([], [], [])
    for better, worse in combinations(cells, 2):
        less = Spread.of(differences(worse, better))
        if published.above(better.model) == published.above(worse.model) or not less:
            continue
        if less.std is None or abs(less.mean) <= less.std:
            kind = order.undecided
        else:
            kind = order.same if less.mean > 0 else order.reversed
        kind.append((better.model, worse.model))
    return order


def published_parts(study: Study, text: str) -> list[str]:
    """A table for each comparison and what it says of the order."""
    parts = []
    for published, cells in comparisons(study, text):
        rows = [
            [
                model_name(cell.model).markdown,
                published.shown(cell.model),
                bits_text(spread_of(cell, bits("test"))),
            ]
            for cell in cells
        ]
        header = ["model", "published perplexity", "bits per byte, test"]
        parts += [
            f"Published: {published.text}.",
            markdown_table(header, rows),
            _sentence(order_of(published, cells)),
        ]
    return parts


def carried_table(study: Study) -> str:
    """Rows models with and without carried state on one text; empty where there are none."""
    rows = []
    for alone in study.cells.values():
        for text in study.languages:
            cell = study.cell(text, alone.model)
            if _carried(alone) or not _carried(cell) or _source(cell) != _source(alone):
                continue
            name = model_name(cell.model).markdown
            if _positions(cell) != _positions(alone):
                name += f" (positions: {_positions(alone)}; carried: {_positions(cell)})"
            row = [language_name(alone.language).markdown, name]
            row += [bits_text(spread_of(each, bits("test"))) for each in (alone, cell)]
            row.append(bits_text(Spread.of(differences(cell, alone)), sign="+"))
            rows.append([*row, CHANGES.get(cell.model, "–")])
    header = ["text", "model", "segments", "carried", "change", "published perplexity"]
    return markdown_table(header, rows) if rows else ""


def _sentence(order: Order) -> str:
    total = sum(map(len, order))
    parts = [f"Pairs in the published order: {len(order.same)} of {total}"]
    if order.reversed:
        parts.append(f"{len(order.reversed)} the other way round ({_pairs(order.reversed)})")
    if order.undecided:
        parts.append(f"{len(order.undecided)} undecided ({_pairs(order.undecided)})")
    return f"{'; '.join(parts)}."


def _pairs(pairs: list[tuple[str, str]]) -> str:
    return "; ".join(" – ".join(model_name(model).markdown for model in pair) for pair in pairs)


def _carried(cell: Cell) -> bool:
    return any(run.config.get("task", {}).get("carry_state", False) for run in cell.done)


def _positions(cell: Cell) -> str:
    return " or ".join(sorted({str(run.config["model"].get("positions")) for run in cell.done}))


def _source(cell: Cell) -> set[str]:
    return {str(run.config.get("task", {}).get("text")) for run in cell.done}
