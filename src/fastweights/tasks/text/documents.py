"""Documents from a file, a folder or Python's own sources, and their splits.

A document is held by its place and the hash of its text; the text is read when it is used, so that
memory does not grow with the corpus.

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
    """name: where it is, below the source; path: of its file; size: in bytes; digest: SHA-256 of
    its text, which is UTF-8 without SEPARATOR."""

    name: str
    path: Path
    size: int
    digest: bytes


class Piece(NamedTuple):
    """The bytes `start` .. `end` of a document: all of them, but where it is cut."""

    document: Document
    start: int
    end: int

    def read(self) -> bytes:
        """The text. Raises ValueError where the file is no longer what it was."""
        path = self.document.path
        text = _bytes_of(path)
        if hashlib.sha256(text).digest() != self.document.digest:
            raise ValueError(f"text: {path}: has changed while it was being read")
        return text[self.start : self.end]


def find_documents(source: str) -> list[Document]:
    """The documents of PYTHON_STDLIB, of a file (one) or of a folder (every file below it that has
    no hidden part in its path), ordered by name; equal ones are one.

    Raises ValueError, in one line with the place: nothing there, not readable, not UTF-8, a zero
    byte, no text at all.
    """
    check_source(source)
    place = Path(source)
    if source == PYTHON_STDLIB:
        documents = list(_standard_library())
    elif place.is_file():
        documents = [_document(place, place.name)]
    else:
        documents = [_document(path, name) for name, path in _files_below(place)]
    documents = list(
        {document.digest: document for document in documents if document.size}.values()
    )
    if not documents:
        raise ValueError(f"text: {source}: holds no text")
    return documents


def check_source(source: str) -> None:
    """Raise ValueError where there is no file and no folder. Reads nothing."""
    place = Path(source)
    if source == PYTHON_STDLIB or (source and (place.is_file() or place.is_dir())):
        return
    if source.startswith("hub:"):
        command = f"fastweights data prepare {source} --out FOLDER"
        raise ValueError(f"text: {source}: prepare it first: `{command}`")
    raise ValueError(f"text: {source}: no such file or folder, and not {PYTHON_STDLIB!r}")


def split_documents(documents: Sequence[Document]) -> dict[str, list[Piece]]:
    """What train, validation and test are made of.

    Which split a document is in follows from the hash of its text: other documents beside it change
    little, the order of the files nothing.
    """
    if len(documents) < MIN_DOCUMENTS:
        return _cut_within(documents)
    rest = sorted(documents, key=lambda document: document.digest)
    total = sum(document.size for document in rest)
    if max(document.size for document in rest) > LARGEST_SHARE * total:
        return _cut_within(documents)
    held_out: dict[str, list[Document]] = {}
    for split, share in HELD_OUT.items():
        held_out[split], wanted = [], share * total
        while wanted > 0:
            held_out[split].append(rest.pop())
            wanted -= held_out[split][-1].size
    return {
        split: [Piece(document, 0, document.size) for document in group]
        for split, group in {"train": rest, **held_out}.items()
    }


def _cut_within(documents: Sequence[Document]) -> dict[str, list[Piece]]:
    pieces: dict[str, list[Piece]] = {"train": [], **{split: [] for split in HELD_OUT}}
    for document in documents:
        text, end = _bytes_of(document.path), document.size
        for split, share in HELD_OUT.items():
            start = _character_start(text, end - round(share * document.size))
            pieces[split].append(Piece(document, start, end))
            end = start
        pieces["train"].append(Piece(document, 0, end))
    return pieces


def _character_start(text: bytes, at: int) -> int:
    """Of the character of UTF-8 that holds byte `at`."""
    while 0 < at < len(text) and text[at] & 0b1100_0000 == 0b1000_0000:
        at -= 1
    return at


def _standard_library() -> Iterator[Document]:
    """Its .py files without tests, installed packages and what describes the machine that Python
    was built on; the few that are not UTF-8 are left out."""
    for name, path in _files_below(Path(sysconfig.get_paths()["stdlib"]), NOT_LIBRARY):
        built = name.startswith(("_sysconfigdata", "config-"))
        if path.suffix == ".py" and not built:
            text = _bytes_of(path)
            if _fault(text) is None:
                yield _document_of(path, name, text)


def _files_below(folder: Path, left_out: Sequence[str] = ()) -> list[tuple[str, Path]]:
    """Names below the folder, with forward slashes, and paths; nothing hidden."""
    found = []
    for parent, folders, files in os.walk(folder, onerror=_refuse):
        folders[:] = [name for name in folders if name not in left_out and name[0] != "."]
        paths = [Path(parent, name) for name in files if name[0] != "."]
        found += [(path.relative_to(folder).as_posix(), path) for path in paths]
    return sorted(found)


def _document(path: Path, name: str) -> Document:
    text = _bytes_of(path)
    fault = _fault(text)
    if fault:
        raise ValueError(f"text: {path}: {fault}")
    return _document_of(path, name, text)


def _document_of(path: Path, name: str, text: bytes) -> Document:
    return Document(name, path, len(text), hashlib.sha256(text).digest())


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
