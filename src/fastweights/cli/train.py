"""`fastweights train`."""

from __future__ import annotations

import _thread
import argparse
import contextlib
import os
import signal
import threading
from pathlib import Path
from typing import Any

from fastweights.cli.parser import Parser, path
from fastweights.cli.run_options import RunOptions
from fastweights.train.config import load_config


def add_options(parser: Parser) -> None:
    """The run folder, the configuration file, and every field of the configuration."""
    parser.usage = (
        "fastweights train [CONFIG.yaml] --out RUN [options]\n       fastweights train --resume RUN"
    )
    parser.epilog = (
        "Options are laid over the file, the file over the defaults. "
        "Lists and NAME=VALUE pairs take several values: "
        "--layer-options feature_map=silu num_heads=2"
    )
    parser.add_argument("config", nargs="?", type=path, metavar="CONFIG.yaml", help="configuration")
    parser.add_argument("--out", type=path, metavar="RUN", help="run folder, new or empty")
    parser.add_argument(
        "--resume",
        nargs="?",
        const="",
        metavar="RUN",
        help="go on from the last checkpoint of this run folder (default: the one of --out), with "
        "the configuration that it holds",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress, no summary")
    parser.add_argument("--stop-at-eof", action="store_true", help=argparse.SUPPRESS)
    parser.set_defaults(options=RunOptions(parser))


def run(arguments: argparse.Namespace) -> int:
    """Train; print where the run is and its accuracy."""
    folder, resume = _run_folder(arguments)
    file = arguments.config
    if resume and file is None and (folder / "config.yaml").is_file():
        file = folder / "config.yaml"
    config = load_config(file, arguments.options.overrides(arguments))
    if arguments.stop_at_eof:
        _stop_at_eof()
    from fastweights.train.loop import train
    from fastweights.train.processes import is_first

    quiet = arguments.quiet or not is_first()
    result = train(config, folder, resume=resume, progress=not quiet)
    if not quiet:
        print("\n".join(summary(result, folder)))
    return 0


def summary(result: dict[str, Any], folder: Path) -> list[str]:
    """What a finished run is worth, as lines."""
    scores = ", ".join(split_scores(result))
    lines = [
        f"{folder}: {result['steps']} steps, {result['wall_s']:.0f} s; "
        f"stopped because: {result['stopped_because']}",
        f"at step {result['selected_step']}: {scores}",
    ]
    horizon = result.get("horizon") or result.get("by_length")
    if horizon:
        lines.append(
            f"horizon: {horizon['longest_length']} (longest length with accuracy >= "
            f"{100 * horizon['threshold']:g} %, of up to {horizon['lengths'][-1]})"
        )
    return lines


def split_scores(result: dict[str, Any]) -> list[str]:
    """`bin0 100.00 %`; `test squared error 0.0021` or `test 1.834 bits per byte` where that is what
    counts; `length 512 99.61 %` where a run has an accuracy by length."""
    found = []
    for split, scores in result["splits"].items():
        if "squared_error" in scores:
            found.append(f"{split} squared error {scores['squared_error']:.4f}")
        elif "bits_per_byte" in scores:
            bits = scores["bits_per_byte"]
            shown = "not finite" if bits is None else f"{bits:.3f}"
            found.append(f"{split} {shown} bits per byte")
        else:
            accuracy = scores.get("sequence_accuracy", scores.get("accuracy"))
            found.append(f"{split} {100 * accuracy:.2f} %")
    measured = result.get("by_length")
    if measured:
        pairs = zip(measured["lengths"], measured["accuracy"], strict=True)
        found += [f"length {length} {100 * accuracy:.2f} %" for length, accuracy in pairs]
    return found


def _run_folder(arguments: argparse.Namespace) -> tuple[Path, bool]:
    """The run folder and whether to resume. Raises ValueError when they are not clear."""
    named = Path(arguments.resume) if arguments.resume else None
    if named and arguments.out and named != arguments.out:
        raise ValueError(f"--resume {named} and --out {arguments.out} name different run folders")
    folder = named or arguments.out
    if folder is None:
        raise ValueError("train needs --out RUN, or --resume RUN for a run that was stopped")
    return folder, arguments.resume is not None


def _stop_at_eof() -> None:
    """End as on Ctrl-C when standard input ends: the process that holds its other end is gone, or
    asks for it. Works where signals do not (Windows, an inherited SIG_IGN)."""
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def watch() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 4096):  # not sys.stdin: its lock would be held when Python ends
                pass
        _thread.interrupt_main()

    threading.Thread(target=watch, daemon=True).start()
