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


def load_tokenizer(folder: Path) -> Tokenizer:
    """The one whose file is in a prepared corpus or a run folder; bytes if there is none."""
    for kind in TOKENIZERS.values():
        if kind.file is not None and (Path(folder) / kind.file).exists():
            return kind.load(Path(folder) / kind.file)
    return ByteTokenizer()


def tokenizer_name(tokenizer: Tokenizer) -> str:
    """Its name in TOKENIZERS."""
    return next(name for name, kind in TOKENIZERS.items() if type(tokenizer) is kind)
