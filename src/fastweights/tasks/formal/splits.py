"""Train, validation and test sets of a language, in two variants.

`published`: the sets of Bhattamishra et al. (2020), quirks included; no validation set.
`strict`: four sets without duplicates, within or between them.
"""

from __future__ import annotations

from random import Random
from typing import NamedTuple, get_args

from fastweights.tasks.formal.language import (
    Example,
    FormalLanguage,
    String,
    Variant,
    Window,
    describe,
)


class Splits(NamedTuple):
    """The sets of a task; one that does not exist is empty."""

    train: list[Example]
    validation: list[Example]
    bin0: list[Example]
    bin1: list[Example]

    def non_empty(self) -> dict[str, list[Example]]:
        """The sets that exist, by name."""
        return {name: examples for name, examples in self._asdict().items() if examples}


def make_splits(language: FormalLanguage, variant: Variant, seed: int) -> Splits:
    """The sets of `language`. The same seed gives the same sets.

    Raises ValueError (one line) for an unknown variant or a window that has too few words.
    """
    if variant not in get_args(Variant):
        raise ValueError(f"variant={variant!r} is not one of {', '.join(get_args(Variant))}")
    random = Random(seed)
    make = strict_strings if variant == "strict" else published_strings
    train, validation, bin0, bin1 = make(language, random)
    return Splits(
        [language.example(string) for string in train],
        [language.example(string) for string in validation],
        [language.example(string) for string in bin0],
        [language.example(string) for string in bin1],
    )


def published_strings(language: FormalLanguage, random: Random) -> list[list[String]]:
    """Train, no validation, Bin0, Bin1 as published; see each language for its quirks."""
    window = language.train_window
    num_train, num_bin0 = language.num_train, language.num_bin0
    if language.shares_pool:
        pool = language.draw_published(num_train + num_bin0, window, random, held_out=False)
        train, bin0 = pool[:num_train], pool[num_train:]
    else:
        train = language.draw_published(num_train, window, random, held_out=False)
        bin0 = language.draw_published(num_bin0, window, random, held_out=True)
    bin1 = language.draw_published(language.num_bin1, language.test_window, random, held_out=True)
    return [train, [], bin0, bin1]


def strict_strings(language: FormalLanguage, random: Random) -> list[list[String]]:
    """Train, validation, Bin0 and Bin1, pairwise without common strings.

    Where the train window has fewer words than the first three sets ask for, all of them are
    split at random, about 60 / 20 / 20 %. Bin1 is longer than every training string, and all of
    its window if that has no more words than asked for.
    """
    _check_windows(language)
    sizes = (language.num_train, language.num_validation, language.num_bin0)
    window = language.train_window
    if language.count_in_window(window) < sum(sizes):
        pool = _all_words(language, window)
        random.shuffle(pool)
        fifth = max(1, round(len(pool) / 5))
        sizes = (min(sizes[0], len(pool) - 2 * fifth), min(sizes[1], fifth), min(sizes[2], fifth))
    else:
        pool = language.draw_distinct(sum(sizes), window, random)
        random.shuffle(pool)
    num_train, num_validation, num_bin0 = sizes
    held_out = pool[num_train:]
    bin0 = held_out[num_validation : num_validation + num_bin0]
    return [pool[:num_train], held_out[:num_validation], bin0, _strict_bin1(language, random)]


def _strict_bin1(language: FormalLanguage, random: Random) -> list[String]:
    window = language.test_window
    if language.count_in_window(window) <= language.num_bin1:
        return _all_words(language, window)
    return language.draw_distinct(language.num_bin1, window, random)


def _all_words(language: FormalLanguage, window: Window) -> list[String]:
    lengths = language.lengths(*window)
    return [word for length in lengths for word in language.words_of_length(length)]


def _check_windows(language: FormalLanguage) -> None:
    train, test = language.train_window, language.test_window
    if test[0] <= train[1]:
        raise ValueError(
            f"{language.name}: test_window {describe(test)} must lie above"
            f" train_window {describe(train)}"
        )
    for field, window, needed in (("train_window", train, 3), ("test_window", test, 1)):
        found = language.count_in_window(window)
        if found < needed:
            raise ValueError(
                f"{language.name}: {found or 'no'} word{'s' * (found > 1)} of length"
                f" {describe(window)} ({field}), at least {needed} needed"
            )
