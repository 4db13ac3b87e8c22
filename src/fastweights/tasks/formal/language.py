"""The contract of a formal language: symbols, labels, and how strings are drawn."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import product
from random import Random
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    import torch

String = tuple[str, ...]
Window = tuple[int, int]
Variant = Literal["strict", "published"]


class Example(NamedTuple):
    """One tagged sequence: `targets[t]` is the label of the prefix `inputs[: t + 1]`."""

    inputs: String
    targets: String


def python_random(generator: torch.Generator) -> Random:
    """A `random.Random` seeded with one draw of `generator`.

    Strings are built symbol by symbol in Python, where one `torch` draw a symbol costs far
    more than one of `random`.
    """
    import torch

    return Random(int(torch.randint(2**62, (), generator=generator, device=generator.device)))


class FormalLanguage(ABC):
    """A language over `symbols` in which every prefix of a word has one of `labels`.

    Class data: windows are inclusive pairs of lengths in symbols; sizes are numbers of strings.
    `train_window` serves train, validation and Bin0, `test_window` Bin1. The published suite has
    no validation set; `num_validation` is used by the strict variant only.
    """

    name: str
    title: str
    symbols: tuple[str, ...]
    labels: tuple[str, ...]
    train_window: Window = (2, 50)
    test_window: Window = (51, 100)
    num_train: int = 10_000
    num_validation: int = 1_000
    num_bin0: int = 2_000
    num_bin1: int = 2_000
    shares_pool: bool = False
    """Published variant: are train and Bin0 cut from one pool, or drawn independently?"""

    @abstractmethod
    def label(self, string: Sequence[str]) -> list[str]:
        """The label of every prefix. Raises ValueError at the first that no word begins with."""

    @abstractmethod
    def accepts(self, string: Sequence[str]) -> bool:
        """Is the whole string a word of the language?"""

    @abstractmethod
    def count_of_length(self, length: int) -> int:
        """The number of words of exactly `length` symbols."""

    @abstractmethod
    def draw(self, length_window: Window, random: Random) -> String:
        """One word as the published generator draws it."""

    @abstractmethod
    def draw_of_length(self, length: int, random: Random) -> String:
        """One word of exactly `length` symbols; the caller knows that there is one."""

    def lengths(self, low: int, high: int) -> list[int]:
        """The lengths in low..high (both included, 1 at least) that words have."""
        return [length for length in range(max(low, 1), high + 1) if self.count_of_length(length)]

    def count_in_window(self, length_window: Window) -> int:
        """The number of words in the window."""
        low, high = length_window
        return sum(self.count_of_length(length) for length in range(max(low, 1), high + 1))

    def words_of_length(self, length: int) -> Iterator[String]:
        """Every word of that length: by trying all strings, unless the language knows better."""
        return (word for word in product(self.symbols, repeat=length) if self.accepts(word))

    def windows(self, variant: Variant) -> tuple[Window, Window]:
        """Shortest and longest strings of a variant's sets: train, validation and Bin0; Bin1."""
        return self.train_window, self.test_window

    def sample(self, length_window: Window, generator: torch.Generator) -> String:
        """One word as the published generator draws it. Raises ValueError for an empty window."""
        if not self.lengths(*length_window):
            raise ValueError(f"{self.name}: no word of length {describe(length_window)}")
        return self.draw(length_window, python_random(generator))

    def sample_of_length(self, length: int, generator: torch.Generator) -> String:
        """One word of exactly `length` symbols. Raises ValueError when the language has none."""
        if not self.lengths(length, length):
            raise ValueError(f"{self.name}: no word of length {length}")
        return self.draw_of_length(length, python_random(generator))

    def draw_strict(self, length_window: Window, random: Random) -> String:
        """One word for the strict variant: `draw`, unless the published generator is weak."""
        return self.draw(length_window, random)

    def draw_distinct(self, count: int, length_window: Window, random: Random) -> list[String]:
        """`count` different words of the strict variant; the window must have that many."""
        found: dict[String, None] = {}
        while len(found) < count:
            found[self.draw_strict(length_window, random)] = None
        return list(found)

    def draw_published(
        self, count: int, length_window: Window, random: Random, *, held_out: bool
    ) -> list[String]:
        """A set of the published suite: here `count` different words, drawn by rejection.

        `held_out` tells a bin from a training set: some languages treat them differently.
        """
        found: dict[String, None] = {}
        while len(found) < count:
            found[self.draw(length_window, random)] = None
        return list(found)

    def example(self, string: String) -> Example:
        """The string with the labels of its prefixes."""
        return Example(string, tuple(self.label(string)))

    def _check_symbols(self, string: Sequence[str]) -> None:
        known = set(self.symbols)
        for position, symbol in enumerate(string, start=1):
            if symbol not in known:
                raise ValueError(
                    f"{self.name}: unknown symbol {symbol!r} at position {position}"
                    f" (symbols: {' '.join(self.symbols)})"
                )

    def _bad_prefix(self, string: Sequence[str], index: int, reason: str) -> ValueError:
        return ValueError(f"{self.name}: symbol {string[index]!r} at position {index + 1} {reason}")


class OneWordALength(FormalLanguage):
    """Languages with at most one word of each length: (aa)*, (abab)*, a^n b^n, a^n b^n c^n.

    Published sets: train is drawn with replacement; a bin is drawn with replacement, then its
    duplicates are dropped, so that it is smaller than its nominal size and Bin0 repeats strings
    of the training set.
    """

    @abstractmethod
    def word(self, length: int) -> String:
        """The word of that length, which exists."""

    def words_of_length(self, length: int) -> Iterator[String]:
        return iter([self.word(length)] if self.count_of_length(length) else [])

    def draw_of_length(self, length: int, random: Random) -> String:
        return self.word(length)

    def draw_published(
        self, count: int, length_window: Window, random: Random, *, held_out: bool
    ) -> list[String]:
        drawn = [self.draw(length_window, random) for _ in range(count)]
        return list(dict.fromkeys(drawn)) if held_out else drawn


def describe(length_window: Window) -> str:
    """A window as text: `2 to 50`."""
    return f"{length_window[0]} to {length_window[1]}"
