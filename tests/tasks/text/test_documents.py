"""Documents, and the splits that keep them apart."""

from pathlib import Path

import pytest

from fastweights.tasks.text.documents import (
    HELD_OUT,
    MIN_DOCUMENTS,
    PYTHON_STDLIB,
    SEPARATOR,
    Document,
    read_documents,
    split_documents,
)


def documents(count: int, size: int = 100) -> list[Document]:
    return [Document(f"{i}.txt", f"{i:03}".encode() * (size // 3)) for i in range(count)]


def test_every_document_is_in_one_split_whatever_the_order():
    given = documents(200)
    splits = split_documents(given)
    found = [text for split in splits.values() for text in split]
    assert sorted(found) == sorted(document.text for document in given)
    for name, share in HELD_OUT.items():
        assert len(splits[name]) == round(share * 200)
    again = split_documents(given[::-1])
    for name, split in splits.items():
        assert split == again[name]


def test_a_new_document_changes_little():
    before, after = (set(split_documents(documents(n))["train"]) for n in (200, 201))
    assert len(before - after) <= 2


def test_few_documents_are_cut_within():
    (text,) = [document.text for document in documents(1, size=1000)]
    splits = split_documents([Document("one", text)])
    pieces = [splits[name][0] for name in ("train", "validation", "test")]
    train, validation, test = pieces
    assert train + validation + test in (text, train + test + validation)
    assert len(b"".join(pieces)) == len(text)
    assert {len(validation), len(test)} == {50}
    assert len(split_documents(documents(MIN_DOCUMENTS - 1))["test"]) == MIN_DOCUMENTS - 1


def test_one_document_that_is_most_of_the_text_is_cut_within():
    large = Document("large", b"x" * 10_000)
    splits = split_documents([*documents(MIN_DOCUMENTS), large])
    assert all(b"x" * 400 in b"".join(split) for split in splits.values())


def test_equal_documents_count_once(tmp_path: Path):
    for name in "ab":
        (tmp_path / name).write_text("same", encoding="utf-8")
    assert [document.text for document in read_documents(str(tmp_path))] == [b"same"]


def test_files_and_folders(tmp_path: Path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "2.txt").write_text("zwei", encoding="utf-8")
    (tmp_path / "a.txt").write_text("äins", encoding="utf-8")
    (tmp_path / "empty.txt").touch()
    (tmp_path / ".hidden").write_bytes(b"\xff")
    found = read_documents(str(tmp_path))
    assert found == [Document("a.txt", "äins".encode()), Document("b/2.txt", b"zwei")]
    assert read_documents(str(tmp_path / "a.txt")) == found[:1]


def test_the_standard_library_is_text():
    found = read_documents(PYTHON_STDLIB)
    names = [document.name for document in found]
    assert "argparse.py" in names and "json/decoder.py" in names
    assert not any(part in ("test", "site-packages") for name in names for part in name.split("/"))
    assert all(SEPARATOR not in document.text for document in found)


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
            read_documents(str(source))
        assert "x.txt" in str(caught.value) or content == b""
    with pytest.raises(ValueError, match="no such file or folder, and not 'python_stdlib'"):
        read_documents(str(tmp_path / "missing"))
