"""Which text a run learned, in the run folder itself: RUN/text.json."""

from __future__ import annotations

import json
from pathlib import Path

from fastweights.atomic import write_json
from fastweights.tasks.text.corpus import Corpus
from fastweights.train.errors import RunFolderError

TEXT_FILE = "text.json"


def write_text_file(source: str, corpus: Corpus, run_folder: Path) -> None:
    """Write source, checksum and the number of tokens of each split; where the file is there,
    `check_text_file`."""
    path = run_folder / TEXT_FILE
    if path.exists():
        check_text_file(source, corpus, run_folder)
        return
    tokens = {split: len(tokens) for split, tokens in corpus.splits.items()}
    write_json(path, {"source": source, "checksum": corpus.checksum, "tokens": tokens})


def check_text_file(source: str, corpus: Corpus, run_folder: Path) -> None:
    """Raise RunFolderError where the text is not the one of the run, or text.json is damaged; an
    older run has none."""
    path = run_folder / TEXT_FILE
    if not path.exists():
        return
    try:
        then = json.loads(path.read_text(encoding="utf-8"))["checksum"]
    except (ValueError, KeyError, TypeError):
        raise RunFolderError(f"{path}: damaged: no checksum") from None
    if then != corpus.checksum:
        raise RunFolderError(
            f"{source}: not the text that the run {run_folder} learned: checksum "
            f"{corpus.checksum[:12]}, it was {str(then)[:12]}"
        )
