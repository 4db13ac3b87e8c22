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

With `writes_per_key` W > 1, every key comes W times in the first part, in any order, each time with
another value, and the last one counts: what Schlag et al. (2021), section 6.1.2, ask of one memory.
Not in the paper.
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


def check_sizes(vocab_size: int, length: int, num_keys: int, writes_per_key: int = 1) -> None:
    """Raises ValueError where the pairs do not fit into the length or the vocabulary."""
    if num_keys < 1:
        raise ValueError(f"num_keys must be >= 1, got {num_keys}")
    if writes_per_key < 1:
        raise ValueError(f"writes_per_key must be >= 1, got {writes_per_key}")
    num_pairs = num_keys * writes_per_key
    if length < 2 * num_pairs + 2 * num_keys:
        raise ValueError(
            f"length {length} is too short for {num_pairs} pairs and their queries, which need "
            f"{2 * num_pairs + 2 * num_keys}"
        )
    if vocab_size // 2 - 1 < num_pairs:
        raise ValueError(
            f"vocab_size {vocab_size} has {max(vocab_size // 2 - 1, 0)} keys, {num_pairs} pairs "
            f"need vocab_size {2 * num_pairs + 2}"
        )


def draw_recall(
    num_sequences: int,
    length: int,
    num_keys: int,
    vocab_size: int,
    generator: torch.Generator,
    random_filler: bool = True,
    writes_per_key: int = 1,
) -> Recall:
    """Sequences of `length` tokens with `num_keys` keys. Raises ValueError as `check_sizes`."""
    check_sizes(vocab_size, length, num_keys, writes_per_key)
    first_value = vocab_size // 2
    num_pairs = num_keys * writes_per_key
    keys = _choose(num_sequences, first_value - 1, num_keys, generator) + 1
    values = _choose(num_sequences, vocab_size - first_value, num_pairs, generator) + first_value
    written, read = keys, values
    if writes_per_key > 1:
        order = torch.rand(num_sequences, num_pairs, generator=generator).argsort()
        written = keys.repeat(1, writes_per_key).gather(1, order)
        place_of_pair = order.argsort().view(num_sequences, writes_per_key, num_keys)
        read = values.gather(1, place_of_pair.amax(1))  # the last pair of each key
    # Exponential times: the order in which they end is that of weighted draws, one after another.
    weights = torch.arange(1, (length - 2 * num_pairs) // 2 + 1) ** (POWER_A - 1)
    times = torch.empty(num_sequences, len(weights)).exponential_(generator=generator)
    gaps = (times / weights).topk(num_keys, largest=False).indices
    queries = 2 * num_pairs + 2 * gaps

    highest = vocab_size if random_filler else 1
    inputs = torch.randint(highest, (num_sequences, length), generator=generator)
    inputs[:, 0 : 2 * num_pairs : 2] = written
    inputs[:, 1 : 2 * num_pairs : 2] = values
    inputs.scatter_(1, queries, keys)
    targets = torch.zeros_like(inputs).scatter_(1, queries, read)
    asked = torch.zeros_like(inputs, dtype=torch.bool).scatter_(1, queries, True)
    return Recall(inputs, asked, targets[asked])


def _choose(num_sequences: int, size: int, count: int, generator: torch.Generator) -> Tensor:
    """[num_sequences, count] different numbers of 0 .. size - 1."""
    return torch.rand(num_sequences, size, generator=generator).topk(count).indices
