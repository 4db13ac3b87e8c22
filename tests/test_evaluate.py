"""A run folder, read back: the same numbers, other strings, one string."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fastweights import evaluate
from fastweights.evaluate import (
    LoadedRun,
    evaluate_language,
    evaluate_on,
    evaluate_run,
    horizon_of_run,
    load_run,
    other_language,
    predict,
)
from fastweights.tasks.formal.files import read_pairs, write_pairs
from fastweights.tasks.formal.language import Example
from fastweights.tasks.formal.menu import LANGUAGES
from fastweights.train.config import ConfigError, merge, parse_config
from fastweights.train.data import load_run_task
from fastweights.train.errors import CheckpointError, RunFolderError
from fastweights.train.loop import train

TINY: dict[str, Any] = {
    "task": {
        "kind": "regex",
        "pattern": "(0|10*1)*",
        "train_window": [1, 10],
        "test_window": [11, 14],
        "num_train": 40,
        "num_validation": 12,
        "num_bin0": 12,
        "num_bin1": 12,
    },
    "model": {"layer": "delta_net", "dim": 8, "ff_dim": 8},
    "training": {"batch_size": 8, "max_steps": 10, "evaluate_every": 4},
    "device": "cpu",
    "num_threads": 1,
    "horizon_lengths": [10, 20],
    "horizon_sequences": 4,
}


AUTOMATON = """
states: [even, odd]
symbols: ["0", "1"]
initial: even
accepting: [even]
transitions: {even: {"0": even, "1": odd}, odd: {"0": odd, "1": even}}
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A run folder and its result: parity, as a regular expression with few strings."""
    folder = tmp_path_factory.mktemp("evaluate") / "run"
    return folder, train(parse_config(TINY), folder, progress=False)


@pytest.fixture
def run(trained: tuple[Path, dict[str, Any]]) -> LoadedRun:
    return load_run(trained[0], device="cpu")


def test_the_own_splits_and_the_horizon_are_those_of_the_result(
    trained: tuple[Path, dict[str, Any]], run: LoadedRun
) -> None:
    result = trained[1]
    measured = {name: accuracy.as_dict() for name, accuracy in evaluate_run(run).items()}
    assert measured == result["splits"]
    assert horizon_of_run(run, [20, 10, 10]) == result["horizon"]
    assert run.step == result["selected_step"]


def test_last_and_best_are_different_checkpoints(
    trained: tuple[Path, dict[str, Any]], run: LoadedRun
) -> None:
    last = load_run(trained[0], "last", "cpu")
    assert last.step == trained[1]["steps"]
    assert (last.step == run.step) == (evaluate_run(last) == evaluate_run(run))


def test_loading_draws_nothing_from_the_default_generator(
    trained: tuple[Path, dict[str, Any]],
) -> None:
    before = torch.get_rng_state()
    load_run(trained[0])
    assert torch.equal(torch.get_rng_state(), before)


def test_the_device_is_the_one_asked_for(
    trained: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert load_run(trained[0]).device.type == "cpu"
    with pytest.raises(ConfigError, match=r"^device: 'cuda' was asked for, but there is no CUDA"):
        load_run(trained[0], device="cuda")


@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed"])
def test_the_precision_is_that_of_the_run(precision: str, tmp_path: Path) -> None:
    config = parse_config(merge(TINY, {"precision": precision, "training": {"max_steps": 3}}))
    result = train(config, tmp_path / "run", progress=False)
    run = load_run(tmp_path / "run", device="cpu")
    assert next(run.model.parameters()).dtype == (
        torch.float64 if precision == "64-true" else torch.float32
    )
    for name, accuracy in evaluate_run(run).items():
        # in training, Fabric hands the scores on in float32
        assert accuracy.as_dict() == pytest.approx(result["splits"][name], rel=1e-6)


def test_another_language_needs_known_symbols_and_labels(run: LoadedRun) -> None:
    parity = LANGUAGES["parity"]
    labels = {prefix: parity.label(prefix) for prefix in ("0110", "111")}
    assert {prefix: run.language.label(prefix) for prefix in labels} == labels  # type: ignore[union-attr]
    small = {"num_train": 30, "num_validation": 9, "num_bin0": 8, "num_bin1": 7}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in small.items():
            patch.setattr(type(parity), name, value)
        scores = evaluate_language(run, parity)
    assert {name: scores[name].num_sequences for name in scores} == {
        "validation": 9,
        "bin0": 8,
        "bin1": 7,
    }
    with pytest.raises(ValueError, match=r"^dyck_1 has the symbol '\(', which .*run does not know"):
        evaluate_language(run, LANGUAGES["dyck_1"])
    with pytest.raises(ValueError, match="unknown language 'paritty'; did you mean parity"):
        other_language(run, {"kind": "formal_language", "language": "paritty"})


def test_another_pattern_or_automaton_has_the_windows_and_sizes_of_the_run(
    run: LoadedRun, tmp_path: Path
) -> None:
    ones = other_language(run, {"kind": "regex", "pattern": ".*1"})
    assert (ones.symbols, ones.train_window, ones.num_bin0) == (("0", "1"), (1, 10), 12)
    assert {name: score.num_sequences for name, score in evaluate_language(run, ones).items()} == {
        "validation": 12,
        "bin0": 12,
        "bin1": 12,
    }
    assert horizon_of_run(run, [3], ones)["lengths"] == [3]
    with pytest.raises(ValueError, match=r"^regex '\(a1\)\*': .* symbol a \(symbols: 0 1\)$"):
        other_language(run, {"kind": "regex", "pattern": "(a1)*"})
    file = tmp_path / "automaton.yaml"
    file.write_text(AUTOMATON)
    assert other_language(run, {"kind": "dfa", "path": file}).label("110") == ["0", "1", "1"]
    file.write_text(AUTOMATON.replace("1", "a"))
    with pytest.raises(ValueError, match=r"automaton\.yaml has the symbol 'a', which .* 0 1\)$"):
        other_language(run, {"kind": "dfa", "path": file})


def test_files_of_the_user(run: LoadedRun, tmp_path: Path) -> None:
    strings = [tuple("0110"), tuple("1")]
    parity = LANGUAGES["parity"]
    write_pairs([parity.example(string) for string in strings], tmp_path / "mine")
    accuracy = evaluate_on(run, read_pairs(tmp_path / "mine", run.symbols, run.labels))
    assert accuracy.num_sequences == 2
    right = sum(p.label == p.expected for string in strings for p in predict(run, string))
    assert accuracy.token_accuracy == right / 5
    with pytest.raises(ValueError, match="at least one example"):
        evaluate_on(run, [])
    with pytest.raises(ValueError, match="unknown symbol 'x' at position 2"):
        evaluate_on(run, [Example(("0", "x"), ("0", "0"))])


def test_predict_says_what_the_model_chose_and_what_is_true(run: LoadedRun) -> None:
    found = predict(run, "0110")
    assert [(p.position, p.symbol, p.expected) for p in found] == [
        (1, "0", "1"),
        (2, "1", "0"),
        (3, "1", "1"),
        (4, "0", "1"),
    ]
    assert all(p.label in ("0", "1", None) and 1 / 3 <= p.probability <= 1 for p in found)
    for p, whole in zip(predict(run, "011"), found[:3], strict=True):
        # Matrix products over 3 and over 4 steps round differently.
        assert p.probability == pytest.approx(whole.probability, rel=1e-6)
        assert dataclasses.replace(p, probability=whole.probability) == whole
    with pytest.raises(ValueError, match=r"^the string is empty$"):
        predict(run, "")
    with pytest.raises(ValueError, match=r"^unknown symbol 'x' at position 3"):
        predict(run, "01x0")


def test_the_true_labels_end_where_no_word_goes_on() -> None:
    language = LANGUAGES["abab_star"]
    expected: Callable[[str], list[str]] = lambda text: evaluate._expected(language, text)  # noqa: E731
    assert expected("ababa") == ["0", "0", "0", "1", "0"]
    assert expected("abb") == ["0", "0"]
    assert expected("ba") == []
    assert evaluate._expected(None, "ab") == []


def test_a_choice_of_padding_has_no_label(run: LoadedRun) -> None:
    bias = run.model.output.bias.data  # type: ignore[union-attr]
    bias[len(run.labels)] = 100.0
    assert [p.label for p in predict(run, "01")] == [None, None]


def test_horizon_needs_a_language_and_lengths_that_exist(run: LoadedRun) -> None:
    with pytest.raises(ValueError, match="lengths must be >= 1, got 0"):
        horizon_of_run(run, [5, 0])
    with pytest.raises(ValueError, match="aa_star has the symbol 'a'"):
        horizon_of_run(run, [5], LANGUAGES["aa_star"])


def test_a_run_on_files(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    parity = LANGUAGES["parity"]
    strings = [tuple(f"{number:05b}") for number in range(12)]
    write_pairs([parity.example(string) for string in strings[:8]], data / "train")
    write_pairs([parity.example(string) for string in strings[8:]], data / "bin0")
    task = {"kind": "files", "folder": str(data)}
    config = parse_config({**TINY, "task": task, "horizon_lengths": []})
    result = train(config, tmp_path / "run", progress=False)
    run = load_run(tmp_path / "run", device="cpu")
    measured = {name: accuracy.as_dict() for name, accuracy in evaluate_run(run).items()}
    assert measured == result["splits"]
    assert [p.expected for p in predict(run, "010")] == [None] * 3
    with pytest.raises(ValueError, match="trained on files: no language is known"):
        horizon_of_run(run, [5])

    data.rename(tmp_path / "elsewhere")
    again = load_run(tmp_path / "run", device="cpu")
    assert (again.task, again.symbols, again.labels) == ("data", run.symbols, run.labels)
    assert predict(again, "010") == predict(run, "010")
    held_out = read_pairs(tmp_path / "elsewhere" / "bin0", again.symbols, again.labels)
    assert evaluate_on(again, held_out).as_dict() == result["splits"]["bin0"]
    with pytest.raises(ValueError, match=rf"^{re.escape(str(data))}: no such folder$"):
        evaluate_run(again)


def test_files_that_have_changed_are_refused_and_the_labels_stay(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    strings = [tuple(f"{number:05b}"[::-1]) for number in range(12)]
    examples = [LANGUAGES["parity"].example(string) for string in strings]
    write_pairs(examples[:8], data / "train")
    write_pairs(examples[8:], data / "bin0")
    task = {"kind": "files", "folder": str(data)}
    config = parse_config({**TINY, "task": task, "horizon_lengths": []})
    train(config, tmp_path / "run", progress=False)
    before = load_run(tmp_path / "run", device="cpu")
    labels = predict(before, "01101")

    # symbols and labels appear first in another order, and so would have other ids
    write_pairs(examples[7::-1], data / "train")
    assert load_run_task(config).symbols == before.symbols[::-1]
    run = load_run(tmp_path / "run", device="cpu")
    assert (run.symbols, predict(run, "01101")) == (before.symbols, labels)
    changed = f"{data}: the files have changed since the run {tmp_path / 'run'} began: "
    with pytest.raises(RunFolderError, match=rf"^{re.escape(changed)}train, validation$"):
        evaluate_run(run)
    write_pairs(examples[:8], data / "train")
    evaluate_run(run)
    write_pairs(examples[:3], data / "bin0")
    with pytest.raises(RunFolderError, match=rf"^{re.escape(changed)}bin0$"):
        evaluate_run(run)


def test_a_run_on_an_automaton_keeps_a_copy_of_it(tmp_path: Path) -> None:
    file = tmp_path / "machine.yaml"
    file.write_text(AUTOMATON)
    task = {**TINY["task"], "kind": "dfa", "path": str(file)}
    del task["pattern"]
    config = parse_config({**TINY, "task": task, "training": {"max_steps": 3}})
    result = train(config, tmp_path / "run", progress=False)
    file.unlink()
    run = load_run(tmp_path / "run", device="cpu")
    assert {name: score.as_dict() for name, score in evaluate_run(run).items()} == result["splits"]
    assert horizon_of_run(run, [10, 20]) == result["horizon"]
    assert [p.expected for p in predict(run, "011")] == ["1", "0", "1"]


def test_folders_that_are_no_runs(trained: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is not a run folder \(no config\.yaml\)"):
        load_run(tmp_path)
    config = (trained[0] / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(config)
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        load_run(tmp_path)
    (tmp_path / "config.yaml").write_text(config.replace("dim: 8", "dim: 16", 1))
    (tmp_path / "checkpoints").symlink_to(trained[0] / "checkpoints")
    with pytest.raises(RunFolderError, match=r"task\.json: cannot be read: No such file"):
        load_run(tmp_path)
    (tmp_path / "task.json").write_text('{"name": "x", "symbols": [0, 1], "labels": []}')
    with pytest.raises(RunFolderError, match=r"task\.json: damaged: symbols and labels must be"):
        load_run(tmp_path)
    (tmp_path / "task.json").write_text('{"name": "x"}')
    with pytest.raises(RunFolderError, match=r"task\.json: damaged: no name, symbols and labels"):
        load_run(tmp_path)
    (tmp_path / "task.json").write_text((trained[0] / "task.json").read_text())
    with pytest.raises(ValueError, match=r"the weights do not fit config\.yaml: .*size mismatch"):
        load_run(tmp_path)
    (tmp_path / "config.yaml").write_text("task: {kind: recall}")
    with pytest.raises(ValueError, match="holds a recall run: it knows no strings"):
        load_run(tmp_path)
    (tmp_path / "config.yaml").write_text("model: 3")
    with pytest.raises(ConfigError, match="model: must be key: value pairs, got 3"):
        load_run(tmp_path)
