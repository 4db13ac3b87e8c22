"""`fastweights study`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastweights.cli.parser import Parser, name_in, path
from fastweights.cli.run_options import option_names
from fastweights.cli.study_progress import make_progress
from fastweights.cli.values import parse_assignments
from fastweights.experiments import EXPERIMENTS
from fastweights.study import plan_study, run_study
from fastweights.train.config import merge
from fastweights.worker import Job


def add_options(parser: Parser) -> None:
    """The study, its folder, which cells, how many at once."""
    parser.usage = "fastweights study NAME --out STUDY [options]"
    parser.epilog = (
        "The same command goes on where an earlier one was stopped. Exit status: 0 all runs done, "
        "1 some failed, 130 stopped by Ctrl-C."
    )
    parser.add_argument(
        "name",
        metavar="NAME",
        type=name_in("study", EXPERIMENTS),
        help=f"one of {', '.join(EXPERIMENTS)}",
    )
    parser.add_argument("--out", type=path, required=True, metavar="STUDY", help="study folder")
    for option, known in (
        ("task", [name for study in EXPERIMENTS.values() for name in study.tasks]),
        ("model", [name for study in EXPERIMENTS.values() for name in study.models]),
    ):
        parser.add_argument(
            f"--{option}s",
            nargs="+",
            action="extend",
            type=name_in(option, dict.fromkeys(known)),
            metavar="NAME",
            help=f"some of the study's {option}s (default: all; `fastweights list studies`)",
        )
    parser.add_argument(
        "--seeds", nargs="+", action="extend", type=_seed, metavar="N", help="(default: as it says)"
    )
    parser.add_argument(
        "--workers", type=int, metavar="N", help="runs at once (default: the usable CPU cores)"
    )
    parser.add_argument("--protocol", metavar="{strict,published}", help="of every run")
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=VALUE",
        help="laid over the configuration of every run: training.lr=1e-3, or lr=1e-3",
    )
    parser.add_argument("--quick", action="store_true", help="the short form of the study")
    parser.add_argument("--retry-failed", action="store_true", help="take up runs that failed, too")
    parser.add_argument("--quiet", action="store_true", help="no progress")


def run(arguments: argparse.Namespace) -> int:
    """Plan, run, list what failed."""
    overrides = _overrides(arguments.set)
    if arguments.protocol is not None:
        overrides = merge(overrides, {"protocol": arguments.protocol})
    choice: dict[str, Any] = {
        key: value
        for key in ("tasks", "models", "seeds")
        if (value := getattr(arguments, key)) is not None
    }
    experiment = EXPERIMENTS[arguments.name]
    cells = experiment.cells(**choice, overrides=overrides, quick=arguments.quick)
    jobs = plan_study(cells, arguments.out)
    try:
        run_study(
            jobs,
            arguments.out,
            workers=arguments.workers,
            retry_failed=arguments.retry_failed,
            watcher=make_progress(arguments.quiet),
        )
    except KeyboardInterrupt:
        done = sum(job.status == "done" for job in jobs)
        raise KeyboardInterrupt(
            f"stopped with {done} of {len(jobs)} runs done; the same command goes on from there"
        ) from None
    return _conclude(jobs, arguments.out, arguments.quiet)


def _overrides(pairs: Sequence[str]) -> dict[str, Any]:
    """What --set says. Raises ValueError for what tells one cell from another."""
    values = parse_assignments(pairs, "--set", option_names())
    for group, key, option in (
        (values, "seed", "--seeds"),
        (values.get("task"), "language", "--tasks"),
        (values.get("task"), "num_keys", "--tasks"),
        (values.get("task"), "replacement", "--tasks"),
        (values.get("task"), "vocab_size", "--tasks"),
        (values.get("task"), "random_filler", "--tasks"),
        (values.get("task"), "kind", "--tasks"),
        (values.get("model"), "layer", "--models"),
        (values.get("model"), "rule", "--models"),
        (values.get("model"), "feature_map", "--models"),
    ):
        if isinstance(group, dict) and key in group:
            raise ValueError(f"--set: {key} is not the same in every run of a study: use {option}")
    return values


def _conclude(jobs: Sequence[Job], folder: Path, quiet: bool) -> int:
    unfinished = [job for job in jobs if job.status != "done"]
    for job in unfinished:
        log = job.folder / "log.txt"
        print(f"fastweights: error: {job.name} {job.status}: {job.error} ({log})", file=sys.stderr)
    if any(job.status == "failed" for job in unfinished):
        print("fastweights: --retry-failed takes up the runs that failed", file=sys.stderr)
    if not quiet:
        print(
            f"{len(jobs) - len(unfinished)} of {len(jobs)} runs done in {folder}; "
            f"tables and plots: fastweights report {folder}"
        )
    return 1 if unfinished else 0


def _seed(text: str) -> int:
    try:
        seed = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number, got {text!r}") from None
    if seed < 0:
        raise argparse.ArgumentTypeError(f"must be >= 0, got {seed}")
    return seed
