"""Texts to prepare, by split, read one after the other and as often as needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from fastweights.tasks.text.documents import Piece, find_documents, split_documents

SPLITS = ("train", "validation", "test")

Texts = Callable[[], Iterator[str]]
"""One pass over the texts of a split."""


class Source(NamedTuple):
    """name: where the texts are from; splits: those of SPLITS; tokenizer_texts: that a
    tokenizer is trained on; separated: whether the tokenizer's separator stands behind every
    text."""

    name: str
    splits: Mapping[str, Texts]
    tokenizer_texts: Texts
    separated: bool


def local_source(place: str) -> Source:
    """The documents of a file, a folder or Python's own sources. Raises ValueError as
    `find_documents` does."""
    pieces = split_documents(find_documents(place))
    splits = {split: partial(_texts, pieces[split]) for split in pieces}
    return Source(place, splits, splits["train"], separated=True)


def _texts(pieces: Sequence[Piece]) -> Iterator[str]:
    for piece in pieces:
        yield piece.read().decode()
