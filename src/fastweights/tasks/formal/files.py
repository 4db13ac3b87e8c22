"""Tagged sequences in pairs of files: `.src` holds the symbols, `.tgt` their labels, line by line.

A file in which any line has whitespace between symbols is whitespace-separated; any other file
has one character a symbol. Each of the two files is judged for itself. UTF-8, one sequence a line.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

from fastweights.atomic import write_text
from fastweights.tasks.formal.language import Example, String, Variant
from fastweights.tasks.formal.splits import Splits

VALIDATION_SHARE = 0.1
PUBLISHED_NAMES = {"train": "train_50", "bin0": "valid_50", "bin1": "test_50"}


class FileData(NamedTuple):
    """A folder's sets; symbols and labels in order of first appearance in the train files."""

    symbols: tuple[str, ...]
    labels: tuple[str, ...]
    splits: Splits


def split_symbols(text: str, *, separated: bool | None = None) -> String:
    """A typed string or a line as symbols.

    `separated=None` decides by the text itself: whitespace inside it separates symbols.
    """
    parts = text.split()
    if separated is None:
        separated = len(parts) > 1
    return tuple(parts) if separated else tuple(text.strip())


def read_sequences(path: Path | str) -> list[String]:
    """The sequences of one file. Raises ValueError, one line: file, line, reason."""
    path = Path(path)
    try:
        lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from error
    if lines[-1] == b"":
        lines.pop()
    if not lines:
        raise ValueError(f"{path}: the file is empty")
    texts = []
    for number, line in enumerate(lines, start=1):
        try:
            text = line.decode("utf-8").strip()
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{path}, line {number}: not UTF-8 (byte {error.start + 1})"
            ) from error
        if not text:
            raise ValueError(f"{path}, line {number}: the line is empty")
        texts.append(text)
    separated = any(len(text.split()) > 1 for text in texts)
    return [split_symbols(text, separated=separated) for text in texts]


def read_pairs(
    prefix: Path | str,
    symbols: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
) -> list[Example]:
    """The examples of `prefix`.src and `prefix`.tgt.

    Given `symbols` or `labels`, nothing else may occur. Raises ValueError, one line: file, line,
    reason.
    """
    source, target = with_suffix(prefix, ".src"), with_suffix(prefix, ".tgt")
    inputs, targets = read_sequences(source), read_sequences(target)
    if len(inputs) != len(targets):
        longer, shorter = (source, target) if len(inputs) > len(targets) else (target, source)
        first = min(len(inputs), len(targets)) + 1
        raise ValueError(
            f"{longer}, line {first}: no such line in {shorter}"
            f" ({len(inputs)} lines in .src, {len(targets)} in .tgt)"
        )
    examples = [Example(*pair) for pair in zip(inputs, targets, strict=True)]
    for number, example in enumerate(examples, start=1):
        if len(example.inputs) != len(example.targets):
            raise ValueError(
                f"{target}, line {number}: {len(example.targets)} labels for"
                f" {len(example.inputs)} symbols"
            )
    for path, sequences, known, kind in (
        (source, inputs, symbols, "symbol"),
        (target, targets, labels, "label"),
    ):
        if known is not None:
            _check_known(path, sequences, known, kind)
    return examples


def read_folder(folder: Path | str, variant: Variant, seed: int) -> FileData:
    """The sets of a folder: train, and validation, bin0, bin1 where their files exist.

    The published names are accepted too: train_50, valid_50 (Bin0), test_50 (Bin1). In the
    strict variant, a folder without a validation file gives up a random 10 % of its distinct
    training sequences (at least one), all copies of each. Raises ValueError, one line.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    prefixes = {name: _find_prefix(folder, name) for name in Splits._fields}
    train = read_pairs(prefixes["train"] or folder / "train")
    symbols = tuple(dict.fromkeys(s for example in train for s in example.inputs))
    labels = tuple(dict.fromkeys(s for example in train for s in example.targets))
    held_out = {
        name: read_pairs(prefix, symbols, labels) if prefix else []
        for name, prefix in prefixes.items()
        if name != "train"
    }
    if variant == "strict" and not held_out["validation"]:
        strings = list(dict.fromkeys(example.inputs for example in train))
        if len(strings) < 2:
            path = with_suffix(prefixes["train"] or folder / "train", ".src")
            raise ValueError(f"{path}: one sequence cannot be split into train and validation")
        Random(seed).shuffle(strings)
        chosen = set(strings[: max(1, round(VALIDATION_SHARE * len(strings)))])
        held_out["validation"] = [example for example in train if example.inputs in chosen]
        train = [example for example in train if example.inputs not in chosen]
    return FileData(symbols, labels, Splits(train, **held_out))


def write_pairs(examples: Sequence[Example], prefix: Path | str) -> None:
    """Write `prefix`.src and `prefix`.tgt, whitespace-separated, each whole or not at all.

    Raises ValueError for what could not be read back: no examples, an empty sequence, a symbol
    with whitespace, long symbols in sequences that all have length 1; OSError from the disk.
    """
    if not examples:
        raise ValueError(f"{prefix}: no sequences to write")
    for suffix, sequences in (
        (".src", [example.inputs for example in examples]),
        (".tgt", [example.targets for example in examples]),
    ):
        path = with_suffix(prefix, suffix)
        text = "".join(" ".join(sequence) + "\n" for sequence in sequences)
        for number, sequence in enumerate(sequences, start=1):
            if not sequence or any(symbol.split() != [symbol] for symbol in sequence):
                raise ValueError(f"{path}, line {number}: empty, or a symbol has whitespace")
        if all(len(s) == 1 for s in sequences) and any(len(s[0]) > 1 for s in sequences):
            raise ValueError(f"{path}: symbols of several characters need a sequence of two")
        write_text(path, text)


def with_suffix(prefix: Path | str, suffix: str) -> Path:
    """`prefix` plus the suffix; a prefix that already ends in .src or .tgt loses that first."""
    prefix = Path(prefix)
    stem = prefix.name.removesuffix(".src").removesuffix(".tgt")
    return prefix.with_name(stem + suffix)


def _find_prefix(folder: Path, name: str) -> Path | None:
    for stem in (name, PUBLISHED_NAMES.get(name, name)):
        prefix = folder / stem
        if any(with_suffix(prefix, suffix).exists() for suffix in (".src", ".tgt")):
            return prefix
    return None


def _check_known(path: Path, sequences: list[String], known: Sequence[str], kind: str) -> None:
    allowed = set(known)
    for number, sequence in enumerate(sequences, start=1):
        for position, symbol in enumerate(sequence, start=1):
            if symbol not in allowed:
                raise ValueError(
                    f"{path}, line {number}: unknown {kind} {symbol!r} at position {position}"
                    f" (known: {' '.join(known)})"
                )
