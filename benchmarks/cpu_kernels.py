"""How fast are the CPU kernels, and how much memory do they take, beside every other form?

    python -m benchmarks.cpu_kernels          # all of it; `make bench-cpu` installs the peers first

One process, one round after the other over all contenders. Every unit (a shape with its number of
threads) is written when it is done; the same command goes on after an interruption.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.allocator import keep_freed_memory
from benchmarks.figures import scaling, speedups
from benchmarks.memory import MemoryMeter
from benchmarks.page import page
from benchmarks.progress import Progress
from benchmarks.questions import QUESTIONS, order, plan
from benchmarks.records import (
    FILE,
    Measurements,
    Settings,
    begin,
    check_same,
    load,
    save,
    with_unit,
)
from benchmarks.runner import run_unit
from fastweights.atomic import write_bytes, write_text
from fastweights.cli.parser import Parser, name_in, path
from fastweights.report.style import png

FULL = Settings(rounds=9, turn_s=0.03, quick=False)
QUICK = Settings(rounds=2, turn_s=0.002, quick=True)
OUT, QUICK_OUT = Path("results/cpu-kernels"), Path("runs/cpu-kernels-quick")


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 done, 1 a file could not be written, 2 wrong usage, 130 interrupted."""
    parsed = _parser().parse_args(arguments)
    try:
        _check(parsed)
        out: Path = parsed.out or (QUICK_OUT if parsed.quick else OUT)
        if out.exists() and not out.is_dir():
            raise ValueError(f"{out}: is not a folder")
        measured = load(out / FILE) if parsed.render else _measure(parsed, out)
        print(write_report(measured, out))
    except KeyboardInterrupt:
        print("fastweights: interrupted; the same command goes on", file=sys.stderr)
        return 130
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"fastweights: error: {where}{error.strerror or error}", file=sys.stderr)
        return 1
    except ValueError as error:
        print(f"fastweights: error: {error}", file=sys.stderr)
        return 2
    return 0


def write_report(measured: Measurements, out: Path) -> Path:
    """report.md and the figures; returns the path of report.md."""
    drawn = {"speedups.png": speedups(measured), "scaling.png": scaling(measured)}
    for name, figure in drawn.items():
        if figure is not None:
            write_bytes(out / name, png(figure))
    figures = [name for name, figure in drawn.items() if figure is not None]
    write_text(out / "report.md", page(measured, figures))
    return out / "report.md"


def _check(parsed: argparse.Namespace) -> None:
    """Raises ValueError for what a report made again would not follow."""
    for name in ("questions", "rounds", "threads", "fresh"):
        if parsed.render and getattr(parsed, name):
            raise ValueError(f"--{name} with --render: nothing is measured, only shown again")


def _measure(parsed: argparse.Namespace, out: Path) -> Measurements:
    """Every unit asked for that is not there yet."""
    file = out / FILE
    threads = _threads(parsed.threads)
    usual = QUICK if parsed.quick else FULL
    rounds = parsed.rounds or usual.rounds
    measured = begin(usual.model_copy(update={"rounds": rounds}))
    if file.exists() and not parsed.fresh:
        old = load(file)
        check_same(old, measured, file)
        measured = old
    questions = parsed.questions or list(QUESTIONS)
    units = plan(questions, threads, parsed.quick)
    missing = [unit for unit in units if measured.unit(unit.id) is None]
    out.mkdir(parents=True, exist_ok=True)
    meter = MemoryMeter(questions)
    keep_freed_memory()
    with Progress(len(units), len(missing)) as progress:
        for unit in missing:
            progress.begin(unit.id)
            done = run_unit(unit, measured, meter, progress.now)
            measured = with_unit(measured, done, order(parsed.quick))
            save(file, measured)
            progress.end(done.wall_s)
    return measured


def _threads(given: list[int] | None) -> list[int]:
    """One thread and two, as far as the machine has cores. Raises ValueError."""
    cores = os.cpu_count() or 1
    for count in given or ():
        if not 1 <= count <= cores:
            raise ValueError(f"--threads {count}: this machine has 1 to {cores}")
    return given or [count for count in (1, 2) if count <= cores]


def _parser() -> Parser:
    parser = Parser(
        prog="python -m benchmarks.cpu_kernels",
        description="Time and memory of the CPU kernels beside every other form.",
    )
    parser.add_argument(
        "--questions",
        nargs="+",
        metavar="NAME",
        type=name_in("question", QUESTIONS),
        help=f"some of {', '.join(QUESTIONS)} (default: all)",
    )
    parser.add_argument("--rounds", type=_positive, metavar="N", help=f"default: {FULL.rounds}")
    parser.add_argument("--threads", type=_positive, nargs="+", metavar="N", help="default: 1 2")
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"tiny shapes, {QUICK.rounds} rounds: does everything run? (into {QUICK_OUT})",
    )
    parser.add_argument("--out", type=path, metavar="FOLDER", help=f"default: {OUT}")
    parser.add_argument("--fresh", action="store_true", help="forget what is there already")
    parser.add_argument(
        "--render", action="store_true", help="only make the report again from measurements.json"
    )
    return parser


def _positive(given: str) -> int:
    try:
        value = int(given)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 on, got {given!r}")
    return value


if __name__ == "__main__":
    sys.exit(main())
