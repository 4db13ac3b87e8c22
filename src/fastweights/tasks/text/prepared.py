"""A prepared corpus: a folder of token files, the tokenizer that made them and corpus.json.

A token file is nothing but tokens, little-endian, each in the smallest type of DTYPES that holds
the vocabulary; it is mapped into memory, not read.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from fastweights.atomic import new_folder, write_json
from fastweights.tasks.text.source import SPLITS, Source
from fastweights.tasks.text.tokenizer import TOKENIZERS, Tokenizer, load_tokenizer

DESCRIPTION_FILE = "corpus.json"
FORMAT = 2
DTYPES = {"uint8": torch.uint8, "uint16": torch.uint16, "int32": torch.int32}
BLOCK = 2**22
"""Bytes of a token file that are read at once to check it."""
Report = Callable[[str, int], None]
"""Told what is being done and how many bytes of it are done."""


@dataclass(frozen=True)
class Split:
    """num_bytes, num_characters: of the text before the tokenizer, in UTF-8 and in Unicode code
    points, separators counted as one each; sha256: of the file."""

    num_documents: int
    num_tokens: int
    num_bytes: int
    num_characters: int
    sha256: str

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Raises TypeError or ValueError where it is no split with text."""
        split = cls(**value)
        for name in ("num_documents", "num_tokens", "num_bytes", "num_characters"):
            if type(number := getattr(split, name)) is not int or number < 1:
                raise ValueError(f"{name} {number!r}")
        return split


