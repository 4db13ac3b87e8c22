"""Text out of packages' files, of small files of each format."""

import gzip
import struct
import zlib
from pathlib import Path

import pytest

from fastweights.tasks.text import extract


def write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def test_html_pages(tmp_path: Path):
    page = (
        "<html><head><title>no</title><style>p {}</style></head><body><script>no</script>"
        "<h1>Ein\n Titel</h1><p>first   <b>bold</b> &amp; more<br>next<p>second"
        "<pre>a  b\n  c</pre><table><tr><td>1<td>2</table></body></html>"
    )
    write(tmp_path / "doc/a.html", page)
    want = "Ein Titel\n\nfirst bold & more\nnext\n\nsecond\n\na  b\n  c\n\n 1 2\n"
    assert list(extract.html_pages("doc/*.html")(tmp_path)) == [("doc/a.html", want)]


def test_packed_files(tmp_path: Path):
    for name in ("a/x.rst.gz", "a/translations/y.rst.gz"):
        write(tmp_path / name, gzip.compress(b"text"))
    assert list(extract.packed_files("**/*.gz", "translations")(tmp_path)) == [("a/x.rst", "text")]


def test_dictionary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Entries in the order of the text, each once, though two words lead to it; not what describes
    the dictionary."""
    monkeypatch.setattr(extract, "PART_CHARACTERS", 7)
    write(tmp_path / "d.dict.dz", gzip.compress(b"about" + b"one\n" + b"two..\n" + b"x" * 70))
    index = "00databaseinfo\tA\tF\ntwo\tJ\tG\none\tF\tE\nuno\tF\tE\nxs\tP\tBG\n"
    write(tmp_path / "d.index", index)
    want = [("d/0000", "one\ntwo..\n"), ("d/0001", "x" * 70)]
    assert list(extract.dictionary("*.index")(tmp_path)) == want


def test_wordnet(tmp_path: Path):
    lines = '  1 licence\n00001740 03 n 02 dog 0 domestic_dog 1 001 @ 0 n 0000 | a pet; "good"  \n'
    write(tmp_path / "usr/share/wordnet/data.noun", lines)
    assert list(extract.wordnet(tmp_path)) == [
        ("data.noun/0000", 'dog, domestic dog: a pet; "good"\n')
    ]


def test_bible(tmp_path: Path):
    books = [
        '<title>no</title><verse osisID="Gen.1.1">In the <w lemma="x">beginning</w></verse>'
        "<note>no</note><verse>And&amp;</verse>",
        "<verse>Second</verse>",
    ]
    packed = [zlib.compress(book.encode()) for book in books]
    folder = tmp_path / "usr/share/sword/modules/texts/ztext/web"
    entries = [(0, len(packed[0]), 9), (0, 0, 0), (len(packed[0]), len(packed[1]), 9)]
    write(folder / "nt.bzs", b"".join(struct.pack("<III", *entry) for entry in entries))
    write(folder / "nt.bzz", b"".join(packed))
    want = "In the beginning\nAnd&\nSecond\n"
    assert list(extract.bible(tmp_path)) == [("nt/0000", want)]


def test_novels(tmp_path: Path):
    def block(kind: int, lines: list[str]) -> bytes:
        data = b"X\n" + struct.pack(">IIII", 3, 0x40201, 0x30500, 5) + b"UTF-8"
        data += struct.pack(">II", kind, len(lines))
        for line in lines:
            data += struct.pack(">Ii", 0x40009, len(line.encode())) + line.encode()
        return struct.pack(">I", len(data)) + zlib.compress(data)

    path = tmp_path / "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb"
    write(path, block(16, ["Emmä", "", "end"]) + block(13, []) + block(16, ["two"]))
    assert list(extract.novels(tmp_path)) == [("1", "Emmä\n\nend\n"), ("2", "two\n")]


def test_tagged(tmp_path: Path):
    write(tmp_path / "package/ca01", "\n\tThe/at ``/`` dog/nn ''/'' 1/2/cd ran/vbd ./.\n\n./.\n")
    write(tmp_path / "package/README", "no")
    assert list(extract.tagged(tmp_path)) == [("ca01", 'The "dog" 1/2 ran.\n.\n')]


def test_descriptions(tmp_path: Path):
    stanzas = (
        "Package: a\nDescription-md5: 1\nDescription-en: title a\n first\n line\n .\n both\n\n"
        "Package: b\nDescription-md5: 2\nDescription-en: title b\n own\n .\n both\n"
    )
    write(tmp_path / "host_debian_dists_release_main_i18n_Translation-en", stanzas)
    want = "title a\nfirst\nline\n\nboth\n\ntitle b\nown\n\n"
    assert list(extract.descriptions(tmp_path)) == [("release/0000", want)]
