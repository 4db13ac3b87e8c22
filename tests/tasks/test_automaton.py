"""Languages from a regular expression or a DFA in a file."""

import json
import re
from collections import Counter
from itertools import product
from math import sqrt
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastweights.tasks.formal.automaton import dfa_language, regex_language
from fastweights.tasks.formal.splits import make_splits

THREE = {  # numbers of `one` divisible by three
    "states": ["s0", "s1", "s2"],
    "symbols": ["zero", "one"],
    "initial": "s0",
    "accepting": ["s0"],
    "transitions": {
        "s0": {"zero": "s0", "one": "s1"},
        "s1": {"zero": "s1", "one": "s2"},
        "s2": {"zero": "s2", "one": "s0"},
    },
}
YAML = """
states: [0, 1]
symbols: [0, 1]
initial: 0
accepting: [0]
transitions:
  0: {0: 0, 1: 1}
  1: {0: 1, 1: 0}
"""


@pytest.mark.parametrize("pattern", ["(ab)*", "a*b|b*a", "((a|b)(a|b)a)*", "a(a|b)*b+", "a?b{2,3}"])
def test_labels_are_those_of_python_re(pattern):
    language = regex_language(pattern, "ab", test_window=(51, 100) if "*" in pattern else (3, 4))
    for length in range(1, 7):
        words = set()
        for string in product("ab", repeat=length):
            prefixes = ["".join(string[: end + 1]) for end in range(length)]
            expected = [str(int(re.fullmatch(pattern, p) is not None)) for p in prefixes]
            assert language.label(string) == expected
            assert language.accepts(string) == (expected[-1] == "1")
            if expected[-1] == "1":
                words.add(string)
        assert language.count_of_length(length) == len(words)
        assert set(language.words_of_length(length)) == words


@given(length=st.integers(1, 60), seed=st.integers(0, 1000))
def test_samples_are_words(length, seed):
    language = regex_language("((a|b)(a|b)a)*|b*")
    word = language.draw_of_length(length, Random(seed))
    assert len(word) == length
    assert re.fullmatch("((a|b)(a|b)a)*|b*", "".join(word))


def test_samples_are_uniform_and_long(generator):
    language, random = regex_language("(a|ba)*"), Random(0)
    words = list(language.words_of_length(5))
    counts = Counter(language.draw_of_length(5, random) for _ in range(4000))
    assert set(counts) == set(words) and len(words) == 8
    assert all(abs(count - 500) < 5 * sqrt(500) for count in counts.values())
    assert len(language.sample_of_length(1200, generator)) == 1200
    window = Counter(len(language.draw((3, 6), random)) for _ in range(4000))
    assert all(abs(window[length] - 1000) < 5 * sqrt(1000) for length in (3, 4, 5, 6))


def test_alphabet():
    assert regex_language("b*a").symbols == ("a", "b")
    assert regex_language(r"(\(\))*").symbols == ("(", ")")
    assert regex_language("a.*", "cab").symbols == ("c", "a", "b")
    language = regex_language("a*", "ab")
    assert language.label("aab") == ["1", "1", "0"]
    assert language.label("aba") == ["1", "0", "0"]
    with pytest.raises(ValueError, match=r"unknown symbol 'c' at position 2 \(symbols: a b\)$"):
        language.label("ac")


@pytest.mark.parametrize(
    ("pattern", "options", "reason"),
    [
        ("(a", {}, "parethesis|parenthes"),
        ("*", {}, "cannot appear at the start"),
        ("a\tb", {}, "has whitespace in it"),
        ("ab", {"symbols": "a"}, "invalid transition symbol b"),
        ("a*", {"symbols": ["a", "bb"]}, "symbol 'bb' is not one character"),
        ("a*", {"symbols": "aa"}, "'a' occurs twice"),
        ("a*", {"symbols": ""}, "no symbols"),
        ("a*", {"symbols": "a "}, "' ' is empty or has whitespace"),
        ("a&b", {}, "the language is empty"),
        ("()", {}, "the empty word is the only one"),
        ("ab|aab", {}, r"no word of length 51 to 100 \(test_window\)"),
        ("a{20}", {"train_window": (2, 9)}, r"no word of length 2 to 9 \(train_window\)"),
        ("a*", {"train_window": (9, 2)}, r"train_window=\(9, 2\) must be"),
        ("a*", {"train_window": (0, 2)}, r"train_window=\(0, 2\) must be"),
        ("a*", {"num_train": 0}, "num_train=0 must be at least 1"),
    ],
)
def test_regex_errors_are_one_line(pattern, options, reason):
    with pytest.raises(ValueError, match=reason) as caught:
        regex_language(pattern, **options)
    assert str(caught.value).startswith(f"regex {pattern!r}: ")
    assert "\n" not in str(caught.value)


