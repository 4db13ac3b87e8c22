"""Associative retrieval: pairs of a key and a value, then a key: which value was stored with it?

Schlag, Irie, Schmidhuber (2021), section 6.1. Setting 1 has every one of S keys once, in a random
order, with the S values in another; setting 2 draws 2 S keys and values with replacement, and the
value that was stored last with a key counts.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

PUBLISHED_MAX_QUERIES = 200
"""The official code asks for no more keys of a sequence."""


class Retrieval(NamedTuple):
    """Sequences with queries: keys and values [B, T], queries and their targets [B, M], all int64
    in 0 .. S - 1, and counted [B, M], False where a sequence has fewer than M queries."""

    keys: Tensor
    values: Tensor
    queries: Tensor
    targets: Tensor
    counted: Tensor


def train_length(num_keys: int, replacement: bool) -> int:
    """T: S pairs without replacement, 2 S with it."""
    return 2 * num_keys if replacement else num_keys


def draw_pairs(
    num_sequences: int,
    num_keys: int,
    length: int,
    replacement: bool,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Keys and values [B, T] of sequences of `length` pairs. Without replacement, each key and each
    value occurs at most once. Raises ValueError for a length that has not enough keys."""
    if replacement:
        shape = 2, num_sequences, length
        keys, values = torch.randint(num_keys, shape, generator=generator)
        return keys, values
    if length > num_keys:
        raise ValueError(f"length {length} needs as many keys, got {num_keys}")
    # The order of uniform draws is a permutation.
    keys, values = torch.rand(2, num_sequences, num_keys, generator=generator).argsort(-1)
    return keys[:, :length], values[:, :length]


def ask_one(keys: Tensor, values: Tensor, generator: torch.Generator) -> Retrieval:
    """One query a sequence: the key of a position that is drawn uniformly."""
    position = torch.randint(keys.shape[1], (len(keys), 1), generator=generator)
    queries = keys.gather(1, position)
    return _answered(keys, values, queries, torch.ones_like(queries, dtype=torch.bool))


def ask_all(keys: Tensor, values: Tensor, num_keys: int, most: int | None = None) -> Retrieval:
    """Every key that a sequence has, in ascending order; the first `most` of them."""
    present = torch.zeros(len(keys), num_keys, dtype=torch.bool).scatter_(1, keys, True)
    counts = present.sum(1)
    M = int(counts.max()) if most is None else min(most, int(counts.max()))
    # Sorting puts the keys that are there first, in their order.
    queries = (~present).to(torch.uint8).argsort(dim=1, stable=True)[:, :M]
    counted = torch.arange(M) < counts[:, None]
    return _answered(keys, values, queries, counted)


def _answered(keys: Tensor, values: Tensor, queries: Tensor, counted: Tensor) -> Retrieval:
    """With the value that was stored last; that of the first pair for a key that is not there."""
    found = keys[:, None, :] == queries[:, :, None]
    last = (found * torch.arange(1, keys.shape[1] + 1)).argmax(-1)
    return Retrieval(keys, values, queries, values.gather(1, last), counted)
