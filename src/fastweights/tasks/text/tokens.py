"""Text to tokens and back: what every tokenizer does, and the simplest one."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar, Self

from fastweights.atomic import write_bytes
from fastweights.tasks.text.documents import SEPARATOR


class Tokenizer(ABC):
    """Tokens 0 .. vocab_size - 1.

    Attributes:
        vocab_size: number of tokens.
        separator: the token behind every document.
        file: that it is saved in; None where there is nothing to save.
    """

    vocab_size: int
    separator: int
    file: ClassVar[str | None] = None

    @classmethod
    @abstractmethod
    def train(cls, texts: Iterable[str], vocab_size: int | None) -> Self:
        """Of the texts; `vocab_size` None: as many tokens as this kind has unless told.

        Raises ValueError where the texts do not allow that size. The same texts give the same
        tokenizer.
        """

    @classmethod
    @abstractmethod
    def load(cls, path: Path) -> Self:
        """From its file. Raises ValueError, in one line with the place: not there, not readable,
        not such a file."""

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """The tokens of a text, without a separator."""

    @abstractmethod
    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens; what is no text is shown as U+FFFD."""

    @abstractmethod
    def to_bytes(self) -> bytes:
        """What `file` holds."""

    def save(self, folder: Path) -> None:
        """Write `file` into a folder."""
        if self.file is not None:
            write_bytes(Path(folder) / self.file, self.to_bytes())


class ByteTokenizer(Tokenizer):
    """One token a byte of UTF-8. What Python calls surrogate escapes are the bytes behind them."""

    vocab_size = 256
    separator = SEPARATOR

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int | None) -> Self:
        """There is nothing to learn."""
        if vocab_size not in (None, cls.vocab_size):
            raise ValueError(f"vocabulary size {vocab_size}: there are {cls.vocab_size} bytes")
        return cls()

    @classmethod
    def load(cls, path: Path) -> Self:
        """There is no such file."""
        raise ValueError(f"tokenizer {path}: bytes are read without a file")

    def encode(self, text: str) -> list[int]:
        """The bytes."""
        return list(text.encode(errors="surrogateescape"))

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of bytes; what is no UTF-8 is shown as U+FFFD."""
        return bytes(tokens).decode(errors="replace")

    def to_bytes(self) -> bytes:
        """Nothing."""
        return b""


def read_tokenizer_file(path: Path) -> bytes:
    """Raises ValueError, in one line with the place."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"tokenizer {os.fspath(path)}: cannot be read: {error.strerror}") from None
