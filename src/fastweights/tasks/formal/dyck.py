"""Balanced brackets: Dyck-1 and the shuffle of two Dyck-1 languages."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from math import comb
from random import Random

from fastweights.tasks.formal.language import FormalLanguage, String, Window

NEST_PROBABILITY = 0.5
JOIN_PROBABILITY = 0.25


def draw_nested(pairs: Sequence[str], max_length: int, random: Random) -> str:
    """One draw of the published grammar; it may be empty. `pairs`: two characters each.

    S -> open S close with probability 0.5 (the pair uniform), S S with 0.25, else empty; S is
    empty at a nesting of `max_length` symbols, and so is any part that comes out longer.
    """
    uniform = random.random
    done: list[str] = []
    todo: list[int | str | None] = [0]  # a size: expand; a pair: nest in it; None: join two parts
    while todo:
        step = todo.pop()
        if isinstance(step, int):
            draw = uniform() if step < max_length else 1.0
            if draw < NEST_PROBABILITY:
                todo.append(random.choice(pairs) if len(pairs) > 1 else pairs[0])
                todo.append(step + 2)
            elif draw < NEST_PROBABILITY + JOIN_PROBABILITY:
                todo += (None, step, step)
            else:
                done.append("")
            continue
        part = done.pop()
        part = part + done.pop() if step is None else step[0] + part + step[1]
        done.append(part if len(part) <= max_length else "")
    return done.pop()


def draw_balanced(length: int, random: Random) -> list[str]:
    """A balanced word over ( ), uniform over the words of that even length.

    Cycle lemma: of the rotations of a sequence with one `)` too many, exactly one is a balanced
    word followed by that `)`.
    """
    steps = [1] * (length // 2) + [-1] * (length // 2 + 1)
    random.shuffle(steps)
    depths = list(accumulate(steps))
    start = depths.index(min(depths)) + 1
    return ["(" if step == 1 else ")" for step in (steps[start:] + steps[:start])[:-1]]


def catalan(num_pairs: int) -> int:
    """The number of balanced words with that many pairs."""
    return comb(2 * num_pairs, num_pairs) // (num_pairs + 1)


class Dyck1(FormalLanguage):
    """Balanced ( ). Label `1` where the depth is above 0, else `0`.

    Published generator: `draw_nested`, words below the window and duplicates drawn again. Quirks
    kept: train and Bin0 are drawn independently and share words; the test window starts at 52.
    """

    name = "dyck_1"
    title = "Dyck-1"
    symbols = ("(", ")")
    labels = ("0", "1")
    test_window = (52, 100)

    def label(self, string: Sequence[str]) -> list[str]:
        self._check_symbols(string)
        labels, depth = [], 0
        for index, symbol in enumerate(string):
            depth += 1 if symbol == "(" else -1
            if depth < 0:
                raise self._bad_prefix(string, index, "closes nothing")
            labels.append("1" if depth else "0")
        return labels

    def accepts(self, string: Sequence[str]) -> bool:
        return is_balanced(string, "(", ")") and set(string) <= set(self.symbols)

    def count_of_length(self, length: int) -> int:
        return catalan(length // 2) if length >= 1 and length % 2 == 0 else 0

    def draw(self, length_window: Window, random: Random) -> String:
        low, high = length_window
        while len(word := draw_nested(("()",), high, random)) < max(low, 1):
            pass
        return tuple(word)

    def draw_of_length(self, length: int, random: Random) -> String:
        """Uniform over the words of that length."""
        return tuple(draw_balanced(length, random))


class Shuffle2(FormalLanguage):
    """Shuffles of a balanced word over ( ) and one over [ ]: the pairs may cross.

    Label: two bits, 1 where the depth of ( ), then of [ ], is above 0.

    Published generator: `draw_nested` with two pairs, so every word is well nested and `([)]`
    never occurs; duplicates and bins as for Dyck-1. Strict variant: a length uniform over the
    window, then a word uniform over all words of that length, crossings included.
    """

    name = "shuffle_2"
    title = "Shuffle-2"
    symbols = ("(", ")", "[", "]")
    labels = ("00", "01", "10", "11")
    test_window = (52, 100)

    def label(self, string: Sequence[str]) -> list[str]:
        self._check_symbols(string)
        labels = []
        round_depth = square_depth = 0
        for index, symbol in enumerate(string):
            round_depth += {"(": 1, ")": -1}.get(symbol, 0)
            square_depth += {"[": 1, "]": -1}.get(symbol, 0)
            if min(round_depth, square_depth) < 0:
                raise self._bad_prefix(string, index, "closes nothing")
            labels.append(f"{int(round_depth > 0)}{int(square_depth > 0)}")
        return labels

    def accepts(self, string: Sequence[str]) -> bool:
        balanced = is_balanced(string, "(", ")") and is_balanced(string, "[", "]")
        return balanced and set(string) <= set(self.symbols)

    def count_of_length(self, length: int) -> int:
        """Cat(m) Cat(m + 1) for m pairs."""
        pairs = length // 2
        return catalan(pairs) * catalan(pairs + 1) if length >= 1 and length % 2 == 0 else 0

    def draw(self, length_window: Window, random: Random) -> String:
        low, high = length_window
        while len(word := draw_nested(("()", "[]"), high, random)) < max(low, 1):
            pass
        return tuple(word)

    def draw_strict(self, length_window: Window, random: Random) -> String:
        return self.draw_of_length(random.choice(self.lengths(*length_window)), random)

    def draw_of_length(self, length: int, random: Random) -> String:
        """Uniform over the words of that length."""
        cumulative = round_pair_weights(length // 2)
        num_round = 2 * bisect(cumulative, random.randrange(cumulative[-1]))
        round_part = iter(draw_balanced(num_round, random))
        square_part = iter(draw_balanced(length - num_round, random))
        is_round = [True] * num_round + [False] * (length - num_round)
        random.shuffle(is_round)
        square = {"(": "[", ")": "]"}
        return tuple(next(round_part) if r else square[next(square_part)] for r in is_round)


@lru_cache(maxsize=256)
def round_pair_weights(num_pairs: int) -> list[int]:
    """Cumulative number of Shuffle-2 words with 0, 1, ... of `num_pairs` pairs round."""
    return list(
        accumulate(
            comb(2 * num_pairs, 2 * round_pairs)
            * catalan(round_pairs)
            * catalan(num_pairs - round_pairs)
            for round_pairs in range(num_pairs + 1)
        )
    )


def is_balanced(string: Sequence[str], opening: str, closing: str) -> bool:
    """Is the word balanced once every other symbol is left out?"""
    depth = 0
    for symbol in string:
        depth += (symbol == opening) - (symbol == closing)
        if depth < 0:
            return False
    return depth == 0
