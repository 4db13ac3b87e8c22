"""English text out of the files of packages: each function yields documents, name and text, from a
folder with an unpacked package."""

from __future__ import annotations

import gzip
import html
import re
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from html.parser import HTMLParser
from pathlib import Path

Documents = Iterator[tuple[str, str]]
Extract = Callable[[Path], Documents]

PART_CHARACTERS = 2**16
"""Entries of dictionaries are short: as many as make this much are one document."""


def html_pages(pattern: str) -> Extract:
    """The text of every HTML page that the pattern finds."""

    def extract(folder: Path) -> Documents:
        for path in sorted(folder.glob(pattern)):
            page = _Page()
            page.feed(path.read_text(encoding="utf-8", errors="replace"))
            page.close()
            yield path.relative_to(folder).as_posix(), page.text()

    return extract


def packed_files(pattern: str, left_out: str) -> Extract:
    """Every file, compressed with gzip, that the pattern finds, but for those below a folder of the
    name `left_out`."""

    def extract(folder: Path) -> Documents:
        for path in sorted(folder.glob(pattern)):
            if left_out not in path.parts:
                name = path.relative_to(folder).as_posix().removesuffix(".gz")
                yield name, gzip.decompress(path.read_bytes()).decode(errors="replace")

    return extract


def dictionary(pattern: str) -> Extract:
    """The entries of a dictionary of dictd: compressed text, and an index of tab-separated lines,
    word, place and length, as numbers of base 64."""

    def extract(folder: Path) -> Documents:
        for index in sorted(folder.glob(pattern)):
            text = gzip.decompress(index.with_suffix(".dict.dz").read_bytes())
            places = set()
            for line in index.read_bytes().splitlines():
                word, start, length = line.split(b"\t")[:3]
                if not word.startswith(b"00database"):
                    places.add((_base64(start), _base64(length)))
            entries = (text[start : start + size] for start, size in sorted(places))
            yield from _parts(index.stem, (entry.decode(errors="replace") for entry in entries))

    return extract


def wordnet(folder: Path) -> Documents:
    """`word, word: gloss` of the data files of WordNet."""
    for path in sorted(folder.glob("usr/share/wordnet/data.*")):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        yield from _parts(path.name, (_gloss(line) for line in lines if line[:1] != " "))


def _gloss(line: str) -> str:
    """`offset file type count word id word id ... | gloss`; the count is hexadecimal."""
    data, _, gloss = line.partition("|")
    fields = data.split()
    words = fields[4 : 4 + 2 * int(fields[3], 16) : 2]
    return f"{', '.join(words).replace('_', ' ')}: {gloss.strip()}\n"


def bible(folder: Path) -> Documents:
    """The testaments of a zText module of SWORD, its compressed blocks, mostly a book each, one
    after the other: .bzs lists their offsets, sizes and sizes unpacked, of 4 bytes each."""
    for index in sorted(folder.glob("usr/share/sword/modules/texts/ztext/*/*.bzs")):
        packed = index.with_suffix(".bzz").read_bytes()
        blocks = struct.iter_unpack("<III", index.read_bytes())
        books = (zlib.decompress(packed[start : start + size]) for start, size, _ in blocks if size)
        yield from _parts(index.stem, (_scripture(book.decode(errors="replace")) for book in books))


def _scripture(book: str) -> str:
    """Of OSIS, a kind of XML: no notes, no headings, a verse a line."""
    book = re.sub(r"<(note|title)\b.*?</\1>", " ", book, flags=re.DOTALL)
    book = re.sub(r"<(verse|p|lg|l|lb|chapter|div)\b[^>]*>", "\n", book)
    book = html.unescape(re.sub(r"<[^>]*>", "", book))
    lines = [" ".join(line.split()) for line in book.splitlines()]
    return "".join(f"{line}\n" for line in lines if line)


def novels(folder: Path) -> Documents:
    """The character vectors of an R package's lazily loaded data: each a block of 4 bytes, its
    size unpacked, and zlib; in it R's serialized strings, version 3, one a line of a novel."""
    for path in sorted(folder.glob("usr/lib/R/site-library/janeaustenr/data/Rdata.rdb")):
        packed, start, i = path.read_bytes(), 0, 0
        while start < len(packed):
            unpack = zlib.decompressobj()
            data = unpack.decompress(packed[start + 4 :])
            start = len(packed) - len(unpack.unused_data)
            lines = list(_strings(data))
            if lines:
                i += 1
                yield f"{i}", "\n".join(lines) + "\n"


