"""Multi-query associative recall: pairs of a key and a value, then every key once: its value?

Arora et al. (2023), "Zoology", arXiv 2312.04927, section 3 and official code
(zoology/data/multiquery_ar.py). A sequence begins with n pairs, key value key value ...: the keys
distinct, of 1 .. V/2 - 1, the values distinct, of V/2 .. V - 1. Then each key is asked once, at an
even distance 2 g from the end of the pairs. The gaps g are drawn without replacement, key after
key, with a probability proportional to (g + 1)^(a - 1): most are small; a = 1 would be uniform. At
all other positions is token 0, as in the paper's configurations, or, with `random_filler` (the
code's `random_non_queries`, its default), one of 0 .. V - 1, drawn uniformly: a key or a value,
too, which asks and tells nothing. The target is at the query's own position, as there after the
shift of the labels.

Differences: the numbers come from another generator; lengths may be odd, and longer than the
vocabulary; the pairs are shown once (`num_passes` of the code is 1).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

POWER_A = 0.01
"""The exponent a, that of every published configuration."""


class Recall(NamedTuple):
    """inputs [B, T] int64; asked [B, T], True at the queries, n a sequence; targets [B n] int64,
    the values at the queries, in the order in which `asked` selects them."""

    inputs: Tensor
    asked: Tensor
    targets: Tensor


def check_sizes(vocab_size: int, length: int, num_pairs: int) -> None:
    """Raises ValueError where the pairs do not fit into the length or the vocabulary."""
    if num_pairs < 1:
        raise ValueError(f"num_pairs must be >= 1, got {num_pairs}")
    if length < 4 * num_pairs:
        raise ValueError(
            f"length {length} is too short for {num_pairs} pairs and their queries, which need "
            f"{4 * num_pairs}"
        )
    if vocab_size // 2 - 1 < num_pairs:
        raise ValueError(
            f"vocab_size {vocab_size} has {max(vocab_size // 2 - 1, 0)} keys, {num_pairs} pairs "
            f"need vocab_size {2 * num_pairs + 2}"
        )


def draw_recall(
    num_sequences: int,
    length: int,
    num_pairs: int,
    vocab_size: int,
    generator: torch.Generator,
    random_filler: bool = True,
) -> Recall:
    """Sequences of `length` tokens with `num_pairs` pairs. Raises ValueError as `check_sizes`."""
    check_sizes(vocab_size, length, num_pairs)
    first_value = vocab_size // 2
    sizes = (first_value - 1, vocab_size - first_value)
    keys, values = (
        torch.rand(num_sequences, size, generator=generator).topk(num_pairs).indices
        for size in sizes
    )
    keys, values = keys + 1, values + first_value
    # Exponential times: the order in which they end is that of weighted draws, one after another.
    weights = torch.arange(1, (length - 2 * num_pairs) // 2 + 1) ** (POWER_A - 1)
    times = torch.empty(num_sequences, len(weights)).exponential_(generator=generator)
    gaps = (times / weights).topk(num_pairs, largest=False).indices
    queries = 2 * num_pairs + 2 * gaps

    highest = vocab_size if random_filler else 1
    inputs = torch.randint(highest, (num_sequences, length), generator=generator)
    inputs[:, 0 : 2 * num_pairs : 2] = keys
    inputs[:, 1 : 2 * num_pairs : 2] = values
    inputs.scatter_(1, queries, keys)
    targets = torch.zeros_like(inputs).scatter_(1, queries, values)
    asked = torch.zeros_like(inputs, dtype=torch.bool).scatter_(1, queries, True)
    return Recall(inputs, asked, targets[asked])
