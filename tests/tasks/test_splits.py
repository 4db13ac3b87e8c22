"""The sets: the published ones with their quirks, the strict ones without duplicates."""

import copy
import subprocess
import sys
from collections import Counter
from itertools import combinations, product
from math import sqrt
from random import Random

import pytest

from fastweights.tasks.formal.dyck import draw_nested
from fastweights.tasks.formal.language import FormalLanguage, python_random
from fastweights.tasks.formal.menu import LANGUAGES
from fastweights.tasks.formal.splits import Splits, make_splits

SMALL = {"num_train": 400, "num_validation": 100, "num_bin0": 150, "num_bin1": 100}
FEW_WORDS = ("aa_star", "abab_star", "counter_2", "counter_3")

# Published sizes, then windows in symbols.
PUBLISHED = {
    "parity": (10_000, 2_000, 2_000, (2, 50), (51, 100)),
    "dyck_1": (10_000, 2_000, 2_000, (2, 50), (52, 100)),
    "shuffle_2": (10_000, 2_000, 2_000, (2, 50), (52, 100)),
    "aa_star": (250, 50, 50, (2, 500), (502, 600)),
    "abab_star": (125, 25, 25, (4, 500), (504, 600)),
    "counter_2": (1_000, 50, 50, (2, 100), (102, 200)),
    "counter_3": (1_000, 50, 50, (3, 150), (153, 300)),
    "reset_dyck_1": (10_000, 2_000, 2_000, (2, 50), (51, 100)),
}


def smaller(name: str) -> FormalLanguage:
    """The language with small sets, unless it has few words anyway."""
    language = copy.copy(LANGUAGES[name])
    if name not in FEW_WORDS:
        for field, size in SMALL.items():
            setattr(language, field, size)
    return language


def lengths(splits: Splits, *names: str) -> set[int]:
    return {len(example.inputs) for name in names for example in getattr(splits, name)}


@pytest.mark.parametrize("name", list(LANGUAGES))
def test_published_sizes_and_windows(name):
    language = LANGUAGES[name]
    found = (language.num_train, language.num_bin0, language.num_bin1)
    assert (*found, language.train_window, language.test_window) == PUBLISHED[name]


@pytest.mark.parametrize("name", list(LANGUAGES))
@pytest.mark.parametrize("variant", ["strict", "published"])
def test_every_string_is_a_word_with_its_labels(name, variant):
    language = smaller(name)
    for examples in make_splits(language, variant, 0):
        for example in examples:
            assert language.accepts(example.inputs)
            assert list(example.targets) == language.label(example.inputs)


@pytest.mark.parametrize("name", list(LANGUAGES))
@pytest.mark.parametrize("variant", ["strict", "published"])
def test_no_string_lies_outside_the_windows_of_its_variant(name, variant):
    language = smaller(name)
    train, test = language.windows(variant)
    splits = make_splits(language, variant, 2)
    assert lengths(splits, "train", "validation", "bin0") <= set(range(train[0], train[1] + 1))
    assert lengths(splits, "bin1") <= set(range(test[0], test[1] + 1))


@pytest.mark.parametrize("name", list(LANGUAGES))
def test_strict_sets_have_no_common_strings(name):
    language = smaller(name)
    splits = make_splits(language, "strict", 1)
    strings = [[example.inputs for example in examples] for examples in splits]
    assert all(strings)
    for one in strings:
        assert len(set(one)) == len(one)
    for one, other in combinations(strings, 2):
        assert not set(one) & set(other)
    low, high = language.train_window
    assert lengths(splits, "train", "validation", "bin0") <= set(range(low, high + 1))
    low, high = language.test_window
    assert lengths(splits, "bin1") <= set(range(low, high + 1))
    assert min(lengths(splits, "bin1")) > max(lengths(splits, "train"))


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("parity", (400, 100, 150, 100)),
        ("dyck_1", (400, 100, 150, 100)),
        ("shuffle_2", (400, 100, 150, 100)),
        ("reset_dyck_1", (400, 100, 150, 100)),
        ("aa_star", (150, 50, 50, 50)),
        ("abab_star", (75, 25, 25, 25)),
        ("counter_2", (30, 10, 10, 50)),
        ("counter_3", (30, 10, 10, 50)),
    ],
)
def test_strict_sizes(name, sizes):
    """Few words: 60 / 20 / 20 % of all of them, and all words of the test window."""
    assert tuple(map(len, make_splits(smaller(name), "strict", 0))) == sizes


@pytest.mark.parametrize("name", FEW_WORDS)
def test_strict_sets_of_few_words_are_all_words(name):
    language = LANGUAGES[name]
    splits = make_splits(language, "strict", 0)
    assert lengths(splits, "train", "validation", "bin0") == set(
        language.lengths(*language.train_window)
    )
    assert lengths(splits, "bin1") == set(language.lengths(*language.test_window))


@pytest.mark.parametrize("name", list(LANGUAGES))
@pytest.mark.parametrize("variant", ["strict", "published"])
def test_the_seed_decides(name, variant):
    language = smaller(name)
    first = make_splits(language, variant, 5)
    assert first == make_splits(language, variant, 5)
    assert first != make_splits(language, variant, 6)


