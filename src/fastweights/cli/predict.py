"""`fastweights predict`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastweights.cli.evaluate import add_loading_options
from fastweights.cli.parser import Parser, path

if TYPE_CHECKING:
    from fastweights.evaluate import Prediction


def add_options(parser: Parser) -> None:
    """The run folder and the string."""
    parser.usage = "fastweights predict RUN STRING [options]"
    parser.add_argument("run_folder", type=path, metavar="RUN", help="run folder")
    parser.add_argument(
        "string",
        metavar="STRING",
        help="one character a symbol, or symbols separated by spaces; -: standard input, a string "
        "a line",
    )
    add_loading_options(parser)
    parser.add_argument("--json", action="store_true", help="print JSON, a list of lists")


def run(arguments: argparse.Namespace) -> int:
    """Predict and print, one table a string."""
    texts = standard_input().splitlines() if arguments.string == "-" else [arguments.string]
    texts = [text for text in texts if text.strip()]
    if not texts:
        raise ValueError("the string is empty")
    from fastweights.evaluate import load_run, predict
    from fastweights.tasks.formal.files import split_symbols

    loaded = load_run(arguments.run_folder, arguments.checkpoint, arguments.device)
    found = []
    for number, text in enumerate(texts, start=1):
        try:
            found.append(predict(loaded, split_symbols(text)))
        except ValueError as error:
            where = f"line {number}: " if len(texts) > 1 else ""
            raise ValueError(f"{where}{error}") from None
    if arguments.json:
        print(json.dumps([[dataclasses.asdict(one) for one in string] for string in found]))
    else:
        for predictions in found:
            _show(predictions, loaded.language is not None)
    return 0


def standard_input() -> str:
    """All of it. Raises ValueError where it is not text."""
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"standard input: not {error.encoding.upper()} at byte {error.start}"
        ) from None


def _show(predictions: Sequence[Prediction], language_known: bool) -> None:
    from rich.console import Console
    from rich.text import Text

    from fastweights.cli.tables import plain_table

    console = Console(highlight=False)
    truth = ["true label"] if language_known else []
    table = plain_table("position", "symbol", "label", "probability", *truth)
    wrong = 0
    for one in predictions:
        missed = one.expected is not None and one.label != one.expected
        wrong += missed
        row = [
            str(one.position),
            one.symbol,
            "padding" if one.label is None else one.label,
            f"{one.probability:.4f}",
        ]
        if language_known:
            row.append("none" if one.expected is None else one.expected + (" !" if missed else ""))
        table.add_row(*map(Text, row), style="red" if missed else None)
    console.print(table)
    labelled = [one for one in predictions if one.expected is not None]
    if language_known:
        right = len(labelled) - wrong
        line = f"{right} of {len(labelled)} labels right"
        if len(labelled) < len(predictions):
            first = predictions[len(labelled)]
            line += f"; no word of the language goes on with {first.symbol!r} at {first.position}"
        console.print(line, markup=False, soft_wrap=True)
