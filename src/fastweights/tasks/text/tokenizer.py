"""The tokenizers by name."""

from __future__ import annotations

from pathlib import Path

from fastweights.tasks.text.byte_pairs import BytePairTokenizer
from fastweights.tasks.text.sentence_pieces import SentencePieceTokenizer
from fastweights.tasks.text.tokens import ByteTokenizer, Tokenizer
from fastweights.tasks.text.words import WordTokenizer

__all__ = ["TOKENIZERS", "ByteTokenizer", "Tokenizer", "load_tokenizer", "tokenizer_name"]

TOKENIZERS: dict[str, type[Tokenizer]] = {
    "bytes": ByteTokenizer,
    "sentencepiece": SentencePieceTokenizer,
    "tokenizers": BytePairTokenizer,
    "words": WordTokenizer,
}


def load_tokenizer(folder: Path, name: str) -> Tokenizer:
    """The one of that name in TOKENIZERS, from its file in a prepared corpus or a run folder.
    Raises ValueError, in one line with the place, as `Tokenizer.load` does."""
    kind = TOKENIZERS[name]
    return ByteTokenizer() if kind.file is None else kind.load(Path(folder) / kind.file)


def tokenizer_name(tokenizer: Tokenizer) -> str:
    """Its name in TOKENIZERS."""
    return next(name for name, kind in TOKENIZERS.items() if type(tokenizer) is kind)