def test_splits_of_a_large_language():
    language = regex_language(
        "(a|bb)*", num_train=500, num_validation=50, num_bin0=100, num_bin1=100
    )
    splits = make_splits(language, "strict", 0)
    assert tuple(map(len, splits)) == (500, 50, 100, 100)
    strings = [example.inputs for examples in splits for example in examples]
    assert len(set(strings)) == len(strings)
    lengths = Counter(len(string) for string in strings)
    assert lengths[1] == 1 and lengths[2] == 2 and lengths[3] == 3  # all words there are


def test_splits_of_a_language_with_few_words():
    splits = make_splits(regex_language("a*b", train_window=(1, 20)), "strict", 0)
    assert tuple(map(len, splits)) == (12, 4, 4, 50)
    with pytest.raises(ValueError, match="a user's language has no published variant"):
        make_splits(regex_language("a*b"), "published", 0)


def test_most_words_have_one_length():
    """All lengths but one are used up: those are not drawn again and again."""
    language = regex_language("a*|(a|b){12}", train_window=(1, 12), num_train=2000, num_bin0=1000)
    splits = make_splits(language, "strict", 0)
    assert tuple(map(len, splits)) == (2000, 1000, 1000, 50)


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_dfa_file(tmp_path, suffix):
    path = tmp_path / f"three{suffix}"
    path.write_text(json.dumps(THREE))
    language = dfa_language(path)
    assert language.symbols == ("zero", "one") and language.labels == ("0", "1")
    word = ["one", "zero", "one", "one", "one"]
    assert language.label(word) == ["0", "0", "0", "1", "0"]
    for length in (1, 2, 3, 8):
        strings = product(("zero", "one"), repeat=length)
        expected = {string for string in strings if string.count("one") % 3 == 0}
        assert set(language.words_of_length(length)) == expected
        assert language.draw_of_length(length, Random(0)) in expected


def test_yaml_scalars_are_names(tmp_path):
    path = tmp_path / "parity.yaml"
    path.write_text(YAML)
    language = dfa_language(path)
    assert language.symbols == ("0", "1")
    assert language.label("0110") == ["1", "0", "1", "1"]
    numbers = {"states": [0], "symbols": ["a", 1], "initial": 0, "accepting": [0]}
    path = tmp_path / "numbers.json"
    path.write_text(json.dumps({**numbers, "transitions": {"0": {"1": 0}}}))
    assert dfa_language(path).label("11a1") == ["1", "1", "0", "0"]  # a missing one rejects


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"states": "s0"}, "states must be a list of names, got 's0'"),
        ({"symbols": []}, "symbols: no symbols"),
        ({"symbols": ["zero", "one", "one"]}, "symbols: 'one' occurs twice"),
        ({"symbols": ["zero", "one", "a b"]}, "symbols: 'a b' is empty or has whitespace in it"),
        ({"initial": "q"}, "initial: 'q' is not one of the states"),
        ({"accepting": ["q"]}, "accepting: 'q' is not one of the states"),
        ({"accepting": []}, "the language is empty"),
        ({"accepting": [True]}, "accepting must be a list of names, got [True]"),
        ({"transitions": []}, "transitions must map states to rows, got []"),
        ({"transitions": {"q": {}}}, "transitions: 'q' is not one of the states"),
        ({"transitions": {"s0": "s1"}}, "transitions.s0 must map symbols to states, got 's1'"),
        ({"transitions": {"s0": {"two": "s1"}}}, "transitions.s0: unknown symbol 'two'"),
        ({"transitions": {"s0": {"one": "q"}}}, "transitions.s0.one: 'q' is not one of the states"),
        ({"start": "s0"}, "unknown key 'start' (keys: states, symbols, initial, accepting, "),
    ],
)
def test_dfa_errors_name_file_and_key(tmp_path, change, reason):
    path = tmp_path / "bad.json"
    path.write_text(json.dumps({**THREE, **change}))
    with pytest.raises(ValueError, match=re.escape(f"{path}: {reason}")) as caught:
        dfa_language(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.yaml", b"states: [a", "expected"),
        ("a.yaml", b"states: [a]\nstates: [b]\n", "line 2: key 'states' occurs twice"),
        ("a.json", b'{"states": [], "states": []}', "key 'states' occurs twice"),
        ("a.json", b"{", "Expecting property name"),
        ("a.yaml", b"", "a mapping with the keys"),
        ("a.yaml", b"states: [\xff]", "not UTF-8"),
        ("a.yaml", b"states: [a]\n", "missing key 'symbols'"),
        ("a.yaml", b"? [a, b]\n: c\n", "unhashable"),
        ("a.yaml", None, "No such file"),
    ],
)
def test_unreadable_dfa_files(tmp_path, name, content, reason):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=reason) as caught:
        dfa_language(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
