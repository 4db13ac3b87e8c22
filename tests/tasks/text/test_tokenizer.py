"""Text to tokens and back."""

import random
import unicodedata
from pathlib import Path

import pytest

from fastweights.tasks.text.byte_pairs import BytePairTokenizer
from fastweights.tasks.text.sentence_pieces import SentencePieceTokenizer
from fastweights.tasks.text.tokenizer import (
    TOKENIZERS,
    ByteTokenizer,
    Tokenizer,
    load_tokenizer,
    tokenizer_name,
)
from fastweights.tasks.text.words import WordTokenizer

SIZES = {"bytes": 256, "sentencepiece": 60, "tokenizers": 280, "words": 20}
TEXT = "The cat saw 12 dogs.\n\nÄ dog ate the cats' food; 3 x 14.\n"


def texts() -> list[str]:
    """Forty documents of TEXT and random words."""
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdeostr", k=5)) for _ in range(50)]
    return [f"{TEXT} {' '.join(draw.choices(words, k=20))}" for _ in range(40)]


@pytest.fixture(scope="module")
def trained() -> dict[str, Tokenizer]:
    return {name: kind.train(texts(), SIZES[name]) for name, kind in TOKENIZERS.items()}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_what_every_tokenizer_does(trained, name: str, tmp_path: Path):
    """Tokens of the vocabulary, another from each text, as many as asked; saved and loaded."""
    tokenizer = trained[name]
    tokens = tokenizer.encode(TEXT)
    assert tokenizer.vocab_size == SIZES[name]
    assert all(0 <= token < SIZES[name] for token in (*tokens, tokenizer.separator))
    assert tokenizer.encode("") == []
    tokenizer.save(tmp_path)
    loaded = load_tokenizer(tmp_path, name)
    assert type(loaded) is type(tokenizer) is TOKENIZERS[name]
    assert tokenizer_name(loaded) == name
    assert (loaded.vocab_size, loaded.separator) == (tokenizer.vocab_size, tokenizer.separator)
    assert loaded.encode(TEXT) == tokens
    assert loaded.decode(tokens) == tokenizer.decode(tokens)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_same_texts_give_the_same_tokenizer(trained, name: str):
    assert TOKENIZERS[name].train(texts(), SIZES[name]).to_bytes() == trained[name].to_bytes()


@pytest.mark.parametrize(
    ("name", "text", "back"),
    [
        ("bytes", "aä \n\n  b\t", "aä \n\n  b\t"),
        ("tokenizers", "aä \n\n  b\t€", "aä \n\n  b\t€"),
        ("tokenizers", "a <|endoftext|><|endoftext|>\n", "a <|endoftext|><|endoftext|>\n"),
        ("sentencepiece", "cat  saw\n dogs.\n", "cat saw dogs."),
        ("sentencepiece", "ｃａｔ", "cat"),
        ("words", " The  cat\nsaw\n", "The cat\nsaw\n"),
        ("words", "The mouse", "The <unk>"),
    ],
)
def test_there_and_back(trained, name: str, text: str, back: str):
    tokens = trained[name].encode(text)
    assert trained[name].decode(tokens) == back
    assert (trained[name].separator in tokens) == (name == "words" and "\n" in text)
    if name == "sentencepiece":
        assert " ".join(unicodedata.normalize("NFKC", text).split()) == back


def test_bytes():
    tokenizer = ByteTokenizer()
    assert tokenizer.encode("aä") == [97, 195, 164]
    assert tokenizer.decode([195]) == "\N{REPLACEMENT CHARACTER}"
    assert tokenizer.encode(b"a\xff".decode(errors="surrogateescape")) == [97, 255]


def test_sentencepiece_keeps_digits_apart():
    tokenizer = SentencePieceTokenizer.train(["1212 abab 1212 abab"] * 9, 11)
    assert len(tokenizer.encode("1212")) == 5  # with the mark of a word's beginning
    assert len(tokenizer.encode("abab")) < 4


def test_sentencepiece_learns_from_long_lines():
    """SentencePiece itself leaves lines of more than 4,192 bytes out."""
    tokenizer = SentencePieceTokenizer.train(["b" * 9, "ab " * 3000], 8)
    assert tokenizer.decode(tokenizer.encode("ab")) == "ab"


def test_words_are_ordered_by_how_often_they_occur(tmp_path: Path):
    tokenizer = WordTokenizer.train(["b a a\nc a b\n", "d"])
    assert tokenizer.to_bytes() == b"<eos>\na\nb\nc\nd\n<unk>\n"
    assert tokenizer.encode("a x\nb") == [1, 5, 0, 2]
    assert WordTokenizer.train(["b a a\nc a b\n"], 3).to_bytes() == b"<eos>\na\n<unk>\n"
    assert WordTokenizer.train(["a <unk> <unk> <eos>"]).to_bytes() == b"<eos>\n<unk>\na\n"


def test_a_tokenizer_json_of_the_user(tmp_path: Path):
    """What it adds around a text is left out, nothing is cut off or filled up; its end of text is
    the separator; numbers that no word has are tokens, too."""
    tokenizers = pytest.importorskip("tokenizers")
    words = {"</s>": 0, "[UNK]": 1, "cat": 2, "bird": 6}
    theirs = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    theirs.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 0)]
    )
    theirs.enable_truncation(3)
    theirs.enable_padding(length=5)
    theirs.save(str(tmp_path / "tokenizer.json"))
    tokenizer = load_tokenizer(tmp_path, "tokenizers")
    assert tokenizer.encode("cat dog") == [2, 1]
    assert tokenizer.encode("cat bird " * 4) == [2, 6] * 4
    assert tokenizer.encode("cat </s>") == [2, 1, 1, 1]  # no separator: text like any other
    assert tokenizer.separator == 0
    assert tokenizer.vocab_size == 7


@pytest.mark.parametrize(
    ("kind", "size", "message"),
    [
        (ByteTokenizer, 300, "vocabulary size 300: there are 256 bytes"),
        (SentencePieceTokenizer, 5000, r"5000: the text to train allows at most \d+ pieces"),
        (SentencePieceTokenizer, 4, r"size 4: .*: 4 are too few for its \d+ characters"),
        (BytePairTokenizer, 5000, r"size 5000: the text to train allows at most \d+ tokens"),
        (BytePairTokenizer, 9, "size 9: the text to train allows at least 257 tokens"),
        (WordTokenizer, 5000, r"size 5000: must be 2 \.\. 66, the words of the text to train"),
    ],
)
def test_a_size_that_the_text_does_not_allow(kind: type[Tokenizer], size: int, message: str):
    with pytest.raises(ValueError, match=message) as caught:
        kind.train(texts(), size)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [SentencePieceTokenizer, BytePairTokenizer, WordTokenizer])
@pytest.mark.parametrize("content", [None, b"", b"nothing", b"\xff\n"])
def test_no_tokenizer_file(tmp_path: Path, kind: type[Tokenizer], content: bytes | None):
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"tokenizer .*file: ") as caught:
        kind.load(path)
    assert "\n" not in str(caught.value)
    if content is None:
        assert str(caught.value).endswith("cannot be read: No such file or directory")
