"""Documents, and the splits that keep them apart."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fastweights.tasks.text.documents import (
    HELD_OUT,
    MIN_DOCUMENTS,
    PYTHON_STDLIB,
    SEPARATOR,
    Document,
    Piece,
    find_documents,
    split_documents,
)


@pytest.fixture
def documents(tmp_path: Path) -> Callable[..., list[Document]]:
    """documents(30): as many files of 99 bytes; others by name: documents(30, x=b"text")."""

    def write(count: int, **others: bytes) -> list[Document]:
        folder = tmp_path / f"{count}_{len(others)}"
        folder.mkdir()
        for i in range(count):
            (folder / f"{i}.txt").write_bytes(f"{i:03}".encode() * 33)
        for name, text in others.items():
            (folder / name).write_bytes(text)
        return find_documents(str(folder))

    return write


def texts(pieces: list[Piece]) -> list[bytes]:
    return [piece.read() for piece in pieces]


def test_every_document_is_in_one_split_whatever_the_order(documents):
    given = documents(200)
    splits = split_documents(given)
    found = [piece.document for pieces in splits.values() for piece in pieces]
    assert sorted(found) == sorted(given)
    for name, share in HELD_OUT.items():
        assert len(splits[name]) == round(share * 200)
    again = split_documents(given[::-1])
    for name, split in splits.items():
        assert texts(split) == texts(again[name])


def test_a_new_document_changes_little(documents):
    before, after = (set(texts(split_documents(documents(n))["train"])) for n in (200, 201))
    assert len(before - after) <= 2


def test_few_documents_are_cut_within(documents):
    text = b"%0999d" % 7 + b"."
    (document,) = documents(0, one=text)
    splits = split_documents([document])
    train, validation, test = (splits[name][0].read() for name in ("train", "validation", "test"))
    assert text in (train + validation + test, train + test + validation)
    assert {len(validation), len(test)} == {50}
    assert len(split_documents(documents(MIN_DOCUMENTS - 1))["test"]) == MIN_DOCUMENTS - 1


def test_a_cut_is_between_characters(documents):
    text = "äöü€" * 100
    (document,) = documents(0, one=text.encode())
    splits = split_documents([document])
    assert sorted("".join(piece.read().decode() for [piece] in splits.values())) == sorted(text)


def test_one_document_that_is_most_of_the_text_is_cut_within(documents):
    splits = split_documents(documents(MIN_DOCUMENTS, large=b"x" * 10_000))
    assert all(b"x" * 400 in b"".join(texts(split)) for split in splits.values())


def test_equal_documents_count_once(documents):
    assert texts(split_documents(documents(0, a=b"same", b=b"same"))["train"]) == [b"same"]


def test_a_text_that_changes_while_it_is_read(documents):
    (document,) = documents(0, one=b"first")
    document.path.write_bytes(b"other")
    with pytest.raises(ValueError, match="one: has changed while it was being read"):
        Piece(document, 0, 5).read()


def test_files_and_folders(tmp_path: Path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "2.txt").write_text("zwei", encoding="utf-8")
    (tmp_path / "a.txt").write_text("äins", encoding="utf-8")
    (tmp_path / "empty.txt").touch()
    (tmp_path / ".hidden").write_bytes(b"\xff")
    found = find_documents(str(tmp_path))
    assert [(document.name, document.path.read_text("utf-8")) for document in found] == [
        ("a.txt", "äins"),
        ("b/2.txt", "zwei"),
    ]
    assert find_documents(str(tmp_path / "a.txt")) == found[:1]


def test_the_standard_library_is_text():
    found = find_documents(PYTHON_STDLIB)
    names = [document.name for document in found]
    assert "argparse.py" in names and "json/decoder.py" in names
    assert not any(part in ("test", "site-packages") for name in names for part in name.split("/"))
    assert all(SEPARATOR not in document.path.read_bytes() for document in found)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"ab\xff", "not UTF-8 at byte 2"),
        (b"a\0b", "a zero byte at byte 1"),
        (b"", "holds no text"),
    ],
)
def test_no_text(tmp_path: Path, content: bytes, fault: str):
    path = tmp_path / "x.txt"
    path.write_bytes(content)
    for source in (path, tmp_path):
        with pytest.raises(ValueError, match=fault) as caught:
            find_documents(str(source))
        assert "x.txt" in str(caught.value) or content == b""
    for missing in (str(tmp_path / "missing"), ""):
        with pytest.raises(ValueError, match="no such file or folder, and not 'python_stdlib'"):
            find_documents(missing)
    with pytest.raises(ValueError, match="`fastweights data prepare hub:c4 --out FOLDER`"):
        find_documents("hub:c4")
