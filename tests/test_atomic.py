"""Files are either the old ones or the new ones."""

import errno
import os
import stat
from pathlib import Path
from typing import NoReturn

import pytest

from fastweights.atomic import is_temporary, write_json, write_text


def test_it_writes_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "é\n")
    write_text(path, "new\n")
    assert path.read_bytes() == b"new\n"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


def test_its_temporary_files_are_told_from_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Path] = []
    monkeypatch.setattr("fastweights.atomic.os.fsync", lambda _: found.extend(tmp_path.iterdir()))
    monkeypatch.setattr("fastweights.atomic.sync_folder", lambda _: None)
    write_text(tmp_path / "a.txt", "")
    assert [is_temporary(path) for path in found] == [True]
    assert not any(is_temporary(tmp_path / name) for name in ("a.txt", ".lock", "thesis.writing"))


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_the_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "")
    (tmp_path / "b").write_text("")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in "ab"}
    assert len(modes) == 1


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "a.txt"
    write_text(path, "old")
    monkeypatch.setattr("fastweights.atomic.os.fsync", refuse)
    with pytest.raises(OSError, match="No space left on device") as caught:
        write_text(path, "new")
    assert caught.value.filename == str(path)
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


def test_an_error_names_the_file_and_not_the_temporary_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        write_text(tmp_path / "none" / "a.txt", "")
    assert caught.value.filename == str(tmp_path / "none" / "a.txt")


def test_nan_is_no_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert not list(tmp_path.iterdir())
