"""`fastweights evaluate`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fastweights.cli.parser import Parser, name_in, path
from fastweights.experiments.formal_languages import LANGUAGES

if TYPE_CHECKING:
    from fastweights.evaluate import LoadedRun


def add_options(parser: Parser) -> None:
    """The run folder and what to measure."""
    parser.usage = "fastweights evaluate RUN [options]"
    parser.add_argument("run_folder", type=path, metavar="RUN", help="run folder")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--language",
        type=name_in("language", LANGUAGES),
        metavar="NAME",
        help="another language with the same symbols (default: the run's own splits)",
    )
    what.add_argument(
        "--regex",
        metavar="PATTERN",
        help="the language of a regular expression, one character a symbol",
    )
    what.add_argument("--dfa", type=path, metavar="FILE", help="the language of a finite automaton")
    what.add_argument(
        "--files", type=path, metavar="PREFIX", help="your strings and labels, PREFIX.src and .tgt"
    )
    parser.add_argument(
        "--length",
        type=int,
        nargs="+",
        action="extend",
        metavar="N",
        help="measure the horizon, too: sequence accuracy on strings of these lengths",
    )
    add_loading_options(parser)
    parser.add_argument("--json", action="store_true", help="print JSON; accuracies from 0 to 1")


def add_loading_options(parser: Parser) -> None:
    """`--checkpoint best|last` and `--device auto|cpu|cuda`."""
    parser.add_argument(
        "--checkpoint",
        type=name_in("checkpoint", ("best", "last")),
        default="best",
        metavar="{best,last}",
        help="which weights (default: best)",
    )
    parser.add_argument(
        "--device",
        type=name_in("device", ("auto", "cpu", "cuda")),
        default="auto",
        metavar="{auto,cpu,cuda}",
        help="auto: cuda where there is a GPU, else cpu (default: auto)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Measure, print."""
    if arguments.files and arguments.length:
        raise ValueError("--length needs a language, which --files does not have")
    from fastweights.evaluate import load_run

    loaded = load_run(arguments.run_folder, arguments.checkpoint, arguments.device)
    measured = _measure(loaded, arguments)
    if arguments.json:
        print(json.dumps(measured, indent=2))
    else:
        _show(measured)
    return 0


def _measure(loaded: LoadedRun, arguments: argparse.Namespace) -> dict[str, Any]:
    from fastweights.evaluate import (
        evaluate_language,
        evaluate_on,
        evaluate_run,
        horizon_of_run,
        other_language,
    )
    from fastweights.tasks.formal.files import read_pairs

    task = _other_task(arguments)
    language = other_language(loaded, task) if task else None
    if language is not None:
        subject, scores = language.name, evaluate_language(loaded, language)
    elif arguments.files:
        examples = read_pairs(arguments.files, loaded.symbols, loaded.labels)
        subject = str(arguments.files)
        scores = {arguments.files.name: evaluate_on(loaded, examples)}
    else:
        subject, scores = loaded.task, evaluate_run(loaded)
    return {
        "run": str(loaded.folder),
        "checkpoint": arguments.checkpoint,
        "step": loaded.step,
        "task": subject,
        "splits": {name: accuracy.as_dict() for name, accuracy in scores.items()},
        "horizon": horizon_of_run(loaded, arguments.length, language) if arguments.length else None,
    }


def _other_task(arguments: argparse.Namespace) -> dict[str, Any] | None:
    """The task that --language, --regex or --dfa asks for."""
    for kind, key, value in (
        ("formal_language", "language", arguments.language),
        ("regex", "pattern", arguments.regex),
        ("dfa", "path", arguments.dfa),
    ):
        if value is not None:
            return {"kind": kind, key: value}
    return None


def _show(measured: Mapping[str, Any]) -> None:
    from rich.console import Console

    from fastweights.cli.tables import plain_table
    from fastweights.report.percent import percent

    console = Console(highlight=False)
    console.print(
        f"{measured['run']}, {measured['checkpoint']} checkpoint (step {measured['step']}), "
        f"on {measured['task']}",
        markup=False,
        soft_wrap=True,
    )
    table = plain_table("split", "sequences", "sequences right %", "labels right %", "nats/label")
    for name, scores in measured["splits"].items():
        nats = scores["nats_per_token"]
        table.add_row(
            name,
            str(scores["num_sequences"]),
            percent(scores["sequence_accuracy"]),
            percent(scores["token_accuracy"]),
            "not finite" if nats is None else f"{nats:.2g}",
        )
    console.print(table)
    horizon = measured["horizon"]
    if horizon:
        table = plain_table("length", "sequences", "sequences right %")
        rows = zip(
            horizon["lengths"], horizon["num_sequences"], horizon["sequence_accuracy"], strict=True
        )
        for length, count, accuracy in rows:
            table.add_row(str(length), str(count), percent(accuracy))
        console.print(table)
        threshold, longest = horizon["threshold"], horizon["longest_length"]
        console.print(f"longest length up to which {threshold:.0%} are right: {longest}")
