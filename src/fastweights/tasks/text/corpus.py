"""A corpus: the tokens of its splits, with the tokenizer that made them.

A split is one long run of tokens, its documents one after the other with a separator behind each.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from fastweights.tasks.text.documents import (
    SEPARATOR,
    Piece,
    check_source,
    find_documents,
    split_documents,
)
from fastweights.tasks.text.prepared import (
    is_prepared,
    open_tokenizer,
    open_tokens,
    read_description,
)
from fastweights.tasks.text.source import SPLITS
from fastweights.tasks.text.tokenizer import ByteTokenizer, Tokenizer


class Corpus(NamedTuple):
    """splits: tokens [N] by name of the split; num_bytes, num_characters: of the text that they
    were made of, separators counted as one each; checksum: of all of it."""

    splits: Mapping[str, Tensor]
    num_bytes: Mapping[str, int]
    num_characters: Mapping[str, int]
    tokenizer: Tokenizer
    checksum: str


def load_corpus(source: str) -> Corpus:
    """A prepared corpus, its tokens mapped into memory; or a file, a folder or PYTHON_STDLIB as
    bytes. Raises ValueError, in one line, as `find_documents` does, or where the folder is damaged.
    """
    if is_prepared(source):
        return _prepared(Path(source))
    pieces = split_documents(find_documents(source))
    splits = {split: _bytes(pieces[split]) for split in SPLITS}
    digest = hashlib.sha256()
    for tokens in splits.values():
        digest.update(len(tokens).to_bytes(8, "big") + tokens.numpy().tobytes())
    num_bytes = {split: len(tokens) for split, tokens in splits.items()}
    num_characters = {split: _num_characters(tokens) for split, tokens in splits.items()}
    return Corpus(splits, num_bytes, num_characters, ByteTokenizer(), digest.hexdigest())


def corpus_vocab_size(source: str) -> int:
    """Of the tokenizer of `load_corpus(source)`; reads no text. Raises ValueError where there is
    none, or the folder is damaged."""
    if is_prepared(source):
        return read_description(Path(source)).vocab_size
    check_source(source)
    return ByteTokenizer.vocab_size


def lanes(tokens: Tensor, num_lanes: int) -> Tensor:
    """tokens [N] -> [num_lanes, N // num_lanes], each lane a piece of the text; what is over at the
    end is left out."""
    length = len(tokens) // num_lanes
    return tokens[: num_lanes * length].view(num_lanes, length)


def _prepared(folder: Path) -> Corpus:
    description = read_description(folder)
    return Corpus(
        {split: open_tokens(folder, description, split) for split in SPLITS},
        {split: description.splits[split].num_bytes for split in SPLITS},
        {split: description.splits[split].num_characters for split in SPLITS},
        open_tokenizer(folder, description),
        description.checksum(),
    )


def _bytes(pieces: list[Piece]) -> Tensor:
    joined = bytearray()
    for piece in pieces:
        joined += piece.read()
        joined.append(SEPARATOR)
    return torch.frombuffer(joined, dtype=torch.uint8)


def _num_characters(text: Tensor) -> int:
    """Of UTF-8, bytes [N]: its bytes but those that continue a character, 0b10xxxxxx."""
    return int((text >> 6 != 0b10).sum())
