"""A corpus: the tokens of its splits, with the tokenizer that made them.

A split is one long run of tokens, its documents one after the other with a separator behind each.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from fastweights.tasks.text.documents import SEPARATOR, read_documents, split_documents
from fastweights.tasks.text.tokenizer import ByteTokenizer, Tokenizer

SPLITS = ("train", "validation", "test")


class Corpus(NamedTuple):
    """splits: tokens [N], unsigned, by name of the split; num_bytes: of the text behind them, the
    separators counted as one byte each; checksum: of all of it."""

    splits: Mapping[str, Tensor]
    num_bytes: Mapping[str, int]
    tokenizer: Tokenizer
    checksum: str


def load_corpus(source: str) -> Corpus:
    """A file, a folder or PYTHON_STDLIB as bytes. Raises ValueError as `read_documents` does."""
    texts = split_documents(read_documents(source))
    splits = {split: _bytes(texts[split]) for split in SPLITS}
    digest = hashlib.sha256()
    for tokens in splits.values():
        digest.update(len(tokens).to_bytes(8, "big") + tokens.numpy().tobytes())
    num_bytes = {split: len(tokens) for split, tokens in splits.items()}
    return Corpus(splits, num_bytes, ByteTokenizer(), digest.hexdigest())


def lanes(tokens: Tensor, num_lanes: int) -> Tensor:
    """tokens [N] -> [num_lanes, N // num_lanes], each lane a piece of the text; what is over at the
    end is left out."""
    length = len(tokens) // num_lanes
    return tokens[: num_lanes * length].view(num_lanes, length)


def _bytes(texts: list[bytes]) -> Tensor:
    joined = b"".join(text + bytes([SEPARATOR]) for text in texts)
    return torch.frombuffer(bytearray(joined), dtype=torch.uint8)
