"""Regular languages that are not star-free: parity, (aa)* and (abab)*."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from fastweights.tasks.formal.language import FormalLanguage, OneWordALength, String, Window


class Parity(FormalLanguage):
    """Strings over 0, 1 with an even number of ones. Label `1` where the prefix is even, else `0`.

    Published generator (Bhattamishra et al. 2020): symbols are added until a stop of probability
    1 / (1 + L), L = (low + high) // 2, or until `high`; an odd string gets a trailing `1`, and is
    dropped if that makes it too long. Quirks kept: duplicates are looked for before that `1` is
    added, so about a seventh of the training strings are duplicates; train and Bin0 are cut from
    one pool, so some strings of Bin0 are in train.
    """

    name = "parity"
    title = "parity"
    symbols = ("0", "1")
    labels = ("0", "1")
    shares_pool = True

    def label(self, string: Sequence[str]) -> list[str]:
        self._check_symbols(string)
        labels, even = [], True
        for symbol in string:
            even = even != (symbol == "1")
            labels.append("1" if even else "0")
        return labels

    def accepts(self, string: Sequence[str]) -> bool:
        return set(string) <= {"0", "1"} and list(string).count("1") % 2 == 0

    def count_of_length(self, length: int) -> int:
        return 2 ** (length - 1) if length >= 1 else 0

    def draw(self, length_window: Window, random: Random) -> String:
        while True:
            bits = self._bits(length_window, random)
            word = bits if self.accepts(bits) else (*bits, "1")
            if length_window[0] <= len(bits) and len(word) <= length_window[1]:
                return word

    def draw_of_length(self, length: int, random: Random) -> String:
        """Uniform: all symbols but the last are free."""
        bits = f"{random.getrandbits(length):0{length}b}"[1:] if length > 1 else ""
        return (*bits, "01"[bits.count("1") % 2])

    def draw_published(
        self, count: int, length_window: Window, random: Random, *, held_out: bool
    ) -> list[String]:
        words: list[String] = []
        found: set[String] = set()
        while len(words) < count:
            bits = self._bits(length_window, random)
            if bits in found or len(bits) < length_window[0]:
                continue
            word = bits if self.accepts(bits) else (*bits, "1")
            if len(word) <= length_window[1]:
                words.append(word)
                found.add(word)
        return words

    @staticmethod
    def _bits(length_window: Window, random: Random) -> String:
        low, high = length_window
        mean = (low + high) // 2
        stop = 1 / (1 + mean)
        bits: list[str] = []
        while len(bits) < high:
            uniform = random.random()
            if uniform < stop:
                break
            bits.append("0" if uniform < (1 + stop) / 2 else "1")
        return tuple(bits)


class RepeatedBlock(OneWordALength):
    """The words block^m, m >= 1. Label `1` where the prefix is in the language, else `0`.

    Published generator: a length uniform in the window, floored to a multiple of the block, drawn
    again if that falls below the window.
    """

    labels = ("0", "1")
    block: String

    def label(self, string: Sequence[str]) -> list[str]:
        self._check_symbols(string)
        size = len(self.block)
        for index, symbol in enumerate(string):
            if symbol != self.block[index % size]:
                raise self._bad_prefix(
                    string, index, f"cannot follow: expected {self.block[index % size]!r}"
                )
        return ["1" if (index + 1) % size == 0 else "0" for index in range(len(string))]

    def accepts(self, string: Sequence[str]) -> bool:
        return tuple(string) == self.block * (len(string) // len(self.block))

    def count_of_length(self, length: int) -> int:
        return int(length >= 1 and length % len(self.block) == 0)

    def word(self, length: int) -> String:
        return self.block * (length // len(self.block))

    def draw(self, length_window: Window, random: Random) -> String:
        while True:
            word = self.word(random.randint(*length_window))
            if len(word) >= max(length_window[0], 1):
                return word


class AAStar(RepeatedBlock):
    """(aa)*. Published: 250 training draws hold about 157 of the 250 strings of the window."""

    name = "aa_star"
    title = "(aa)*"
    symbols = ("a",)
    block = ("a", "a")
    train_window = (2, 500)
    test_window = (502, 600)
    num_train, num_bin0, num_bin1 = 250, 50, 50


class ABABStar(RepeatedBlock):
    """(abab)*. The published generator crashes on its bins; they are drawn as those of (aa)*."""

    name = "abab_star"
    title = "(abab)*"
    symbols = ("a", "b")
    block = ("a", "b", "a", "b")
    train_window = (4, 500)
    test_window = (504, 600)
    num_train, num_bin0, num_bin1 = 125, 25, 25
