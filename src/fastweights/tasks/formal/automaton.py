"""Languages that the user gives: a regular expression, or a finite automaton in a file.

Both become a minimal DFA of automata-lib, which counts words and draws them uniformly.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import yaml
from automata.base.exceptions import AutomatonException, RegexException
from automata.fa.dfa import DFA
from automata.fa.nfa import NFA

from fastweights.tasks.formal.language import FormalLanguage, String, Window, describe

DFA_KEYS = ("states", "symbols", "initial", "accepting", "transitions")


class AutomatonLanguage(FormalLanguage):
    """The words that a DFA accepts. Label `1` where the prefix is accepted, else `0`.

    A prefix that no word begins with has the label `0`: membership is defined for every string.
    Words are drawn with a length uniform over the lengths that exist in the window, uniform over
    the words of that length.
    """

    labels = ("0", "1")

    def __init__(
        self,
        name: str,
        dfa: DFA,
        symbols: Sequence[str],
        *,
        train_window: Window = (1, 50),
        test_window: Window = (51, 100),
        num_train: int = 10_000,
        num_validation: int = 1_000,
        num_bin0: int = 2_000,
        num_bin1: int = 2_000,
    ) -> None:
        """`dfa` reads one character a symbol: `letter(i)` for `symbols[i]`.

        Raises ValueError (one line) for a window that is not one or has no words.
        """
        self.name = self.title = name
        self.symbols = tuple(symbols)
        self.train_window, self.test_window = train_window, test_window
        self.num_train, self.num_validation = num_train, num_validation
        self.num_bin0, self.num_bin1 = num_bin0, num_bin1
        self._letters = {symbol: letter(i) for i, symbol in enumerate(self.symbols)}
        self._symbol_of = {letter: symbol for symbol, letter in self._letters.items()}
        self._dfa = dfa.to_partial(minify=True)
        for field in ("num_train", "num_validation", "num_bin0", "num_bin1"):
            if getattr(self, field) < 1:
                raise ValueError(f"{name}: {field}={getattr(self, field)} must be at least 1")
        for field in ("train_window", "test_window"):
            self._check_window(field, getattr(self, field))

    def _check_window(self, field: str, window: Window) -> None:
        if len(window) != 2 or not 1 <= window[0] <= window[1]:
            raise ValueError(f"{self.name}: {field}={window} must be low, high, 1 <= low <= high")
        if self._dfa.isempty():
            raise ValueError(f"{self.name}: the language is empty")
        if not self.lengths(*window):
            raise ValueError(f"{self.name}: no word of length {describe(window)} ({field})")

    def label(self, string: Sequence[str]) -> list[str]:
        self._check_symbols(string)
        labels = []
        state: Any = self._dfa.initial_state
        for symbol in string:
            if state is not None:
                state = self._dfa.transitions[state].get(self._letters[symbol])
            labels.append("1" if state in self._dfa.final_states else "0")
        return labels

    def accepts(self, string: Sequence[str]) -> bool:
        if not set(string) <= set(self.symbols):
            return False
        return self._dfa.accepts_input("".join(self._letters[symbol] for symbol in string))

    def count_of_length(self, length: int) -> int:
        return self._dfa.count_words_of_length(length) if length >= 1 else 0

    def words_of_length(self, length: int) -> Iterator[String]:
        return (self._word(word) for word in self._dfa.words_of_length(length))

    def draw(self, length_window: Window, random: Random) -> String:
        return self.draw_of_length(random.choice(self.lengths(*length_window)), random)

    def draw_of_length(self, length: int, random: Random) -> String:
        return self._word(self._dfa.random_word(length, seed=random.getrandbits(62)))

    def draw_published(
        self, count: int, length_window: Window, random: Random, *, held_out: bool
    ) -> list[String]:
        raise ValueError(f"{self.name}: a user's language has no published variant")

    def draw_distinct(self, count: int, length_window: Window, random: Random) -> list[String]:
        """A length whose words have all been drawn is not drawn again."""
        left = {length: self.count_of_length(length) for length in self.lengths(*length_window)}
        lengths = list(left)
        found: dict[String, None] = {}
        while len(found) < count:
            word = self.draw_of_length(random.choice(lengths), random)
            if word in found:
                continue
            found[word] = None
            left[len(word)] -= 1
            if not left[len(word)]:
                lengths.remove(len(word))
        return list(found)

    def _word(self, letters: str) -> String:
        return tuple(self._symbol_of[letter] for letter in letters)


def letter(index: int) -> str:
    """The character that stands for a symbol inside automata-lib (the private use area)."""
    return chr(0xE000 + index)


def regex_language(
    pattern: str, symbols: Sequence[str] | None = None, **options: Any
) -> AutomatonLanguage:
    """The language of a regular expression in automata-lib's syntax, one character a symbol.

    `symbols` is the alphabet, in order; without it, the characters that occur in words, sorted.
    `options` are the windows and sizes of `AutomatonLanguage`. Raises ValueError (one line) for
    a pattern that does not parse, a symbol outside the alphabet, an empty language.
    """
    name = f"regex {pattern!r}"
    if any(character.isspace() for character in pattern):
        raise ValueError(f"{name}: has whitespace in it, which cannot be a symbol")
    if symbols is not None:
        _check_alphabet(name, symbols)
        wide = next((symbol for symbol in symbols if len(symbol) != 1), None)
        if wide is not None:
            raise ValueError(f"{name}: symbol {wide!r} is not one character")
    try:  # each automaton keeps a name: methods on a temporary one fail
        nfa = NFA.from_regex(pattern, input_symbols=set(symbols) if symbols is not None else None)
        dfa = DFA.from_nfa(nfa, minify=True)
        dfa = dfa.to_partial(minify=True)
    except (AutomatonException, RegexException) as error:
        known = f" (symbols: {' '.join(symbols)})" if symbols is not None else ""
        raise ValueError(f"{name}: {' '.join(str(error).split())}{known}") from error
    if dfa.isempty():
        raise ValueError(f"{name}: the language is empty")
    if symbols is None:
        symbols = sorted({character for row in dfa.transitions.values() for character in row})
        if not symbols:
            raise ValueError(f"{name}: the empty word is the only one")
        _check_alphabet(name, symbols)
    renamed = _make_dfa(
        states=set(dfa.states),
        transitions=dfa.transitions,
        initial=dfa.initial_state,
        accepting=set(dfa.final_states),
        symbols=symbols,
    )
    return AutomatonLanguage(name, renamed, symbols, **options)


def dfa_language(path: Path | str, **options: Any) -> AutomatonLanguage:
    """The language of a DFA in a YAML or JSON file; every scalar is read as a string.

    Keys: states, symbols, accepting (lists), initial (a state), transitions ({state: {symbol:
    next state}}; a missing one rejects). `options` as for `regex_language`. Raises ValueError,
    one line with the file and the key.
    """
    path = Path(path)
    table = _read_table(path)
    unknown = [key for key in table if key not in DFA_KEYS]
    missing = [key for key in DFA_KEYS if key not in table]
    if unknown or missing:
        which, key = ("unknown", unknown[0]) if unknown else ("missing", missing[0])
        raise ValueError(f"{path}: {which} key {key!r} (keys: {', '.join(DFA_KEYS)})")
    for key in ("states", "symbols", "accepting"):
        entries = table[key]
        if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
            raise ValueError(f"{path}: {key} must be a list of names, got {entries!r}")
    states, symbols = table["states"], table["symbols"]
    _check_alphabet(f"{path}: symbols", symbols)
    _check_states(path, "initial", [table["initial"]], states)
    _check_states(path, "accepting", table["accepting"], states)
    transitions = table["transitions"]
    if not isinstance(transitions, dict):
        raise ValueError(f"{path}: transitions must map states to rows, got {transitions!r}")
    _check_states(path, "transitions", list(transitions), states)
    for state, row in transitions.items():
        if not isinstance(row, dict):
            raise ValueError(f"{path}: transitions.{state} must map symbols to states, got {row!r}")
        for symbol, target in row.items():
            if symbol not in symbols:
                raise ValueError(f"{path}: transitions.{state}: unknown symbol {symbol!r}")
            _check_states(path, f"transitions.{state}.{symbol}", [target], states)
    dfa = _make_dfa(
        states=set(states),
        transitions={state: transitions.get(state, {}) for state in states},
        initial=table["initial"],
        accepting=set(table["accepting"]),
        symbols=symbols,
    )
    return AutomatonLanguage(str(path), dfa, symbols, **options)


def _make_dfa(
    *,
    states: set[Any],
    transitions: Mapping[Any, Mapping[str, Any]],
    initial: Any,
    accepting: set[Any],
    symbols: Sequence[str],
) -> DFA:
    letters = {symbol: letter(i) for i, symbol in enumerate(symbols)}
    return DFA(
        states=states,
        input_symbols=set(letters.values()),
        transitions={
            state: {letters[symbol]: target for symbol, target in row.items()}
            for state, row in transitions.items()
        },
        initial_state=initial,
        final_states=accepting,
        allow_partial=True,
    )


def _check_alphabet(place: str, symbols: Sequence[str]) -> None:
    if not symbols:
        raise ValueError(f"{place}: no symbols")
    for symbol in symbols:
        if not symbol or any(character.isspace() for character in symbol):
            raise ValueError(f"{place}: {symbol!r} is empty or has whitespace in it")
        if list(symbols).count(symbol) > 1:
            raise ValueError(f"{place}: {symbol!r} occurs twice")


def _check_states(path: Path, key: str, named: Sequence[Any], states: Sequence[str]) -> None:
    for state in named:
        if state not in states:
            raise ValueError(f"{path}: {key}: {state!r} is not one of the states")


class _StringLoader(yaml.BaseLoader):
    """YAML with every scalar a string (no 1, yes, null), and no key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if key_node.value in seen:
                line = key_node.start_mark.line + 1
                raise ValueError(f"line {line}: key {key_node.value!r} occurs twice")
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def _unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for key, value in pairs:
        if key in table:
            raise ValueError(f"key {key!r} occurs twice")
        table[key] = value
    return table


def _read_table(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            table = json.loads(
                text, parse_int=str, parse_float=str, object_pairs_hook=_unique_pairs
            )
        else:
            table = yaml.load(text, Loader=_StringLoader)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 (byte {error.start})") from error
    except (yaml.YAMLError, RecursionError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from error
    if not isinstance(table, dict):
        raise ValueError(f"{path}: a mapping with the keys {', '.join(DFA_KEYS)} expected")
    return table
