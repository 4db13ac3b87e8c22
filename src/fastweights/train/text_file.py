"""Which text a run learned, and by which tokenizer, in the run folder itself: RUN/text.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from fastweights.atomic import write_json
from fastweights.tasks.text.corpus import Corpus
from fastweights.tasks.text.tokenizer import (
    TOKENIZERS,
    Tokenizer,
    load_tokenizer,
    tokenizer_name,
)
from fastweights.train.checkpoint import Checkpoints
from fastweights.train.errors import RunFolderError

TEXT_FILE = "text.json"


class LearnedText(NamedTuple):
    """checksum: of the corpus; tokenizer: a name of TOKENIZERS."""

    checksum: str
    tokenizer: str


def write_text_file(source: str, corpus: Corpus, run_folder: Path) -> None:
    """Write source, checksum, tokenizer and the number of tokens of each split; where the file or a
    checkpoint is there, `check_text_file`."""
    path = run_folder / TEXT_FILE
    if path.exists() or Checkpoints(run_folder).exist():
        check_text_file(source, corpus, run_folder)
        return
    about = {
        "source": source,
        "checksum": corpus.checksum,
        "tokenizer": tokenizer_name(corpus.tokenizer),
        "tokens": {split: len(tokens) for split, tokens in corpus.splits.items()},
    }
    write_json(path, about)


def check_text_file(source: str, corpus: Corpus, run_folder: Path) -> None:
    """Raise RunFolderError where the text is not the one of the run, or text.json is missing or
    damaged."""
    then = read_text_file(run_folder).checksum
    if then != corpus.checksum:
        raise RunFolderError(
            f"{source}: not the text that the run {run_folder} learned: checksum "
            f"{corpus.checksum[:12]}, it was {then[:12]}"
        )


def read_text_file(run_folder: Path) -> LearnedText:
    """The content of text.json. Raises RunFolderError where it is missing or damaged."""
    path = run_folder / TEXT_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        checksum = str(values["checksum"])
        tokenizer = str(values["tokenizer"] if "tokenizer" in values else _by_its_file(run_folder))
    except OSError as error:
        raise RunFolderError(
            f"{path}: cannot be read: {error.strerror}: which text the run learned is not known"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise RunFolderError(f"{path}: damaged: no checksum") from None
    if tokenizer not in TOKENIZERS:
        raise RunFolderError(f"{path}: damaged: unknown tokenizer {tokenizer}")
    return LearnedText(checksum, tokenizer)


def run_tokenizer(run_folder: Path) -> Tokenizer:
    """The tokenizer that is kept in a run folder. Raises RunFolderError as `read_text_file`, and
    ValueError, in one line, where the tokenizer's file is missing or damaged."""
    return load_tokenizer(run_folder, read_text_file(run_folder).tokenizer)


def _by_its_file(run_folder: Path) -> str:
    """The tokenizer of an older run, whose text.json does not name it."""
    files = {name: kind.file for name, kind in TOKENIZERS.items() if kind.file is not None}
    there = (name for name, file in files.items() if (run_folder / file).exists())
    return next(there, "bytes")