def test_strict_shuffle_crosses_and_published_does_not():
    pairs = {"(": ")", "[": "]"}

    def is_nested(word):
        stack = []
        for symbol in word:
            if symbol in pairs:
                stack.append(pairs[symbol])
            elif stack.pop() != symbol:
                return False
        return not stack

    published = make_splits(smaller("shuffle_2"), "published", 0)
    assert all(is_nested(example.inputs) for examples in published for example in examples)
    strict = make_splits(smaller("shuffle_2"), "strict", 0)
    assert sum(not is_nested(example.inputs) for example in strict.train) > 200
    assert sum(not is_nested(example.inputs) for example in strict.bin1) > 95


def test_resets():
    published = make_splits(smaller("reset_dyck_1"), "published", 0)
    assert {e.inputs.count("1") for examples in published for e in examples} == {1}
    assert 50 < max(lengths(published, "train")) <= 101
    assert 100 < max(lengths(published, "bin1")) <= 201 and min(lengths(published, "bin1")) >= 51
    strict = make_splits(smaller("reset_dyck_1"), "strict", 0)
    assert {0, 1, 2, 3, 4} <= {e.inputs.count("1") for e in strict.train}


def test_published_parity_has_duplicates_and_one_pool():
    language = copy.copy(LANGUAGES["parity"])
    language.num_train, language.num_bin0, language.num_bin1 = 3000, 1000, 500
    splits = make_splits(language, "published", 0)
    train = [example.inputs for example in splits.train]
    assert 0.8 * len(train) < len(set(train)) < len(train)
    pool = language.draw_published(4000, (2, 50), Random(0), held_out=False)
    assert [example.inputs for example in (*splits.train, *splits.bin0)] == pool
    assert lengths(splits, "bin1") <= set(range(51, 101))
    assert 0.1 < sum(len(string) == 50 for string in train) / len(train) < 0.25  # (26 / 27)^50


@pytest.mark.parametrize("name", FEW_WORDS)
def test_published_sets_of_few_words(name):
    """Train repeats its strings, the bins do not; Bin0 holds training strings."""
    language = LANGUAGES[name]
    splits = make_splits(language, "published", 0)
    train, _, bin0, bin1 = ([example.inputs for example in examples] for examples in splits)
    assert len(train) == language.num_train > len(set(train))
    assert len(set(bin0)) == len(bin0) < language.num_bin0
    assert len(set(bin1)) == len(bin1) < language.num_bin1
    assert set(bin0) & set(train)
    if name.startswith("counter"):
        assert set(bin0) <= set(train) and len(set(train)) == 50


@pytest.mark.parametrize("name", ["dyck_1", "shuffle_2"])
def test_published_brackets(name):
    """No duplicates within a set; train and Bin0 are drawn independently and share words."""
    splits = make_splits(smaller(name), "published", 0)
    strings = [[example.inputs for example in examples] for examples in splits]
    assert [len(set(one)) for one in strings] == [400, 0, 150, 100]
    assert set(strings[0]) & set(strings[2])
    assert min(lengths(splits, "bin1")) >= 52


@pytest.mark.parametrize("longest", [2, 6, 10])
def test_published_grammar(longest):
    """Frequencies of the lengths against the exact ones, within five standard deviations."""

    def cap(probabilities):
        kept = {n: p for n, p in probabilities.items() if n <= longest}
        kept[0] += sum(p for n, p in probabilities.items() if n > longest)
        return kept

    inner = {0: 1.0}  # the distribution of the length one nesting further in
    for _ in range(0, longest, 2):
        here = {0: 1.0}
        for _ in range(200):  # the fixed point of S -> ( S ) | S S | empty
            mixed = dict.fromkeys(range(0, 2 * longest + 3, 2), 0.0)
            mixed[0] += 0.25
            for n, p in inner.items():
                mixed[n + 2] += 0.5 * p
            for (n, p), (m, q) in product(here.items(), repeat=2):
                mixed[n + m] += 0.25 * p * q
            here = cap(mixed)
        inner = here
    random, num_draws = Random(0), 20_000
    counts = Counter(len(draw_nested(("()",), longest, random)) for _ in range(num_draws))
    assert set(counts) <= set(inner)
    for length, probability in inner.items():
        deviation = sqrt(num_draws * probability * (1 - probability))
        assert abs(counts[length] - num_draws * probability) < 5 * deviation


def test_errors_of_make_splits():
    with pytest.raises(ValueError, match=r"^variant='lax' is not one of strict, published$"):
        make_splits(LANGUAGES["parity"], "lax", 0)  # type: ignore[arg-type]
    language = copy.copy(LANGUAGES["parity"])
    language.test_window = (50, 80)
    with pytest.raises(ValueError, match=r"^parity: test_window 50 to 80 must lie above train"):
        make_splits(language, "strict", 0)
    language = copy.copy(LANGUAGES["aa_star"])
    language.train_window = (2, 5)
    with pytest.raises(ValueError, match=r"^aa_star: 2 words of length 2 to 5 \(train_window\)"):
        make_splits(language, "strict", 0)


def test_sample_takes_a_generator(make_generator):
    language = LANGUAGES["dyck_1"]
    word = language.sample((10, 30), make_generator(0))
    assert 10 <= len(word) <= 30 and language.accepts(word)
    assert word == language.sample((10, 30), make_generator(0))
    generator = make_generator(0)
    assert python_random(generator).random() != python_random(generator).random()


def test_the_menu_needs_no_torch():
    code = (
        "import sys; from fastweights.tasks.formal.menu import LANGUAGES; "
        "from fastweights.tasks.formal.splits import make_splits; "
        "make_splits(LANGUAGES['aa_star'], 'strict', 0); "
        "sys.exit('torch' in sys.modules or 'automata' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
