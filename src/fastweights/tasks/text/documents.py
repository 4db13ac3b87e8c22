"""Documents from a file, a folder or Python's own sources, and their splits.

A document belongs to one split alone, so that no test text stands beside training text of the same
file; only a corpus of fewer than MIN_DOCUMENTS documents, or one that is mostly one document, is
cut within them.
"""

from __future__ import annotations

import hashlib
import os
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

PYTHON_STDLIB = "python_stdlib"
"""The sources of Python's standard library, on every machine; other versions have other ones."""

SEPARATOR = 0
"""A byte that no text has."""

HELD_OUT = {"validation": 0.05, "test": 0.05}
"""Share of the bytes, at least; the rest is `train`."""
MIN_DOCUMENTS = 20
LARGEST_SHARE = 0.5
NOT_LIBRARY = ("site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test")


class Document(NamedTuple):
    """name: where it is, below the source; text: UTF-8, without SEPARATOR."""

    name: str
    text: bytes


def read_documents(source: str) -> list[Document]:
    """The documents of PYTHON_STDLIB, of a file (one) or of a folder (every file below it that has
    no hidden part in its path), ordered by name; of equal ones the last.

    Raises ValueError, in one line with the place: nothing there, not readable, not UTF-8, a zero
    byte, no text at all.
    """
    place = Path(source)
    if source == PYTHON_STDLIB:
        documents = list(_standard_library())
    elif place.is_file():
        documents = [_read(place, place.name)]
    elif place.is_dir():
        documents = [_read(path, name) for name, path in _files_below(place)]
    else:
        raise ValueError(f"text: {source}: no such file or folder, and not {PYTHON_STDLIB!r}")
    documents = list({document.text: document for document in documents if document.text}.values())
    if not documents:
        raise ValueError(f"text: {source}: holds no text")
    return documents


def split_documents(documents: Sequence[Document]) -> dict[str, list[bytes]]:
    """The texts of train, validation and test.

    Which split a document is in follows from the hash of its text: other documents beside it change
    little, the order of the files nothing.
    """
    if len(documents) < MIN_DOCUMENTS:
        return _cut_within(documents)
    rest = sorted(documents, key=lambda document: hashlib.sha256(document.text).digest())
    total = sum(len(document.text) for document in rest)
    if max(len(document.text) for document in rest) > LARGEST_SHARE * total:
        return _cut_within(documents)
    texts: dict[str, list[bytes]] = {}
    for split, share in HELD_OUT.items():
        texts[split] = []
        while sum(map(len, texts[split])) < share * total:
            texts[split].append(rest.pop().text)
    texts["train"] = [document.text for document in rest]
    return {split: texts[split] for split in ("train", *HELD_OUT)}


def _cut_within(documents: Sequence[Document]) -> dict[str, list[bytes]]:
    texts: dict[str, list[bytes]] = {"train": [], **{split: [] for split in HELD_OUT}}
    for document in documents:
        size = len(document.text)
        end = size
        for split, share in HELD_OUT.items():
            start = end - round(share * size)
            texts[split].append(document.text[start:end])
            end = start
        texts["train"].append(document.text[:end])
    return texts


def _standard_library() -> Iterator[Document]:
    """Its .py files without tests, installed packages and what describes the machine that Python
    was built on; the few that are not UTF-8 are left out."""
    for name, path in _files_below(Path(sysconfig.get_paths()["stdlib"]), NOT_LIBRARY):
        built = name.startswith(("_sysconfigdata", "config-"))
        if path.suffix == ".py" and not built:
            text = _bytes_of(path)
            if _fault(text) is None:
                yield Document(name, text)


def _files_below(folder: Path, left_out: Sequence[str] = ()) -> list[tuple[str, Path]]:
    """Names below the folder, with forward slashes, and paths; nothing hidden."""
    found = []
    for parent, folders, files in os.walk(folder, onerror=_refuse):
        folders[:] = [name for name in folders if name not in left_out and name[0] != "."]
        paths = [Path(parent, name) for name in files if name[0] != "."]
        found += [(path.relative_to(folder).as_posix(), path) for path in paths]
    return sorted(found)


def _read(path: Path, name: str) -> Document:
    text = _bytes_of(path)
    fault = _fault(text)
    if fault:
        raise ValueError(f"text: {path}: {fault}")
    return Document(name, text)


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _refusal(error) from None


def _fault(text: bytes) -> str | None:
    """Why this is no text, None if it is."""
    try:
        text.decode("utf-8")
    except UnicodeDecodeError as error:
        return f"not UTF-8 at byte {error.start}"
    at = text.find(SEPARATOR)
    return None if at < 0 else f"a zero byte at byte {at}"


def _refuse(error: OSError) -> None:
    raise _refusal(error) from None


def _refusal(error: OSError) -> ValueError:
    return ValueError(f"text: {error.filename}: cannot be read: {error.strerror}")
