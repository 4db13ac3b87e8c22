"""Published corpora, read from small files of the format that the hub has, the hub switched off."""

import gzip
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fastweights.tasks.text import hub
from fastweights.tasks.text.corpus import load_corpus
from fastweights.tasks.text.hub import HUB, hub_source
from fastweights.tasks.text.prepared import prepare


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No network, no cache."""
    pytest.importorskip("datasets")
    constants: Any = pytest.importorskip("huggingface_hub").constants
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))


def write(folder: Path, name: str, texts: dict[str, list[list[str]]]) -> None:
    """Files of a corpus: texts[split][i] are the rows of its i-th file."""
    repository = HUB[name][0]
    for split, files in texts.items():
        for file, rows in zip(repository.files[split], files, strict=False):
            path = folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            if repository.builder == "json":
                lines = [json.dumps({"text": row, "id": i}) for i, row in enumerate(rows)]
                path.write_bytes(gzip.compress("\n".join(lines).encode()))
            else:
                import pyarrow
                from pyarrow import parquet

                parquet.write_table(pyarrow.table({"text": rows}), path)


def test_every_revision_is_pinned():
    for name, (repository, _) in HUB.items():
        pinned = len(repository.revision) == 40 and int(repository.revision, 16)
        assert pinned or name == "hub:enwik8"  # known by the MD5 of its text


def test_wikitext(tmp_path: Path):
    """Words and a line end for every line; SentencePiece drops it."""
    rows = ["", " = A = \n", " a <unk> b . \n"]
    texts = {"train": [rows, [" a a \n"]], "validation": [[" a c \n"]], "test": [[" b \n"]]}
    write(tmp_path / "hub", "hub:wikitext-103", texts)
    source = hub_source("hub:wikitext-103", tmp_path / "hub")
    prepare(source, tmp_path / "words", "words")
    corpus = load_corpus(str(tmp_path / "words"))
    decoded = {split: corpus.tokenizer.decode(ids.tolist()) for split, ids in corpus.splits.items()}
    assert decoded == {
        "train": "\n= A =\na <unk> b .\na a\n",
        "validation": "a <unk>\n",
        "test": "b\n",
    }
    prepare(source, tmp_path / "pieces", "sentencepiece", 14)
    pieces = load_corpus(str(tmp_path / "pieces"))
    alone = [pieces.tokenizer.encode(row) for row in (*rows, " a a \n")]
    assert pieces.splits["train"].tolist() == [token for tokens in alone for token in tokens]


def test_enwik8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Cut by bytes, within characters too; another text is refused."""
    text = "<page>ä\nb€</page>\n"
    write(tmp_path, "hub:enwik8", {"train": [[text]]})
    source = hub_source("hub:enwik8", tmp_path)
    with pytest.raises(ValueError, match="these 21 bytes are not enwik8"):
        list(source.splits["test"]())
    monkeypatch.setattr(hub, "ENWIK8_MD5", hashlib.md5(text.encode()).hexdigest())
    monkeypatch.setattr(hub, "ENWIK8_BYTES", {"train": 7, "validation": 4, "test": 10})
    prepare(hub_source("hub:enwik8", tmp_path), tmp_path / "out")
    corpus = load_corpus(str(tmp_path / "out"))
    found = [bytes(tokens.tolist()) for tokens in corpus.splits.values()]
    assert found == [text.encode()[:7], text.encode()[7:11], text.encode()[11:]]


@pytest.mark.parametrize("name", ["hub:c4", "hub:pes2o"])
def test_web_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    """Every document ends in a story end; the validation files give validation and test."""
    repository, web = HUB[name]
    assert isinstance(web, hub.Web)
    monkeypatch.setitem(HUB, name, (repository, replace(web, tokenizer_files=1, held_out=2)))
    files = [[f"{split} {i}" for i in range(6)] for split in ("t", "v")]
    count = len(repository.files["train"])
    write(tmp_path, name, {"train": [files[0]] * count, "validation": [files[1]]})
    source = hub_source(name, tmp_path)
    train = list(source.splits["train"]())
    assert train[:2] == ["t 0<STORY_SEP>", "t 1<STORY_SEP>"]
    assert len(train) == 6 * count
    assert list(source.splits["validation"]()) == ["v 0<STORY_SEP>", "v 1<STORY_SEP>"]
    assert list(source.splits["test"]()) == ["v 2<STORY_SEP>", "v 3<STORY_SEP>"]
    assert len(list(source.tokenizer_texts())) == 6


def test_what_cannot_be_had(tmp_path: Path):
    with pytest.raises(ValueError, match="hub:none: the corpora of the hub are hub:wikitext-103"):
        hub_source("hub:none")
    texts = hub_source("hub:wikitext-103").splits["test"]()
    with pytest.raises(ValueError, match=r"Salesforce/wikitext: .* cannot be downloaded and is"):
        next(texts)
    missing = hub_source("hub:c4", tmp_path).splits["train"]()
    with pytest.raises(ValueError, match=r"c4-train.00000-of-01024.json.gz: cannot be read"):
        next(missing)


ROWS = gzip.compress(json.dumps({"text": "".join(map(chr, range(40, 9000)))}).encode())


@pytest.mark.parametrize(
    "content",
    [
        b"junk",
        ROWS[: len(ROWS) // 2],
        ROWS[:500] + b"junk" + ROWS[504:],
        gzip.compress(b""),
        gzip.compress(b'{"title": "a"}\n'),
        gzip.compress(b'{"text": null}\n'),
    ],
    ids=["junk", "cut", "flipped", "empty", "no text", "null"],
)
def test_a_damaged_file(tmp_path: Path, content: bytes):
    path = tmp_path / HUB["hub:c4"][0].files["train"][0]
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"00000-of-01024.json.gz: cannot be read: ") as caught:
        list(hub_source("hub:c4", tmp_path).splits["train"]())
    assert "\n" not in str(caught.value)
