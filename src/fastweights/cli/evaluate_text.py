"""`fastweights evaluate` of a run on text."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fastweights.cli.parser import Parser, name_in

if TYPE_CHECKING:
    from rich.console import Console

OPTIONS = ("window", "context_length", "stride", "lanes", "memory_length", "split", "by_position")
"""Of runs on text."""
_SPLITS = ("validation", "test")


def add_text_options(parser: Parser) -> None:
    """How the text is read."""
    group = parser.add_argument_group("runs on text")
    group.add_argument(
        "--window",
        type=name_in("window", ("segments", "carried", "sliding")),
        metavar="{segments,carried,sliding}",
        help="pieces of the text that know nothing of each other; one pass that carries the state "
        "from piece to piece; overlapping windows of which the last --stride tokens count "
        "(default: as in training)",
    )
    group.add_argument(
        "--context-length",
        type=int,
        metavar="N",
        help="tokens of a piece or window (default: as in training)",
    )
    group.add_argument(
        "--stride", type=int, metavar="S", help="of --window sliding, in tokens (default: 1)"
    )
    group.add_argument(
        "--lanes",
        type=int,
        metavar="L",
        help="parts of the text that --window carried reads beside each other (default: 1, for a "
        "run that carried its state its batch size)",
    )
    group.add_argument(
        "--memory-length",
        type=int,
        metavar="M",
        help="inputs that transformer_xl and softmax_attention keep from earlier pieces (default: "
        "as in training)",
    )
    group.add_argument(
        "--split",
        type=name_in("split", _SPLITS),
        metavar="{validation,test}",
        help="one of the two texts (default: both)",
    )
    group.add_argument(
        "--by-position",
        type=int,
        nargs="?",
        const=4,
        metavar="K",
        help="the loss by position, too, in windows of the test text of K times the training "
        "context (default: 4)",
    )


def measure_text(arguments: argparse.Namespace) -> dict[str, Any]:
    """Raises ValueError for options that do not fit each other, the text or the layers."""
    from fastweights.evaluate import evaluate_text, load_model

    loaded = load_model(arguments.run_folder, arguments.checkpoint, arguments.device)
    reading = {
        name: value
        for name, value in (
            ("window", arguments.window),
            ("context_length", arguments.context_length),
            ("stride", arguments.stride),
            ("num_lanes", arguments.lanes),
        )
        if value is not None
    }
    with _Bar() as bar:
        measured = evaluate_text(
            loaded,
            reading,
            splits=_SPLITS if arguments.split is None else (arguments.split,),
            memory_length=arguments.memory_length,
            times_context=arguments.by_position,
            progress=bar.show,
        )
    return {
        "run": str(loaded.folder),
        "checkpoint": arguments.checkpoint,
        "step": loaded.step,
        **measured,
    }


def show_text(measured: Mapping[str, Any]) -> None:
    """The tables."""
    from rich.console import Console

    from fastweights.cli.tables import plain_table

    console = Console(highlight=False)
    console.print(
        f"{measured['run']}, {measured['checkpoint']} checkpoint (step {measured['step']}), "
        f"{_read_in(measured)}",
        markup=False,
        soft_wrap=True,
    )
    table = plain_table(
        "split", "tokens", "bits/byte", "bits/character", "nats/token", "perplexity"
    )
    for split, scores in measured["splits"].items():
        names = ("bits_per_byte", "bits_per_character", "nats_per_token", "perplexity")
        table.add_row(
            split, f"{scores['num_tokens']:,}", *(_number(scores[name]) for name in names)
        )
    console.print(table)
    if "by_position" in measured:
        _show_positions(console, measured["by_position"])


class _Bar:
    """How far an evaluation is, on stderr; nothing where that is no terminal."""

    def __enter__(self) -> _Bar:
        from rich.console import Console
        from rich.progress import Progress

        console = Console(stderr=True)
        self._progress = Progress(console=console, transient=True, disable=not console.is_terminal)
        self._task = self._progress.add_task("")
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, what: str, done: int, total: int) -> None:
        """So much of something is done."""
        self._progress.update(self._task, description=what, completed=done, total=total)


def _show_positions(console: Console, measured: Mapping[str, Any]) -> None:
    from fastweights.cli.tables import plain_table

    console.print(
        f"\ntest, by position in {measured['num_windows']:,} windows of "
        f"{measured['window_length']:,} tokens; trained on {measured['context_length']:,}"
    )
    table = plain_table("positions", "nats/token", "standard error")
    first = 1
    for last, nats, error in zip(
        measured["last_position"],
        measured["nats_per_token"],
        measured["standard_error"],
        strict=True,
    ):
        positions = f"{first:,}" if first == last else f"{first:,} to {last:,}"
        table.add_row(positions, _number(nats), _number(error))
        first = last + 1
    console.print(table)


def _read_in(measured: Mapping[str, Any]) -> str:
    reading = measured["reading"]
    length = f"{reading['context_length']:,} tokens"
    match reading["window"]:
        case "segments":
            return f"in segments of {length}"
        case "carried":
            used = sorted(set(reading["num_lanes"].values()))
            lanes = f" in {' and '.join(map(str, used))} lanes" if used != [1] else ""
            return f"state carried over pieces of {length}{lanes}"
        case _:
            return f"in windows of {length}, stride {reading['stride']:,}"


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4f}"
