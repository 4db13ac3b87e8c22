"""Tokens of documents."""

from pathlib import Path

import torch

from fastweights.tasks.text.corpus import lanes, load_corpus
from fastweights.tasks.text.documents import SEPARATOR, Piece, find_documents, split_documents
from fastweights.tasks.text.source import SPLITS


def test_a_split_is_its_documents_with_a_separator_behind_each(tmp_path: Path):
    for i in range(30):
        (tmp_path / f"{i}.txt").write_text(f"{i:03} ä" * 20, encoding="utf-8")
    corpus, texts = load_corpus(str(tmp_path)), split_documents(find_documents(str(tmp_path)))
    assert tuple(corpus.splits) == SPLITS
    for split, tokens in corpus.splits.items():
        assert bytes(tokens.tolist()).split(bytes([SEPARATOR]))[:-1] == [
            *map(Piece.read, texts[split])
        ]
        assert corpus.num_bytes[split] == len(tokens)
        assert corpus.num_characters[split] == len(bytes(tokens.tolist()).decode())


def test_the_checksum_is_that_of_every_split(tmp_path: Path):
    for i in range(30):
        (tmp_path / f"{i}.txt").write_text(f"{i:03}" * 20, encoding="utf-8")
    before = load_corpus(str(tmp_path)).checksum
    assert load_corpus(str(tmp_path)).checksum == before
    piece = split_documents(find_documents(str(tmp_path)))["test"][0]
    number = int(piece.read()[:3])
    (tmp_path / f"{number}.txt").write_text("100" * 20, encoding="utf-8")
    assert load_corpus(str(tmp_path)).checksum != before


def test_lanes():
    assert lanes(torch.arange(11), 3).tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
