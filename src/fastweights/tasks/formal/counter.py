"""Counter languages a^n b^n and a^n b^n c^n."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from fastweights.tasks.formal.language import OneWordALength, String, Window


class Counter(OneWordALength):
    """The words s_1^n s_2^n ... s_k^n, n >= 1. A label tells which symbols may come next.

    The last label, `T`, is the end of the word; the others are: in the run of s_1 (s_1 or s_2
    may follow) the first label, elsewhere the symbol that must follow. In the published data
    a^n b^n has the labels c^n b^(n-1) T and a^n b^n c^n has d^n b^(n-1) c^n T.

    Published generator: n uniform over the window, which counts n, not symbols (1..50 and
    51..100; the windows here are in symbols). Bin0 is a subset of the training strings.
    """

    num_train, num_bin0, num_bin1 = 1_000, 50, 50

    def label(self, string: Sequence[str]) -> list[str]:
        self._check_symbols(string)
        run_of = {symbol: run for run, symbol in enumerate(self.symbols)}
        labels: list[str] = []
        size = run = count = 0  # length of the first run; the current run and its length
        for index, symbol in enumerate(string):
            if run_of[symbol] == run:
                count += 1
            elif run_of[symbol] == run + 1 and count == max(size, 1):
                run, count = run + 1, 1
            else:
                raise self._bad_prefix(string, index, "cannot follow what precedes it")
            if run == 0:
                size = count
                labels.append(self.labels[0])
            elif count < size:
                labels.append(symbol)
            elif count == size:
                labels.append("T" if run + 1 == len(self.symbols) else self.symbols[run + 1])
            else:
                raise self._bad_prefix(string, index, f"is one too many after {size} of each")
        return labels

    def accepts(self, string: Sequence[str]) -> bool:
        return len(string) > 0 and tuple(string) == self.word(len(string))

    def count_of_length(self, length: int) -> int:
        return int(length >= 1 and length % len(self.symbols) == 0)

    def word(self, length: int) -> String:
        return tuple(s for s in self.symbols for _ in range(length // len(self.symbols)))

    def draw(self, length_window: Window, random: Random) -> String:
        return self.word(random.choice(self.lengths(*length_window)))


class Counter2(Counter):
    """a^n b^n."""

    name = "counter_2"
    title = "a^n b^n"
    symbols = ("a", "b")
    labels = ("c", "b", "T")
    train_window = (2, 100)
    test_window = (102, 200)


class Counter3(Counter):
    """a^n b^n c^n."""

    name = "counter_3"
    title = "a^n b^n c^n"
    symbols = ("a", "b", "c")
    labels = ("d", "b", "c", "T")
    train_window = (3, 150)
    test_window = (153, 300)
