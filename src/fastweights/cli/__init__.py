"""The command line. Parsing, help and listing the studies import neither torch nor matplotlib."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn

from fastweights.cli.parser import Parser

__all__ = ["main"]

COMMANDS = {
    "train": "train one model on one task",
    "describe": "parameters, FLOPs and state of a model, and models of equal size",
    "evaluate": "scores of a trained model on its task, another language or your files; its memory",
    "predict": "the labels of a string, position by position",
    "generate": "text that a trained language model writes, as it writes it",
    "export": "a trained language model as a folder for Hugging Face transformers",
    "study": "train a grid of languages, models and seeds over worker processes",
    "report": "tables and plots of a study folder or a run folder",
    "data": "text to train on: token files of your own, and English text to download",
    "list": "languages, layers, feed-forwards, blocks, models and studies by name",
}
MODULES = {"list": "listing"}  # a module named `list` would hide the builtin in this one
DEBUG_HELP = "show tracebacks of errors"
FAILED, WRONG_USAGE, INTERRUPTED = 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. The exit status: 0 done, 1 a run failed, 2 wrong usage or configuration,
    130 interrupted. Errors are one line each on stderr; --debug adds the traceback.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        parsed = make_parser().parse_args(given)
        if parsed.command is None:
            make_parser().print_help(sys.stderr)
            return WRONG_USAGE
        status: int = parsed.run(parsed)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt as stop:
        return _end(INTERRUPTED, [str(stop) or "interrupted"], given)
    except BrokenPipeError:  # the reader, `head` for one, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        return _end(*_explain(error), given)


def make_parser() -> Parser:
    """The parser of all commands; a command's own options are made when that command is parsed."""
    parser = Parser(
        prog="fastweights",
        description="Train and compare sequence models that program their own weights.",
        epilog="`fastweights COMMAND --help` shows the options of a command.",
    )
    parser.add_argument("--version", action=_Version, help="show the version and exit")
    parser.add_argument("--debug", action="store_true", help=DEBUG_HELP)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for name, summary in COMMANDS.items():
        commands.add_parser(
            name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", fill=_fill(name)
        )
    return parser


def _fill(name: str) -> Callable[[Parser], None]:
    """Adds the options of a command, from its module, and its function `run`."""

    def fill(parser: Parser) -> None:
        module = importlib.import_module(f"fastweights.cli.{MODULES.get(name, name)}")
        module.add_options(parser)
        parser.add_argument(
            "--debug",
            action="store_true",
            default=argparse.SUPPRESS,
            help=DEBUG_HELP,
        )
        parser.set_defaults(run=module.run)

    return fill


class _Version(argparse.Action):
    """Prints the version and exits; looks it up only then."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help=help)

    def __call__(self, *_: object) -> NoReturn:
        import fastweights

        print(f"fastweights {fastweights.__version__}")
        raise SystemExit(0)


def _explain(error: Exception) -> tuple[int, list[str]]:
    """Exit status and one line for each mistake."""
    from fastweights.train.config import ConfigError
    from fastweights.train.errors import TrainingError

    if isinstance(error, ConfigError):
        return WRONG_USAGE, error.lines
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return FAILED, [f"{where}{error.strerror}"]
    if isinstance(error, TrainingError | OSError):
        return FAILED, [str(error) or type(error).__name__]
    if isinstance(error, ValueError) and str(error):
        return WRONG_USAGE, [str(error)]
    return FAILED, [f"{type(error).__name__}: {error} (--debug shows where)"]


def _end(status: int, lines: Sequence[str], given: Sequence[str]) -> int:
    if "--debug" in given:
        traceback.print_exc()
    kind = "" if status == INTERRUPTED else "error: "
    for line in lines:
        print(f"fastweights: {kind}{' '.join(line.split())}", file=sys.stderr)
    return status
