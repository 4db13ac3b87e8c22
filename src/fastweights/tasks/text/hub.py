"""Published corpora from the Hugging Face hub, at pinned revisions, in their papers' protocols.

The files are downloaded once into the hub's cache, where they are found with HF_HUB_OFFLINE=1 too,
and read one text after the other.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from fastweights.tasks.text.extra import library
from fastweights.tasks.text.source import Source, Texts

PREFIX = "hub:"
STORY_END = "<STORY_SEP>"
"""Behind every document of C4 and peS2o, as text, in Csordás et al. (2023), code."""

ENWIK8_BYTES = {"train": 90_000_000, "validation": 5_000_000, "test": 5_000_000}
ENWIK8_MD5 = "a1fa5ffddb56f4953e226637dabbb36a"


class Repository(NamedTuple):
    """name, revision: on the hub; builder: of `datasets`, for its files; files: of each split."""

    name: str
    revision: str
    builder: str
    files: Mapping[str, Sequence[str]]


DAMAGED = (OSError, EOFError, ValueError, StopIteration, zlib.error)
"""What reading a damaged file raises; StopIteration: one with nothing in it."""

Read = Callable[[str, int | None], Iterator[str]]
"""The rows of a split's files, or of its first files."""


def hub_source(name: str, folder: Path | None = None) -> Source:
    """A corpus of HUB; `folder`: where the repository's files already are.

    Raises ValueError, in one line, for an unknown name and for files that cannot be had.
    """
    if name not in HUB:
        raise ValueError(f"text: {name}: the corpora of the hub are {', '.join(HUB)}")
    repository, protocol = HUB[name]
    return protocol(name, partial(_rows, repository, folder))


def _rows(
    repository: Repository, folder: Path | None, split: str, num_files: int | None = None
) -> Iterator[str]:
    datasets = library("datasets")
    for file in repository.files[split][:num_files]:
        local = folder / file if folder else _download(repository, file)
        try:
            rows = datasets.load_dataset(
                repository.builder, data_files=str(local), split="train", streaming=True
            )
            for row in rows:
                if not isinstance(row.get("text"), str):
                    raise ValueError("a row has no text")
                yield row["text"]
        except (*DAMAGED, datasets.exceptions.DatasetsError) as error:
            reason = " ".join(str(error).split()) or "it is empty"
            raise ValueError(f"text: {local}: cannot be read: {reason}") from None


def _download(repository: Repository, file: str) -> Path:
    hub = library("huggingface_hub")
    try:
        return Path(
            hub.hf_hub_download(
                repository.name, file, revision=repository.revision, repo_type="dataset"
            )
        )
    except Exception as error:  # of the network, of the hub: many kinds, no common one
        reason = " ".join(str(error).split())
        raise ValueError(
            f"text: {repository.name}: {file} cannot be downloaded and is not in the hub's cache: "
            f"{reason[:200]}"
        ) from None


def _wikitext(name: str, read: Read) -> Source:
    """A text is a line with its end, which words keep as `<eos>` and SentencePiece drops: the
    103,227,021 training words of Schlag et al. (2021), the sub-words of Csordás et al. (2023)."""
    splits = {split: partial(_lines, read, split) for split in ("train", "validation", "test")}
    return Source(name, splits, splits["train"], separated=False)


def _lines(read: Read, split: str) -> Iterator[str]:
    for row in read(split, None):
        yield row.removesuffix("\n") + "\n"


def _enwik8(name: str, read: Read) -> Source:
    """Its first 90, next 5 and last 5 million bytes."""
    splits = {split: partial(_enwik8_part, read, split) for split in ENWIK8_BYTES}
    return Source(name, splits, splits["train"], separated=False)


def _enwik8_part(read: Read, split: str) -> Iterator[str]:
    text = "".join(read("train", None)).encode()
    if hashlib.md5(text, usedforsecurity=False).hexdigest() != ENWIK8_MD5:
        raise ValueError(f"text: these {len(text)} bytes are not enwik8 (MD5 {ENWIK8_MD5})")
    start = 0
    for name, size in ENWIK8_BYTES.items():
        if name == split:
            part = text[start : start + size].decode(errors="surrogateescape")
            yield from part.splitlines(keepends=True)
        start += size


@dataclass(frozen=True)
class Web:
    """Documents with STORY_END behind each. tokenizer_files: of the files to train, the first that
    the tokenizer learns from; held_out: documents in `validation`, 0.5 % of the published one; as
    many after them are `test`, which the papers have not."""

    tokenizer_files: int
    held_out: int

    def __call__(self, name: str, read: Read) -> Source:
        """The splits and what the tokenizer learns from."""
        held_out = partial(read, "validation", None)
        splits: dict[str, Texts] = {
            "train": partial(_stories, partial(read, "train", None)),
            "validation": partial(_stories, held_out, 0, self.held_out),
            "test": partial(_stories, held_out, self.held_out, 2 * self.held_out),
        }
        tokenizer_texts = partial(_stories, partial(read, "train", self.tokenizer_files))
        return Source(name, splits, tokenizer_texts, separated=False)


def _stories(documents: Texts, start: int = 0, stop: int | None = None) -> Iterator[str]:
    for document in islice(documents(), start, stop):
        yield document + STORY_END


def _numbered(pattern: str, count: int) -> list[str]:
    return [pattern.format(i) for i in range(count)]


def _parquet(folder: str, counts: Mapping[str, int]) -> dict[str, list[str]]:
    return {
        split: _numbered(f"{folder}/{split}-{{:05}}-of-{count:05}.parquet", count)
        for split, count in counts.items()
    }


HUB: dict[str, tuple[Repository, Callable[[str, Read], Source]]] = {
    f"{PREFIX}wikitext-103": (
        Repository(
            "Salesforce/wikitext",
            "b08601e04326c79dfdd32d625aee71d232d685c3",
            "parquet",
            _parquet("wikitext-103-v1", {"train": 2, "validation": 1, "test": 1}),
        ),
        _wikitext,
    ),
    # The repository itself has a script alone; its converted file is known by its MD5.
    f"{PREFIX}enwik8": (
        Repository(
            "LTCB/enwik8",
            "refs/convert/parquet",
            "parquet",
            {"train": ["enwik8-raw/train/0000.parquet"]},
        ),
        _enwik8,
    ),
    # As many files as 100,000 steps of the largest published batch need, in less than one epoch.
    f"{PREFIX}c4": (
        Repository(
            "allenai/c4",
            "1ddc917116b730e1859edef32896ec5c16be51d0",
            "json",
            {
                "train": _numbered("en/c4-train.{:05}-of-01024.json.gz", 20),
                "validation": _numbered("en/c4-validation.{:05}-of-00008.json.gz", 1),
            },
        ),
        Web(tokenizer_files=10, held_out=1823),
    ),
    f"{PREFIX}pes2o": (
        Repository(
            "allenai/peS2o",
            "636a503e44a3ca1b58e01fb61eab0825cd574de0",
            "json",
            {
                "train": _numbered("data/v2/train-{:05}-of-00020.json.gz", 3),
                "validation": _numbered("data/v2/validation-{:05}-of-00002.json.gz", 1),
            },
        ),
        Web(tokenizer_files=1, held_out=813),
    ),
}
