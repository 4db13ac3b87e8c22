"""Symbols to integers, sequences to padded tensors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fastweights.tasks.formal.language import Example


class Vocabulary:
    """Symbols in a fixed order; `symbols[i]` has the id i. `padding_id` is one past the last."""

    def __init__(self, symbols: Iterable[str]) -> None:
        self.symbols = tuple(symbols)
        self.ids = {symbol: index for index, symbol in enumerate(self.symbols)}
        if len(self.ids) != len(self.symbols):
            raise ValueError(f"symbols occur twice: {' '.join(self.symbols)}")

    def __len__(self) -> int:
        return len(self.symbols)

    @property
    def padding_id(self) -> int:
        return len(self.symbols)

    def encode(self, string: Sequence[str]) -> list[int]:
        """The ids of a string. Raises ValueError naming an unknown symbol and its position."""
        try:
            return [self.ids[symbol] for symbol in string]
        except KeyError:
            position = next(i for i, symbol in enumerate(string) if symbol not in self.ids)
            raise ValueError(
                f"unknown symbol {string[position]!r} at position {position + 1}"
                f" (symbols: {' '.join(self.symbols)})"
            ) from None

    def decode(self, ids: Iterable[int]) -> tuple[str, ...]:
        """The symbols of ids in 0..len - 1. Raises ValueError for any other id."""
        found = list(ids)
        for index in found:
            if not 0 <= index < len(self.symbols):
                raise ValueError(f"id {index} is outside 0..{len(self.symbols) - 1}")
        return tuple(self.symbols[index] for index in found)


class TaggedSequences(NamedTuple):
    """N sequences padded to the longest, T.

    inputs [N, T] int64, padded with `len(symbols)`; targets [N, T] int64, padded with 0;
    mask [N, T] bool, True = counted.
    """

    inputs: Tensor
    targets: Tensor
    mask: Tensor


def encode(
    examples: Sequence[Example], symbols: Sequence[str], labels: Sequence[str]
) -> TaggedSequences:
    """The examples as tensors. Raises ValueError for no examples or an unknown symbol or label."""
    if not examples:
        raise ValueError("no sequences to encode")
    inputs, targets = Vocabulary(symbols), Vocabulary(labels)
    longest = max(len(example.inputs) for example in examples)
    input_rows, target_rows, lengths = [], [], []
    for example in examples:
        length = len(example.inputs)
        if len(example.targets) != length:
            raise ValueError(f"{length} inputs but {len(example.targets)} targets")
        padding = longest - length
        input_rows.append(inputs.encode(example.inputs) + [inputs.padding_id] * padding)
        target_rows.append(targets.encode(example.targets) + [0] * padding)
        lengths.append(length)
    mask = torch.arange(longest)[None, :] < torch.tensor(lengths)[:, None]
    return TaggedSequences(torch.tensor(input_rows), torch.tensor(target_rows), mask)
