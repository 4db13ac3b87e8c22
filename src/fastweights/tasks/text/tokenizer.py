"""Text to tokens and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from fastweights.tasks.text.documents import SEPARATOR


class Tokenizer(ABC):
    """Tokens 0 .. vocab_size - 1.

    Attributes:
        vocab_size: number of tokens.
        separator: the token behind every document.
    """

    vocab_size: int
    separator: int

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """The tokens of a text."""

    @abstractmethod
    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens; what is no text is shown as U+FFFD."""


class ByteTokenizer(Tokenizer):
    """One token a byte of UTF-8."""

    vocab_size = 256
    separator = SEPARATOR

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, tokens: Sequence[int]) -> str:
        return bytes(tokens).decode(errors="replace")


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a run folder: bytes."""
    return ByteTokenizer()