@dataclass(frozen=True)
class Description:
    """What corpus.json says; tokenizer_sha256: of the tokenizer's file, None for bytes."""

    format: int
    source: str
    tokenizer: str
    vocab_size: int
    dtype: str
    tokenizer_sha256: str | None
    splits: dict[str, Split]

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Raises TypeError, KeyError, AttributeError or ValueError where it is not what `as_json`
        gave."""
        if value["format"] != FORMAT:
            raise ValueError(
                f"format {value['format']!r}: this version reads format {FORMAT}; prepare it again"
            )
        known = {field.name: value[field.name] for field in fields(cls)}
        known["splits"] = {name: Split.from_json(about) for name, about in value["splits"].items()}
        missing = [split for split in SPLITS if split not in known["splits"]]
        if missing:
            raise ValueError(f"has no split {missing[0]}")
        description = cls(**known)
        if description.dtype not in DTYPES or description.tokenizer not in TOKENIZERS:
            raise ValueError(f"unknown {description.dtype!r} or {description.tokenizer!r}")
        return description

    def as_json(self) -> dict[str, Any]:
        """For corpus.json."""
        return asdict(self)

    def checksum(self) -> str:
        """Of tokens and tokenizer."""
        parts = [f"{name} {split.sha256}" for name, split in self.splits.items()]
        parts.append(f"{self.tokenizer} {self.tokenizer_sha256}")
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def prepare(
    source: Source,
    out: Path,
    tokenizer: str = "bytes",
    vocab_size: int | None = None,
    tokenizer_file: Path | None = None,
    report: Report = lambda what, num_bytes: None,
) -> Description:
    """Write the folder `out`, new or empty, whole or not at all. Memory grows with the longest
    document, and with what training the tokenizer needs, not with the text.

    tokenizer: a name of TOKENIZERS, trained on the text, or read where a `tokenizer_file` is given.
    Raises ValueError, one line each (the text, the vocabulary), and OSError (disk full, `out` is
    there).
    """
    with new_folder(out) as folder:
        made = _tokenizer(source, tokenizer, vocab_size, tokenizer_file, report)
        made.save(folder)
        dtype = _dtype(made.vocab_size)
        splits = {
            name: _write_split(folder / f"{name}.bin", source, name, made, dtype, report)
            for name in source.splits
        }
        description = Description(
            format=FORMAT,
            source=source.name,
            tokenizer=tokenizer,
            vocab_size=made.vocab_size,
            dtype=dtype,
            tokenizer_sha256=_tokenizer_sha256(made, folder),
            splits=splits,
        )
        write_json(folder / DESCRIPTION_FILE, description.as_json())
    return description


def is_prepared(place: str | Path) -> bool:
    """Is it a folder of a prepared corpus?"""
    return (Path(place) / DESCRIPTION_FILE).is_file()


def read_description(folder: Path) -> Description:
    """Of a prepared corpus. Raises ValueError, in one line, where corpus.json is damaged."""
    path = Path(folder) / DESCRIPTION_FILE
    try:
        return Description.from_json(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ValueError(f"text: {path}: cannot be read: {error.strerror}") from None
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"text: {path}: is damaged: {_in_one_line(error)}") from None


def open_tokens(folder: Path, description: Description, split: str) -> Tensor:
    """Tokens [N] of a split, mapped into memory; what is written into them stays in memory.

    Raises ValueError where the file is not as long as corpus.json says.
    """
    path, dtype = _token_file(folder, description, split), DTYPES[description.dtype]
    num_tokens = description.splits[split].num_tokens
    return torch.from_file(os.fspath(path), shared=False, size=num_tokens, dtype=dtype)


def open_tokenizer(folder: Path, description: Description) -> Tokenizer:
    """The tokenizer of a prepared corpus. Raises ValueError where it is another one, or gone."""
    tokenizer = load_tokenizer(folder, description.tokenizer)
    made = (description.tokenizer_sha256, description.vocab_size)
    if (_tokenizer_sha256(tokenizer, folder), tokenizer.vocab_size) != made:
        raise ValueError(
            f"text: {folder}: its tokenizer (vocabulary size {tokenizer.vocab_size}) is not the "
            f"{description.tokenizer} ({description.vocab_size}) that made its tokens"
        )
    return tokenizer


def damages(folder: Path, report: Report = lambda what, num_bytes: None) -> list[str]:
    """What is wrong with the files of a prepared corpus, a line each: every one is read, and
    compared with the SHA-256 that corpus.json has of it. Raises ValueError where corpus.json itself
    is damaged or missing."""
    description, found = read_description(folder), []
    checks: list[Callable[[], object]] = [partial(open_tokenizer, folder, description)]
    checks += [partial(_check_tokens, folder, description, name, report) for name in SPLITS]
    for check in checks:
        try:
            check()
        except ValueError as error:
            found.append(str(error))
    return found


def _token_file(folder: Path, description: Description, split: str) -> Path:
    """Raises ValueError where it is not as long as corpus.json says."""
    path = Path(folder) / f"{split}.bin"
    try:
        size = path.stat().st_size
    except OSError as error:
        raise ValueError(f"text: {path}: cannot be read: {error.strerror}") from None
    expected = description.splits[split].num_tokens * DTYPES[description.dtype].itemsize
    if size != expected:
        raise ValueError(
            f"text: {path}: is damaged: {size} bytes, {DESCRIPTION_FILE} says {expected}"
        )
    return path


def _check_tokens(folder: Path, description: Description, split: str, report: Report) -> None:
    """Raises ValueError where the file is not the one that was written."""
    path, digest, num_bytes = _token_file(folder, description, split), hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
                num_bytes += len(block)
                report(path.name, num_bytes)
    except OSError as error:
        raise ValueError(f"text: {path}: cannot be read: {error.strerror}") from None
    now, then = digest.hexdigest(), description.splits[split].sha256
    if now != then:
        raise ValueError(
            f"text: {path}: is damaged: checksum {now[:12]}, {DESCRIPTION_FILE} says {then[:12]}"
        )


def _tokenizer(
    source: Source,
    name: str,
    vocab_size: int | None,
    file: Path | None,
    report: Report,
) -> Tokenizer:
    kind = TOKENIZERS[name]
    if file is None:
        return kind.train(_reported(source.tokenizer_texts(), "vocabulary", report), vocab_size)
    tokenizer = kind.load(file)
    if vocab_size not in (None, tokenizer.vocab_size):
        raise ValueError(f"tokenizer {file}: has {tokenizer.vocab_size} tokens, not {vocab_size}")
    return tokenizer


def _write_split(
    path: Path, source: Source, name: str, tokenizer: Tokenizer, dtype: str, report: Report
) -> Split:
    """Raises ValueError where there is no token but separators."""
    separator = [tokenizer.separator] if source.separated else []
    num_documents = num_tokens = num_bytes = num_characters = 0
    only_separators = True
    digest = hashlib.sha256()
    stored = np.dtype(dtype).newbyteorder("<")
    with path.open("wb") as file:
        for text in _reported(source.splits[name](), name, report):
            encoded = tokenizer.encode(text)
            only_separators = only_separators and set(encoded) <= {tokenizer.separator}
            tokens = np.array(encoded + separator, dtype=stored).tobytes()
            file.write(tokens)
            digest.update(tokens)
            num_documents += 1
            num_tokens += len(tokens) // stored.itemsize
            num_bytes += _num_bytes(text) + len(separator)
            num_characters += len(text) + len(separator)
        file.flush()
        os.fsync(file.fileno())
    if only_separators:
        raise ValueError(f"text: {source.name}: split {name} holds no text")
    return Split(num_documents, num_tokens, num_bytes, num_characters, digest.hexdigest())


def _reported(texts: Iterable[str], what: str, report: Report) -> Iterable[str]:
    num_bytes = 0
    for text in texts:
        report(what, num_bytes)
        yield text
        num_bytes += _num_bytes(text)
    report(what, num_bytes)


def _num_bytes(text: str) -> int:
    return len(text.encode(errors="surrogateescape"))


def _dtype(vocab_size: int) -> str:
    return next(name for name, dtype in DTYPES.items() if vocab_size - 1 <= torch.iinfo(dtype).max)


def _tokenizer_sha256(tokenizer: Tokenizer, folder: Path) -> str | None:
    if tokenizer.file is None:
        return None
    return hashlib.sha256((Path(folder) / tokenizer.file).read_bytes()).hexdigest()


def _in_one_line(error: Exception) -> str:
    what = f"no {error}" if isinstance(error, KeyError) else str(error)
    return " ".join(what.split())
