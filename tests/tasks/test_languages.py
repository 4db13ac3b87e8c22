"""Labels, membership, counts and exact-length samples against definitions written here."""

import re
from collections import Counter
from itertools import product
from math import comb, sqrt
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyformlang.cfg import CFG

from fastweights.tasks.formal.language import FormalLanguage
from fastweights.tasks.formal.menu import LANGUAGES
from fastweights.tasks.formal.reset_dyck import draw_prefix, num_prefixes

NAMES = list(LANGUAGES)


def cancel(string: str, *pairs: str) -> str:
    """Strike out adjacent pairs until none is left."""
    while any(pair in string for pair in pairs):
        for pair in pairs:
            string = string.replace(pair, "")
    return string


def only(string: str, symbols: str) -> str:
    return "".join(symbol for symbol in string if symbol in symbols)


def in_reset_dyck(string: str) -> bool:
    *before, last = string.split("1")
    return all(")" not in cancel(part, "()") for part in before) and not cancel(last, "()")


MEMBERSHIP = {
    "parity": lambda s: re.fullmatch("0*(10*10*)*", s) is not None,
    "aa_star": lambda s: re.fullmatch("(aa)*", s) is not None,
    "abab_star": lambda s: re.fullmatch("(abab)*", s) is not None,
    "counter_2": lambda s: len(s) > 0 and s == "a" * (len(s) // 2) + "b" * (len(s) // 2),
    "counter_3": lambda s: (
        len(s) > 0 and s == "a" * (len(s) // 3) + "b" * (len(s) // 3) + "c" * (len(s) // 3)
    ),
    "dyck_1": lambda s: not cancel(s, "()"),
    "shuffle_2": lambda s: not cancel(only(s, "()"), "()") and not cancel(only(s, "[]"), "[]"),
    "reset_dyck_1": in_reset_dyck,
}


def published_labels(name: str, word: str) -> list[str]:
    """The labels of a word by definition."""
    if name == "counter_2":
        n = len(word) // 2
        return ["c"] * n + ["b"] * (n - 1) + ["T"]
    if name == "counter_3":
        n = len(word) // 3
        return ["d"] * n + ["b"] * (n - 1) + ["c"] * n + ["T"]
    prefixes = [word[: end + 1] for end in range(len(word))]
    if name == "shuffle_2":
        return [
            f"{int(cancel(only(p, '()'), '()') != '')}{int(cancel(only(p, '[]'), '[]') != '')}"
            for p in prefixes
        ]
    if name == "dyck_1":
        return [str(int(cancel(p, "()") != "")) for p in prefixes]
    if name == "reset_dyck_1":
        return [str(int(cancel(p.split("1")[-1], "()") != "")) for p in prefixes]
    return [str(int(MEMBERSHIP[name](p))) for p in prefixes]


def all_strings(language: FormalLanguage, longest: int) -> list[str]:
    return [
        "".join(string)
        for length in range(1, longest + 1)
        for string in product(language.symbols, repeat=length)
    ]


@pytest.mark.parametrize("name", NAMES)
def test_accepts_is_the_definition(name):
    for string in all_strings(LANGUAGES[name], 6):
        assert LANGUAGES[name].accepts(string) == MEMBERSHIP[name](string), string


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("length", range(7))
def test_count_and_words_of_length_are_those_of_all_strings(name, length):
    language = LANGUAGES[name]
    strings = product(language.symbols, repeat=length)
    words = {string for string in strings if length and MEMBERSHIP[name]("".join(string))}
    assert language.count_of_length(length) == len(words)
    assert language.lengths(length, length) == ([length] if words else [])
    if length:
        found = list(language.words_of_length(length))
        assert len(found) == len(words) and set(found) == words


@pytest.mark.parametrize("name", NAMES)
def test_labels_of_words(name):
    language = LANGUAGES[name]
    for length in language.lengths(1, 12 if name.startswith(("counter", "a")) else 6):
        for word in language.words_of_length(length):
            assert language.label(word) == published_labels(name, "".join(word)), word
            assert set(language.label(word)) <= set(language.labels)


@pytest.mark.parametrize("name", NAMES)
def test_labels_are_causal_and_all_used(name):
    """The label of a prefix does not depend on what follows; every label occurs."""
    language = LANGUAGES[name]
    word = language.draw_of_length(language.lengths(24, 24)[0], Random(1))
    labels = language.label(word)
    for end in range(len(word)):
        assert language.label(word[: end + 1]) == labels[: end + 1]
    words = [language.draw_of_length(length, Random(0)) for length in language.lengths(1, 60)]
    assert {label for word in words for label in language.label(word)} == set(language.labels)


@pytest.mark.parametrize("name", NAMES)
def test_a_string_that_begins_no_word_has_no_label(name):
    language = LANGUAGES[name]
    longest = 3
    completed = [
        "".join(word)
        for length in language.lengths(1, 4 * longest if name[0] in "ac" else 2 * longest)
        for word in language.words_of_length(length)
    ]
    prefixes = {word[:end] for word in completed for end in range(1, longest + 1)}
    for string in all_strings(language, longest):
        if string in prefixes:
            assert len(language.label(string)) == len(string)
        else:
            with pytest.raises(ValueError, match=rf"^{name}: symbol '.' at position \d"):
                language.label(string)


@pytest.mark.parametrize(
    ("name", "string", "message"),
    [
        ("dyck_1", "())", "dyck_1: symbol ')' at position 3 closes nothing"),
        ("shuffle_2", "(])", "shuffle_2: symbol ']' at position 2 closes nothing"),
        ("reset_dyck_1", "((1)", "reset_dyck_1: symbol ')' at position 4 closes nothing"),
        ("counter_2", "aba", "counter_2: symbol 'a' at position 3 cannot follow what precedes it"),
        ("counter_3", "aabbb", "counter_3: symbol 'b' at position 5 is one too many after 2"),
        ("abab_star", "abb", "abab_star: symbol 'b' at position 3 cannot follow: expected 'a'"),
        ("parity", "01x", "parity: unknown symbol 'x' at position 3 (symbols: 0 1)"),
    ],
)
def test_label_messages(name, string, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        LANGUAGES[name].label(string)


@pytest.mark.parametrize("name", ["dyck_1", "counter_2"])
def test_accepts_agrees_with_a_context_free_grammar(name):
    rules = {"dyck_1": "S -> ( S ) S |", "counter_2": "S -> a S b | a b"}[name]
    grammar = CFG.from_text(rules)
    for string in all_strings(LANGUAGES[name], 6):
        assert LANGUAGES[name].accepts(string) == grammar.contains(list(string)), string


@pytest.mark.parametrize("name", NAMES)
@given(length=st.integers(1, 70), seed=st.integers(0, 2**32))
def test_draw_of_length_is_a_word_of_that_length(name, length, seed):
    language = LANGUAGES[name]
    for exact in language.lengths(length, length):
        word = language.draw_of_length(exact, Random(seed))
        assert len(word) == exact
        assert language.accepts(word)
        assert MEMBERSHIP[name]("".join(word))
        assert language.label(word) == published_labels(name, "".join(word))


@pytest.mark.parametrize("name", NAMES)
def test_sample_of_length_reaches_a_thousand(name, make_generator):
    language = LANGUAGES[name]
    length = language.lengths(1000, 1010)[0]
    word = language.sample_of_length(length, make_generator(3))
    assert len(word) == length and language.accepts(word)
    assert word == language.sample_of_length(length, make_generator(3))
    assert language.lengths(1000, 1400)[-1] > 1390


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("parity", "reset_dyck_1")])
def test_a_length_without_words_is_an_error(name, generator):
    with pytest.raises(ValueError, match=f"^{name}: no word of length 1$"):
        LANGUAGES[name].sample_of_length(1, generator)
    with pytest.raises(ValueError, match=f"^{name}: no word of length 1 to 1$"):
        LANGUAGES[name].sample((1, 1), generator)


@pytest.mark.parametrize(("name", "length"), [("dyck_1", 6), ("shuffle_2", 4), ("parity", 4)])
def test_exact_length_samples_are_uniform(name, length):
    """Every frequency within five standard deviations of the uniform one."""
    language, random, num_draws = LANGUAGES[name], Random(0), 4000
    words = list(language.words_of_length(length))
    counts = Counter(language.draw_of_length(length, random) for _ in range(num_draws))
    assert set(counts) == set(words)
    expected = num_draws / len(words)
    for word in words:
        assert abs(counts[word] - expected) < 5 * sqrt(expected)


@pytest.mark.parametrize("length", [1, 2, 5, 6])
def test_prefixes_of_balanced_words_are_uniform(length):
    random, num_draws = Random(0), 4000
    prefixes = [s for s in product("()", repeat=length) if ")" not in cancel("".join(s), "()")]
    assert len(prefixes) == comb(length, length // 2)
    counts = Counter(tuple(draw_prefix(length, random)) for _ in range(num_draws))
    assert set(counts) == set(prefixes)
    expected = num_draws / len(prefixes)
    assert all(abs(count - expected) < 5 * sqrt(expected) for count in counts.values())


@pytest.mark.parametrize("length", range(7))
def test_number_of_reset_dyck_prefixes(length):
    strings = ("".join(string) for string in product("()1", repeat=length))
    prefixes = [s for s in strings if all(")" not in cancel(p, "()") for p in s.split("1"))]
    assert num_prefixes(length) == len(prefixes)


def test_reset_dyck_has_any_number_of_resets():
    random = Random(0)
    words = [LANGUAGES["reset_dyck_1"].draw_of_length(40, random) for _ in range(500)]
    numbers = Counter(word.count("1") for word in words)
    assert set(range(7)) <= set(numbers)


def test_shuffles_cross():
    random = Random(0)
    words = [LANGUAGES["shuffle_2"].draw_of_length(20, random) for _ in range(200)]
    crossing = [word for word in words if cancel("".join(word), "()", "[]")]
    assert len(crossing) > 150
