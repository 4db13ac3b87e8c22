"""From a task's configuration to its sets."""

import json
import re

import pytest

from fastweights.tasks.formal.files import write_pairs
from fastweights.tasks.formal.menu import LANGUAGES, load_language, load_task


def test_the_menu():
    assert list(LANGUAGES) == [
        "parity",
        "aa_star",
        "abab_star",
        "counter_2",
        "counter_3",
        "shuffle_2",
        "dyck_1",
        "reset_dyck_1",
    ]
    assert all(language.name == name for name, language in LANGUAGES.items())


def test_formal_language():
    task = load_task({"kind": "formal_language", "language": "aa_star", "variant": None}, 0)
    assert (task.name, task.symbols, task.labels) == ("aa_star", ("a",), ("0", "1"))
    assert list(task.splits) == ["train", "validation", "bin0", "bin1"]
    assert task.language is LANGUAGES["aa_star"]
    published = load_task({"language": "aa_star", "variant": "published"}, 0)
    assert list(published.splits) == ["train", "bin0", "bin1"]
    assert len(published.splits["train"]) == 250


def test_regex():
    task = load_task(
        {"kind": "regex", "pattern": "(ab)*", "symbols": "ba", "train_window": (1, 40)}, 0
    )
    assert task.symbols == ("b", "a") and task.language is not None
    assert [len(examples) for examples in task.splits.values()] == [12, 4, 4, 25]


def test_dfa(tmp_path):
    path = tmp_path / "even.json"
    table = {"states": ["e", "o"], "symbols": ["a"], "initial": "e", "accepting": ["e"]}
    path.write_text(json.dumps({**table, "transitions": {"e": {"a": "o"}, "o": {"a": "e"}}}))
    task = load_task({"kind": "dfa", "path": path}, 0)
    assert [len(examples) for examples in task.splits.values()] == [15, 5, 5, 25]
    assert load_language({"kind": "dfa", "path": str(path)}).label("aaa") == ["0", "1", "0"]


def test_files(tmp_path):
    original = load_task({"language": "counter_2"}, 0)
    for name, examples in original.splits.items():
        write_pairs(examples, tmp_path / name)
    task = load_task({"kind": "files", "folder": tmp_path}, 0)
    assert task.splits == original.splits and task.language is None
    assert task.name == tmp_path.name and set(task.symbols) == {"a", "b"}


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"language": "parit"}, "unknown language 'parit'; did you mean parity?"),
        ({"language": "dyck"}, "unknown language 'dyck'; did you mean dyck_1"),
        ({"language": "zzz"}, "unknown language 'zzz'; known: parity, aa_star,"),
        ({"kind": "regexp"}, "unknown task kind 'regexp'; did you mean regex?"),
        ({"langage": "parity"}, "unknown key of task kind formal_language: 'langage'; did you me"),
        ({"kind": "regex"}, "task kind regex needs the key 'pattern'"),
        ({"language": "parity", "variant": "lax"}, "variant='lax' is not one of strict, published"),
    ],
)
def test_errors(task, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        load_task(task, 0)


def test_files_have_no_language():
    with pytest.raises(ValueError, match="'files' has no language"):
        load_language({"kind": "files", "folder": "."})
