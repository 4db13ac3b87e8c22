"""Tokenizers in the file format of the library `tokenizers` of Hugging Face."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

from fastweights.tasks.text.extra import library
from fastweights.tasks.text.tokens import Tokenizer, read_tokenizer_file

VOCAB_SIZE = 8000
SEPARATOR = "<|endoftext|>"
SEPARATORS = (SEPARATOR, "<|end_of_text|>", "</s>", "<eos>", "<|im_end|>", "[SEP]", "[EOS]")
"""The first that the vocabulary has stands behind every document."""


class BytePairTokenizer(Tokenizer):
    """A tokenizer.json, the user's or byte-pair encoding trained on the text.

    What is trained here works on bytes, as GPT-2's does, and gives back every text as it was. What
    the user's cuts off long texts, or fills short ones with, is switched off. A text in which the
    name of a special token is written is ordinary text: only documents end in the separator.
    """

    file = "tokenizer.json"

    def __init__(self, tokenizer: Any) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True  # as the ordinary text that they are
        self._tokenizer = tokenizer
        self.vocab_size = 1 + max(tokenizer.get_vocab().values(), default=-1)  # it may have gaps
        found = (tokenizer.token_to_id(token) for token in SEPARATORS)
        separator = next((token for token in found if token is not None), None)
        if separator is None:
            raise ValueError(f"has none of the tokens {' '.join(SEPARATORS)} to separate documents")
        self.separator = separator

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int | None = None) -> Self:
        """VOCAB_SIZE tokens unless told."""
        tokenizers = library("tokenizers")
        tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = tokenizers.decoders.ByteLevel()
        size = vocab_size or VOCAB_SIZE
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=[SEPARATOR],
            initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        reached = tokenizer.get_vocab_size()
        if reached != size:
            bound = "most" if reached < size else "least"
            raise ValueError(
                f"vocabulary size {size}: the text to train allows at {bound} {reached} tokens"
            )
        return cls(tokenizer)

    @classmethod
    def load(cls, path: Path) -> Self:
        """From a tokenizer.json."""
        content, tokenizers = read_tokenizer_file(path), library("tokenizers")
        try:
            tokenizer = tokenizers.Tokenizer.from_buffer(content)
        except ValueError:
            raise ValueError(f"tokenizer {path}: is no tokenizer.json") from None
        try:
            return cls(tokenizer)
        except ValueError as error:
            raise ValueError(f"tokenizer {path}: {error}") from None

    def encode(self, text: str) -> list[int]:
        """The tokens, with none that the file would add around a text."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, tokens: Sequence[int]) -> str:
        """The text, separators left out."""
        return self._tokenizer.decode(list(map(int, tokens)))

    def to_bytes(self) -> bytes:
        """tokenizer.json."""
        return self._tokenizer.to_str(pretty=True).encode()
