"""Dyck-1 with a reset symbol."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import comb
from random import Random

from fastweights.tasks.formal.dyck import catalan, draw_balanced, draw_nested, is_balanced
from fastweights.tasks.formal.language import FormalLanguage, String, Variant, Window

STOP_PROBABILITY = 1 / 3


class ResetDyck1(FormalLanguage):
    """Prefixes of balanced words, each ended by the reset `1`, then a balanced word.

    Label `1` where the depth since the last reset is above 0, else `0`; `0` at the reset itself.

    Published generator: two draws s, t of `draw_nested`; the word is a uniform prefix of s, `1`,
    t. Quirks kept: exactly one reset; only the lower end of the window holds (a word has up to
    2 high + 1 symbols), so that Bin0 and Bin1 overlap in length; train and Bin0 are cut from one
    pool without duplicates. The published sizes and windows were not recovered: 10,000 and 2,000
    are the generator's examples, (2, 50) and (51, 100) its conventions.

    Strict variant: a length uniform over the window (the whole word fits it), then
    `draw_of_length`: any number of resets, none included.
    """

    name = "reset_dyck_1"
    title = "reset Dyck-1"
    symbols = ("(", ")", "1")
    labels = ("0", "1")
    shares_pool = True

    def label(self, string: Sequence[str]) -> list[str]:
        self._check_symbols(string)
        labels, depth = [], 0
        for index, symbol in enumerate(string):
            depth = 0 if symbol == "1" else depth + (1 if symbol == "(" else -1)
            if depth < 0:
                raise self._bad_prefix(string, index, "closes nothing")
            labels.append("1" if depth else "0")
        return labels

    def accepts(self, string: Sequence[str]) -> bool:
        *before, last = "".join(string).split("1")
        completed = [part + ")" * (part.count("(") - part.count(")")) for part in before]
        balanced = all(is_balanced(part, "(", ")") for part in (*completed, last))
        return balanced and set(string) <= set(self.symbols)

    def lengths(self, low: int, high: int) -> list[int]:
        return list(range(max(low, 1), high + 1))

    def count_of_length(self, length: int) -> int:
        """By the place of the last reset: a prefix before it, a balanced word after it."""
        if length < 1:
            return 0
        after = [length - 1 - place for place in range(length)]
        count = sum(
            num_prefixes(length - 1 - size) * catalan(size // 2) for size in after if size % 2 == 0
        )
        return count + (catalan(length // 2) if length % 2 == 0 else 0)

    def windows(self, variant: Variant) -> tuple[Window, Window]:
        train, test = self.train_window, self.test_window
        if variant == "strict":
            return train, test
        return (train[0], 2 * train[1] + 1), (test[0], 2 * test[1] + 1)

    def draw(self, length_window: Window, random: Random) -> String:
        low, high = length_window
        while True:
            first = draw_nested(("()",), high, random)
            second = draw_nested(("()",), high, random)
            word = first[: random.randint(0, len(first))] + "1" + second
            if len(word) >= low:
                return tuple(word)

    def draw_strict(self, length_window: Window, random: Random) -> String:
        return self.draw_of_length(random.choice(self.lengths(*length_window)), random)

    def draw_of_length(self, length: int, random: Random) -> String:
        """A geometric number of resets (mean 2, at uniform places), uniform words between them.

        Not uniform over the words: nearly all of those have a reset every few symbols and never
        become deep. Every word has a positive probability.
        """
        while True:
            num_resets = 0
            while random.random() >= STOP_PROBABILITY:
                num_resets += 1
            if num_resets > length:
                continue
            resets = sorted(random.sample(range(length), num_resets))
            start = resets[-1] + 1 if resets else 0
            if (length - start) % 2 == 0:
                break
        word: list[str] = []
        for reset in resets:
            word += [*draw_prefix(reset - len(word), random), "1"]
        return tuple(word + draw_balanced(length - start, random))


def draw_prefix(length: int, random: Random) -> list[str]:
    """A prefix of a balanced word, uniform over the prefixes of that length.

    The sequences with length // 2 closings correspond one to one to the prefixes: turn every
    closing that reaches a new lowest depth into an opening.
    """
    steps = [1] * (length - length // 2) + [-1] * (length // 2)
    random.shuffle(steps)
    symbols = []
    depth = lowest = 0
    for step in steps:
        depth += step
        symbols.append("(" if step == 1 or depth < lowest else ")")
        lowest = min(lowest, depth)
    return symbols


@lru_cache(maxsize=2048)
def num_prefixes(length: int) -> int:
    """The number of prefixes of that length that a word of reset Dyck-1 can have."""
    count = comb(length, length // 2)
    for place in range(length):  # of the last reset
        size = length - 1 - place
        count += num_prefixes(place) * comb(size, size // 2)
    return count
