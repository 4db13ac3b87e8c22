"""Prepared corpora: token files, mapped into memory."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from fastweights.tasks.text.corpus import corpus_vocab_size, load_corpus
from fastweights.tasks.text.prepared import DESCRIPTION_FILE, damages, is_prepared, prepare
from fastweights.tasks.text.source import Source, local_source


@pytest.fixture
def texts(tmp_path: Path) -> str:
    """A folder of thirty documents."""
    folder = tmp_path / "texts"
    folder.mkdir()
    for i in range(30):
        (folder / f"{i}.txt").write_text(f"{i:03} the quick brown fox ä ö\n" * 20, encoding="utf-8")
    return str(folder)


def source(**splits: list[str]) -> Source:
    return Source(
        "here", {k: v.__iter__ for k, v in splits.items()}, splits["train"].__iter__, True
    )


def test_bytes_are_those_of_the_text_itself(texts: str, tmp_path: Path):
    prepare(local_source(texts), tmp_path / "out")
    got, want = load_corpus(str(tmp_path / "out")), load_corpus(texts)
    for split, tokens in want.splits.items():
        assert torch.equal(got.splits[split], tokens)
    assert got.num_bytes == want.num_bytes
    assert got.num_characters == want.num_characters
    assert got.checksum == load_corpus(str(tmp_path / "out")).checksum


@pytest.mark.parametrize(
    ("name", "size", "dtype"),
    [
        ("tokenizers", 262, torch.uint16),
        ("sentencepiece", 40, torch.uint8),
        ("words", 8, torch.uint8),
    ],
)
def test_every_document_is_encoded_with_a_separator_behind_it(
    texts: str, tmp_path: Path, name: str, size: int, dtype: torch.dtype
):
    seen: dict[str, int] = {}
    where, folder = local_source(texts), tmp_path / "deep" / "out"
    description = prepare(where, folder, name, size, report=seen.__setitem__)
    corpus = load_corpus(str(folder))
    for split, tokens in corpus.splits.items():
        encoded = [
            [*corpus.tokenizer.encode(text), corpus.tokenizer.separator]
            for text in where.splits[split]()
        ]
        assert tokens.dtype == dtype
        assert tokens.tolist() == [token for tokens in encoded for token in tokens]
        assert description.splits[split].num_documents == len(encoded)
        assert corpus.num_bytes[split] == load_corpus(texts).num_bytes[split]
        assert corpus.num_characters[split] == load_corpus(texts).num_characters[split]
        assert seen[split] == corpus.num_bytes[split] - len(encoded)
    assert corpus_vocab_size(str(folder)) == corpus.tokenizer.vocab_size == size
    assert list(seen) == ["vocabulary", "train", "validation", "test"]
    assert sorted(path.name for path in folder.parent.iterdir()) == ["out"]


def test_a_tokenizer_of_the_user(texts: str, tmp_path: Path):
    prepare(local_source(texts), tmp_path / "one", "words")
    file = tmp_path / "one" / "vocabulary.txt"
    prepare(local_source(texts), tmp_path / "two", "words", tokenizer_file=file)
    assert file.read_bytes() == (tmp_path / "two" / "vocabulary.txt").read_bytes()
    with pytest.raises(ValueError, match=r"vocabulary.txt: has \d+ tokens, not 7"):
        prepare(local_source(texts), tmp_path / "three", "words", 7, file)


def test_nothing_is_overwritten_and_nothing_left_half(texts: str, tmp_path: Path):
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine").touch()
    with pytest.raises(FileExistsError, match="full"):
        prepare(local_source(texts), full)
    assert [path.name for path in full.iterdir()] == ["mine"]
    with pytest.raises(ValueError, match="here: split test holds no text"):
        prepare(source(train=["a"], validation=["b"], test=[]), tmp_path / "out")

    with pytest.raises(ValueError, match="here: split validation holds no text"):
        prepare(source(train=["a"], validation=["\n \n"], test=["a"]), tmp_path / "out", "words")

    def interrupted(what: str, num_bytes: int) -> None:
        if what == "validation":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(local_source(texts), tmp_path / "out", report=interrupted)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "texts"]
    (tmp_path / "out").mkdir()
    prepare(local_source(texts), tmp_path / "out")
    assert is_prepared(tmp_path / "out")


def test_the_vocabulary_of_what_is_not_there(tmp_path: Path):
    with pytest.raises(ValueError, match="missing: no such file or folder"):
        corpus_vocab_size(str(tmp_path / "missing"))


def damage(folder: Path, **values: Any) -> None:
    path = folder / DESCRIPTION_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def damage_split(folder: Path, **values: Any) -> None:
    splits = json.loads((folder / DESCRIPTION_FILE).read_text())["splits"]
    damage(folder, splits=splits | {"test": splits["test"] | values})


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda f: (f / "train.bin").write_bytes(b"1"), "train.bin: is damaged: 1 bytes, corpus"),
        (lambda f: (f / "test.bin").unlink(), "test.bin: cannot be read: No such file"),
        (lambda f: (f / DESCRIPTION_FILE).write_text("{"), "corpus.json: is damaged: Expecting"),
        (lambda f: (f / DESCRIPTION_FILE).write_text("{}"), "corpus.json: is damaged: no 'format'"),
        (lambda f: (f / DESCRIPTION_FILE).write_text("[]"), "corpus.json: is damaged: list ind"),
        (lambda f: damage(f, format=9), "format 9: this version reads format 2; prepare it again"),
        (lambda f: damage(f, splits={}), "has no split train"),
        (lambda f: damage(f, splits=[1]), "corpus.json: is damaged: 'list' object has no"),
        (lambda f: damage_split(f, num_bytes=0), "corpus.json: is damaged: num_bytes 0"),
        (lambda f: damage_split(f, num_tokens="9"), "corpus.json: is damaged: num_tokens '9'"),
        (lambda f: damage(f, vocab_size=7), r"is not the words \(7\) that made its tokens"),
        (lambda f: damage(f, dtype="int3"), "corpus.json: is damaged: unknown 'int3'"),
        (
            lambda f: (f / "vocabulary.txt").write_text("<eos>\n<unk>\n"),
            r"its tokenizer \(vocabulary size 2\) is not the words \(\d+\) that made its tokens",
        ),
        (
            lambda f: (f / "vocabulary.txt").unlink(),
            "vocabulary.txt: cannot be read: No such file",
        ),
    ],
)
def test_a_damaged_folder(texts: str, tmp_path: Path, harm: Any, message: str):
    folder = tmp_path / "out"
    prepare(local_source(texts), folder, "words")
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    harm(copy)
    with pytest.raises(ValueError, match=message) as caught:
        load_corpus(str(copy))
    assert "\n" not in str(caught.value)


def test_every_file_is_checked(texts: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("fastweights.tasks.text.prepared.BLOCK", 1000)
    folder, seen = tmp_path / "out", []
    prepare(local_source(texts), folder, "words")
    assert damages(folder, lambda *progress: seen.append(progress)) == []
    size = (folder / "train.bin").stat().st_size
    assert size > 2000
    assert seen[:2] == [("train.bin", 1000), ("train.bin", 2000)] and ("train.bin", size) in seen
    content = bytearray((folder / "train.bin").read_bytes())
    content[-1] ^= 1
    (folder / "train.bin").write_bytes(content)
    (folder / "validation.bin").write_bytes(b"1")
    (folder / "test.bin").unlink()
    (folder / "vocabulary.txt").write_text("<eos>\n<unk>\n")
    for line, message in zip(
        damages(folder),
        (
            "its tokenizer (vocabulary size 2) is not the words",
            "train.bin: is damaged: checksum ",
            "validation.bin: is damaged: 1 bytes, corpus.json says",
            "test.bin: cannot be read: No such file or directory",
        ),
        strict=True,
    ):
        assert message in line and "\n" not in line
    with pytest.raises(ValueError, match=r"corpus.json: cannot be read: No such file"):
        damages(tmp_path)