def _strings(data: bytes) -> Iterator[str]:
    """Of one character vector (type 16) behind the header with the name of the encoding; nothing
    where it is another object."""
    kind, count = struct.unpack_from(">II", data, 23)
    if kind & 0xFF != 16:
        return
    at = 31
    for _ in range(count):
        flags, size = struct.unpack_from(">Ii", data, at)
        if flags & 0xFF != 9:
            return
        at += 8
        yield data[at : at + max(size, 0)].decode(errors="replace")
        at += max(size, 0)


def tagged(folder: Path) -> Documents:
    """The Brown corpus: `word/tag`, a sentence a line."""
    for path in sorted(folder.glob("package/c[a-r][0-9][0-9]")):
        text = path.read_text(encoding="utf-8", errors="replace")
        sentences = (" ".join(map(_word, line.split())) for line in text.splitlines())
        yield path.name, "\n".join(filter(None, map(_plain, sentences))) + "\n"


def _word(tagged_word: str) -> str:
    return tagged_word.rpartition("/")[0]


def _plain(sentence: str) -> str:
    """Quotation marks and punctuation as they are written."""
    sentence = re.sub(r"`` ?| ?''", '"', sentence)
    return re.sub(r" ([.,;:?!)])", r"\1", sentence).replace("( ", "(")


def descriptions(folder: Path) -> Documents:
    """Of Debian's packages: the paragraphs of apt's file Translation-en, each once."""
    seen: set[str] = set()
    for path in sorted(folder.glob("*_main_i18n_Translation-en")):
        stanzas = path.read_text(encoding="utf-8", errors="replace").split("\n\n")
        release = path.name.split("_")[-4]
        yield from _parts(release, (_new_paragraphs(stanza, seen) for stanza in stanzas))


def _new_paragraphs(stanza: str, seen: set[str]) -> str:
    """`Description-en: title`, then lines that begin with a space; ` .` is an empty line."""
    text = stanza.partition("\nDescription-en: ")[2]
    paragraphs = re.sub(r"(?m)^ ", "", text.rstrip()).replace("\n.\n", "\n\n").split("\n\n")
    new = [paragraph for paragraph in paragraphs if paragraph and paragraph not in seen]
    seen.update(new)
    return "".join(f"{paragraph}\n\n" for paragraph in new)


def _parts(name: str, entries: Iterable[str]) -> Documents:
    """Documents of PART_CHARACTERS or a little more, between entries."""
    part: list[str] = []
    size = number = 0
    for entry in entries:
        part.append(entry)
        size += len(entry)
        if size >= PART_CHARACTERS:
            yield f"{name}/{number:04}", "".join(part)
            part, size, number = [], 0, number + 1
    if part:
        yield f"{name}/{number:04}", "".join(part)


def _base64(digits: bytes) -> int:
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    value = 0
    for digit in digits:
        value = 64 * value + alphabet.index(digit)
    return value


class _Page(HTMLParser):
    """The text of an HTML page; what is preformatted stays so."""

    HIDDEN = ("script", "style", "head", "nav")
    LINES = ("br", "li", "tr", "dt")
    PARAGRAPHS = (
        *("p", "div", "section", "blockquote", "table", "ul", "ol", "dl", "dd"),
        *(f"h{level}" for level in range(1, 7)),
    )

    def __init__(self) -> None:
        super().__init__()
        self._pieces: list[str] = []
        self._hidden: list[str] = []
        self._preformatted = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag in self.HIDDEN:
            self._hidden.append(tag)
        elif tag == "pre":
            self._preformatted += 1
            self._pieces.append("\n\n")
        elif tag in self.LINES:
            self._pieces.append("\n")
        elif tag in self.PARAGRAPHS:
            self._pieces.append("\n\n")
        elif tag in ("td", "th"):
            self._pieces.append(" ")

    def handle_endtag(self, tag: str) -> None:
        if tag in self._hidden:
            while self._hidden.pop() != tag:
                pass
        elif tag == "pre":
            self._preformatted = max(0, self._preformatted - 1)
            self._pieces.append("\n\n")
        elif tag in (*self.LINES, *self.PARAGRAPHS):
            self._pieces.append("\n")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self._pieces.append(data if self._preformatted else re.sub(r"\s+", " ", data))

    def text(self) -> str:
        """Without spaces at line ends, and no two empty lines together."""
        lines = [line.rstrip() for line in "".join(self._pieces).splitlines()]
        return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip() + "\n"
