"""What is published of the same comparisons: whether ours come out in the same order, and what a
carried state changes."""

from collections.abc import Mapping
from itertools import combinations
from typing import NamedTuple

from fastweights.experiments import sparse_language_models, wikitext103
from fastweights.report.cells import Cell, Spread, Study
from fastweights.report.names import language_name, model_name
from fastweights.report.tables import markdown_table
from fastweights.report.text.tables import bits, bits_text, differences, spread_of


class Published(NamedTuple):
    """Test perplexities by model, single runs; `carried`: with the state carried from segment to
    segment; `text`: what they are of."""

    text: str
    carried: bool
    perplexity: Mapping[str, float]


def _word_models(rows: Mapping[str, str]) -> dict[str, float]:
    """By model of ours: row of the published study."""
    tests = {model: wikitext103.ROWS[row].published.test for model, row in rows.items()}
    return {model: test for model, test in tests.items() if test is not None}


def _feed_forwards(prefix: str, dense: str) -> dict[str, float]:
    rows = {
        "dense": "dense",
        "top_k": "top_128",
        "pkm": "pkm_parameters_relu_init",
        "switch": "switch",
        "s_base": "s_base",
        "sigma_moe": "sigma_moe",
    }
    tests = {name: sparse_language_models.PUBLISHED[row][0] for name, row in rows.items()}
    return {
        dense if name == "dense" else prefix + name: test
        for name, test in tests.items()
        if test is not None
    }


PUBLISHED = (
    Published(
        "WikiText-103, words, 44 to 47 million parameters, context 256 (Schlag et al., 2021, "
        "Tables 2 and 5; Irie et al., 2021)",
        False,
        {
            **_word_models(
                {
                    "lm_softmax": "small_transformer",
                    "lm_linear": "small_linear",
                    "lm_linear_dpfp": "small_dpfp",
                    "lm_delta_net_dpfp": "small_dpfp_delta",
                    "lm_recurrent_delta": "small_recurrent_delta",
                    "lm_delta_rnn": "small_delta_rnn",
                    "lm_delta_lstm": "small_delta_lstm",
                }
            ),
            "lm_delta_net": 35.2,  # beside its successors, Irie et al. (2021); Table 2 has 35.5
        },
    ),
    Published(
        "WikiText-103, words, 90 million parameters, state carried; of the sum rule it is known "
        "that it is above 260 (Schlag et al., 2021, Table 4)",
        True,
        {
            **_word_models(
                {
                    "lm_transformer_xl": "medium_transformer_xl",
                    "lm_delta_net": "medium_delta_carried",
                }
            ),
            "lm_linear": 260.0,
        },
    ),
    Published(
        "WikiText-103, words, 44 million parameters, state carried (Irie et al., 2021)",
        True,
        _word_models(
            {
                "lm_delta_rnn": "small_delta_rnn_carried",
                "lm_recurrent_delta": "small_recurrent_delta_carried",
            }
        ),
    ),
    Published(
        "WikiText-103, pieces of words, Transformer-XL of 47 million parameters (Csordás et al., "
        "2023, Tables 1, 4, 6)",
        False,
        _feed_forwards("", "dense"),
    ),
    Published(
        "the feed-forward layers of Csordás et al. (2023, Tables 1, 4, 6), in Transformer-XL",
        False,
        _feed_forwards("lm_delta_net_", "lm_delta_net"),
    ),
)
CHANGES = {
    "lm_linear": "33.0 to above 260 (90 million parameters)",
    "lm_delta_net": "31.1 to 29.4 (90 million parameters)",
    "lm_delta_rnn": "35.0 to 32.8 (45 million parameters)",
    "lm_recurrent_delta": "35.2 to 33.6 (44 million parameters)",
}
"""Test perplexity without and with carried state, as published."""


class Order(NamedTuple):
    """How pairs of models, the better one as published first, come out: in the published order, the
    other way round, or closer than the standard deviation of their difference over the seeds."""

    same: list[tuple[str, str]]
    reversed: list[tuple[str, str]]
    undecided: list[tuple[str, str]]


def comparisons(study: Study, text: str) -> list[tuple[Published, list[Cell]]]:
    """The published comparisons of which two models at least have a result on a text, each with
    those models' cells, the best first as published."""
    found = []
    for published in PUBLISHED:
        order = sorted(published.perplexity, key=lambda model: published.perplexity[model])
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
        if published.perplexity[better.model] == published.perplexity[worse.model] or not less:
            continue
        if abs(less.mean) <= (less.std or 0.0):
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
                str(published.perplexity[cell.model]),
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
            row = [language_name(alone.language).markdown, model_name(cell.model).markdown]
            row += [bits_text(spread_of(each, bits("test"))) for each in (alone, cell)]
            row.append(bits_text(Spread.of(differences(cell, alone)), sign="+"))
            rows.append([*row, CHANGES.get(cell.model, "–")])
    header = ["text", "model", "segments", "carried", "change", "published perplexity"]
    return markdown_table(header, rows) if rows else ""


def _sentence(order: Order) -> str:
    total = sum(map(len, order))
    parts = [f"Of {total} pairs, {len(order.same)} come out in the published order"]
    if order.reversed:
        parts.append(f"{len(order.reversed)} the other way round ({_pairs(order.reversed)})")
    if order.undecided:
        parts.append(
            f"{len(order.undecided)} closer than the standard deviation of their difference "
            f"({_pairs(order.undecided)})"
        )
    return f"{'; '.join(parts)}."


def _pairs(pairs: list[tuple[str, str]]) -> str:
    return "; ".join(" – ".join(model_name(model).markdown for model in pair) for pair in pairs)


def _carried(cell: Cell) -> bool:
    return any(run.config.get("task", {}).get("carry_state", False) for run in cell.done)


def _source(cell: Cell) -> set[str]:
    return {str(run.config.get("task", {}).get("text")) for run in cell.done}
