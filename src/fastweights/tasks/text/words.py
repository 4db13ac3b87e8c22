"""A vocabulary of words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

from fastweights.tasks.text.tokens import Tokenizer, read_tokenizer_file

LINE_END, UNKNOWN = "<eos>", "<unk>"


class WordTokenizer(Tokenizer):
    """Words between white space, and LINE_END for the end of a line, which also separates
    documents: the vocabulary of Transformer-XL for WikiText-103, Dai et al. (2019) and code.

    LINE_END is token 0; the others are ordered by how often they occur, as adaptive softmax needs.
    """

    file = "vocabulary.txt"

    def __init__(self, words: Sequence[str]) -> None:
        self._words = list(words)
        self._ids = {word: i for i, word in enumerate(self._words)}
        if len(self._ids) != len(self._words) or not {LINE_END, UNKNOWN} <= self._ids.keys():
            raise ValueError(f"must hold every word once, {LINE_END} and {UNKNOWN} among them")
        self.vocab_size = len(self._words)
        self.separator = self._ids[LINE_END]
        self._unknown = self._ids[UNKNOWN]

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int | None = None) -> Self:
        """Every word, or the most frequent ones; of equally frequent ones those that come first."""
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(text.split())
        counts.pop(LINE_END, None)
        counts.setdefault(UNKNOWN, 0)
        known = len(counts) + 1
        size = known if vocab_size is None else vocab_size
        if not 2 <= size <= known:
            raise ValueError(
                f"vocabulary size {size}: must be 2 .. {known}, the words of the text to train, "
                f"{LINE_END} and {UNKNOWN}"
            )
        kept = [word for word, _ in counts.most_common(size - 1)]
        if UNKNOWN not in kept:
            kept[-1] = UNKNOWN
        return cls([LINE_END, *kept])

    @classmethod
    def load(cls, path: Path) -> Self:
        """From a file with one word a line."""
        try:
            return cls(read_tokenizer_file(path).decode().split("\n")[:-1])
        except UnicodeDecodeError as error:
            raise ValueError(f"tokenizer {path}: not UTF-8 at byte {error.start}") from None
        except ValueError as error:
            if str(error).startswith("tokenizer "):
                raise
            raise ValueError(f"tokenizer {path}: {error}") from None

    def encode(self, text: str) -> list[int]:
        """Words, UNKNOWN where the vocabulary has them not, and LINE_END for every line end."""
        first, *others = text.split("\n")
        tokens = self._line(first)
        for line in others:
            tokens += [self.separator, *self._line(line)]
        return tokens

    def decode(self, tokens: Sequence[int]) -> str:
        """Words with a space between them."""
        lines: list[list[str]] = [[]]
        for token in tokens:
            if token == self.separator:
                lines.append([])
            else:
                lines[-1].append(self._words[token])
        return "\n".join(" ".join(line) for line in lines)

    def to_bytes(self) -> bytes:
        """One word a line."""
        return "".join(f"{word}\n" for word in self._words).encode()

    def _line(self, line: str) -> list[int]:
        return [self._ids.get(word, self._unknown) for word in line.split()]
