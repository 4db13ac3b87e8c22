"""`fastweights evaluate`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastweights.cli.evaluate_text import OPTIONS as TEXT_OPTIONS
from fastweights.cli.evaluate_text import add_text_options, measure_text, show_text
from fastweights.cli.parser import Parser, name_in, path
from fastweights.experiments.formal_languages import LANGUAGES

if TYPE_CHECKING:
    from fastweights.evaluate import LoadedModel, LoadedRun
    from fastweights.memory_map import MemoryMap

_OF_STRINGS = ("language", "regex", "dfa", "files", "length")
"""Options of runs on strings."""
_COSINE = "cosine of what is read\nand what was stored"


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
    parser.add_argument(
        "--memory",
        type=path,
        metavar="PNG",
        help="draw how well each stored key is retrieved after every further write: for the "
        "--string, or for a sequence of a retrieval or recall run",
    )
    parser.add_argument(
        "--string", metavar="STRING", help="what --memory is drawn for; of a run on text, a text"
    )
    add_text_options(parser)
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
    """Measure, print; with --memory, draw."""
    if arguments.files and arguments.length:
        raise ValueError("--length needs a language, which --files does not have")
    if arguments.string is not None and arguments.memory is None:
        raise ValueError("--string is what --memory is drawn for: give --memory PNG, too")
    from fastweights.evaluate import kind_of_run

    kind = kind_of_run(arguments.run_folder)
    given = [name for name in TEXT_OPTIONS if getattr(arguments, name) is not None]
    if given and kind != "text":
        option = given[0].replace("_", "-")
        raise ValueError(f"--{option}: {arguments.run_folder} is a {kind} run, not one on text")
    match kind:
        case "retrieval":
            measured, show = _measure_retrieval(arguments), _show_retrieval
        case "recall":
            measured, show = _measure_recall(arguments), _show_recall
        case "text":
            _refuse(arguments, "text", *_OF_STRINGS)
            if arguments.memory is not None:
                _draw_memory_of_text(arguments)
            measured, show = measure_text(arguments), show_text
        case _:
            measured, show = _measure_formal(arguments), _show
    if arguments.json:
        print(json.dumps(measured, indent=2))
    else:
        show(measured)
    return 0


def _refuse(arguments: argparse.Namespace, kind: str, *names: str) -> None:
    """Raises ValueError for an option that a run of this kind does not have."""
    for name in names:
        if getattr(arguments, name) is not None:
            raise ValueError(f"--{name}: {arguments.run_folder} is a {kind} run, without strings")


def _weights(loaded: LoadedRun | LoadedModel, arguments: argparse.Namespace) -> dict[str, Any]:
    """Which weights were measured."""
    run, checkpoint = str(loaded.folder), arguments.checkpoint
    return {"run": run, "checkpoint": checkpoint, "step": loaded.step}


def _measure_recall(arguments: argparse.Namespace) -> dict[str, Any]:
    _refuse(arguments, "recall", *_OF_STRINGS, "string")
    from fastweights.evaluate import evaluate_again, load_model, memory_of_recall

    loaded = load_model(arguments.run_folder, arguments.checkpoint, arguments.device)
    if arguments.memory is not None:
        _draw(*memory_of_recall(loaded), _COSINE, arguments.memory)
    return {**_weights(loaded, arguments), **evaluate_again(loaded)}


def _draw_memory_of_text(arguments: argparse.Namespace) -> None:
    from fastweights.evaluate import load_text_run, memory_of_text

    text = _needed_string(arguments)
    run, tokenizer = load_text_run(arguments.run_folder, arguments.checkpoint, arguments.device)
    _draw(*memory_of_text(run, tokenizer, text), _COSINE, arguments.memory)


def _measure_retrieval(arguments: argparse.Namespace) -> dict[str, Any]:
    _refuse(arguments, "retrieval", *_OF_STRINGS, "string")
    from fastweights.evaluate import evaluate_retrieval, load_model, memory_of_retrieval

    loaded = load_model(arguments.run_folder, arguments.checkpoint, arguments.device)
    if arguments.memory is not None:
        _draw(*memory_of_retrieval(loaded), "1: what was stored", arguments.memory)
    return {**_weights(loaded, arguments), "retrieval": evaluate_retrieval(loaded)}


def _measure_formal(arguments: argparse.Namespace) -> dict[str, Any]:
    from fastweights.evaluate import load_run, memory_of_string
    from fastweights.tasks.formal.files import split_symbols

    loaded = load_run(arguments.run_folder, arguments.checkpoint, arguments.device)
    if arguments.memory is not None:
        symbols = split_symbols(_needed_string(arguments))
        _draw(memory_of_string(loaded, symbols), symbols, _COSINE, arguments.memory)
    return _measure(loaded, arguments)


def _needed_string(arguments: argparse.Namespace) -> str:
    if arguments.string is None:
        raise ValueError("--memory needs the --string that the memory stores")
    return str(arguments.string)


def _draw(maps: Sequence[MemoryMap], steps: Sequence[str], scale: str, file: Path) -> None:
    from fastweights.atomic import write_bytes
    from fastweights.report.memory_map import memory_figure
    from fastweights.report.style import png

    if file.suffix.lower() != ".png":
        raise ValueError(f"--memory {file}: must end in .png")
    write_bytes(file, png(memory_figure(maps, steps, scale)))


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
        **_weights(loaded, arguments),
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


def _show_retrieval(measured: Mapping[str, Any]) -> None:
    from fastweights.report.percent import percent

    rows = []
    for variant, scores in measured["retrieval"].items():
        error = _number(scores["squared_error"], ".4f")
        rows.append((variant, str(scores["num_queries"]), error, percent(scores["accuracy"])))
    _show_table(measured, ("evaluation", "queries", "squared error", "values right %"), rows)


def _show_recall(measured: Mapping[str, Any]) -> None:
    from fastweights.report.percent import percent

    by_length = measured["by_length"]
    names = ("accuracy", "nats_per_query", "num_queries")
    columns = zip(*(by_length[name] for name in names), strict=True)
    scores = {
        **{name: tuple(found[n] for n in names) for name, found in measured["splits"].items()},
        **{f"length {n}": each for n, each in zip(by_length["lengths"], columns, strict=True)},
    }
    rows = [
        (name, str(count), percent(accuracy), _number(nats, ".2g"))
        for name, (accuracy, nats, count) in scores.items()
    ]
    _show_table(measured, ("sequences", "queries", "values right %", "nats/query"), rows)


def _show(measured: Mapping[str, Any]) -> None:
    from fastweights.report.percent import percent

    rows = [
        (
            name,
            str(scores["num_sequences"]),
            percent(scores["sequence_accuracy"]),
            percent(scores["token_accuracy"]),
            _number(scores["nats_per_token"], ".2g"),
        )
        for name, scores in measured["splits"].items()
    ]
    header = ("split", "sequences", "sequences right %", "labels right %", "nats/label")
    _show_table(measured, header, rows)
    if measured["horizon"]:
        _show_horizon(measured["horizon"])


def _show_horizon(horizon: Mapping[str, Any]) -> None:
    from rich.console import Console

    from fastweights.cli.tables import plain_table
    from fastweights.report.percent import percent

    console = Console(highlight=False)
    table = plain_table("length", "sequences", "sequences right %")
    rows = zip(
        horizon["lengths"], horizon["num_sequences"], horizon["sequence_accuracy"], strict=True
    )
    for length, count, accuracy in rows:
        table.add_row(str(length), str(count), percent(accuracy))
    console.print(table)
    threshold, longest = horizon["threshold"], horizon["longest_length"]
    console.print(f"longest length up to which {threshold:.0%} are right: {longest}")


def _show_table(
    measured: Mapping[str, Any], header: Sequence[str], rows: Iterable[Sequence[str]]
) -> None:
    """Which weights, on which task where there is a choice, and a table."""
    from rich.console import Console

    from fastweights.cli.tables import plain_table

    console = Console(highlight=False)
    task = f", on {measured['task']}" if "task" in measured else ""
    console.print(
        f"{measured['run']}, {measured['checkpoint']} checkpoint (step {measured['step']}){task}",
        markup=False,
        soft_wrap=True,
    )
    table = plain_table(*header)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _number(value: float | None, form: str) -> str:
    return "not finite" if value is None else f"{value:{form}}"
