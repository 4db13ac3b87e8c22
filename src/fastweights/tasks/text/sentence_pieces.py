"""SentencePiece: byte-pair encoding of whole sentences."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Self

from fastweights.tasks.text.extra import library
from fastweights.tasks.text.tokens import Tokenizer, read_tokenizer_file

VOCAB_SIZE = 8000
LONGEST_LINE = 2**24
"""In bytes; SentencePiece leaves out what is longer, by default from 4,192 bytes on."""


class SentencePieceTokenizer(Tokenizer):
    """Byte-pair encoding with every digit apart, as in Csordás et al. (2023), section 5 and code.

    Its normalization, SentencePiece's own, is part of it: NFKC, and every run of white space, a
    line end too, is one space. Characters too rare for the vocabulary are unknown. `decode` gives
    the normalized text. The separator is the piece `</s>`.
    """

    file = "tokenizer.model"

    def __init__(self, model: bytes) -> None:
        self._processor = library("sentencepiece").SentencePieceProcessor(model_proto=model)
        self._model = model
        self.vocab_size = self._processor.vocab_size()
        self.separator = self._processor.eos_id()
        if self.separator < 0:
            raise RuntimeError("no piece ends a text (eos_id)")

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int | None = None) -> Self:
        """VOCAB_SIZE pieces unless told; line by line."""
        size, model = vocab_size or VOCAB_SIZE, io.BytesIO()
        try:
            library("sentencepiece").SentencePieceTrainer.train(
                sentence_iterator=_lines(texts),
                model_writer=model,
                model_type="bpe",
                vocab_size=size,
                split_digits=True,
                max_sentence_length=LONGEST_LINE,
                minloglevel=3,
            )
        except RuntimeError as error:
            raise ValueError(_fault(size, str(error))) from None
        return cls(model.getvalue())

    @classmethod
    def load(cls, path: Path) -> Self:
        """From a model file of SentencePiece, one of the user's too."""
        model = read_tokenizer_file(path)
        try:
            return cls(model)
        except RuntimeError:
            raise ValueError(
                f"tokenizer {path}: is no model file of SentencePiece with a piece </s>"
            ) from None

    def encode(self, text: str) -> list[int]:
        """The pieces of the normalized text."""
        return self._processor.encode(text)

    def decode(self, tokens: Sequence[int]) -> str:
        """The normalized text; what is unknown is shown as U+2047, as SentencePiece does."""
        return self._processor.decode(list(map(int, tokens)))

    def to_bytes(self) -> bytes:
        """The model file of SentencePiece."""
        return self._model


def _lines(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        yield from filter(None, text.split("\n"))


def _fault(vocab_size: int, error: str) -> str:
    """SentencePiece's error in one line."""
    most = re.search(r"value <= (\d+)", error)
    if most:
        return f"vocabulary size {vocab_size}: the text to train allows at most {most[1]} pieces"
    least = re.search(r"required_chars.*?(\d+) vs (\d+)", error)
    what = f": {least[1]} are too few for its {least[2]} characters" if least else ""
    return f"vocabulary size {vocab_size}: SentencePiece cannot make it of the text to train{what}"
