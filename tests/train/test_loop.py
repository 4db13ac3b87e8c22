"""Runs of seconds: what they leave, how they stop, and that going on changes nothing."""

import errno
import json
import math
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
import torch
import torch.nn.functional as F

from fastweights.atomic import TEMPORARY_SUFFIX
from fastweights.train import formal, loop
from fastweights.train.checkpoint import Checkpoints
from fastweights.train.config import ConfigError, RunConfig, TrainingConfig, load_config
from fastweights.train.errors import (
    CheckpointError,
    NonFiniteLossError,
    RunFolderError,
    TrainingInterrupted,
)
from fastweights.train.lock import LOCK_FILE, locked_folder
from fastweights.train.loop import train
from fastweights.train.optimizer import lr_at
from fastweights.train.process import cpu_threads
from fastweights.train.run_model import spelled_out
from fastweights.train.task_file import read_task
from tests.train.interrupt import at_step, send

Make = Callable[..., RunConfig]
LSTM = {"layer": "lstm"}
TIMES = ("wall_s", "cpu_s", "tokens_per_s")


def metrics(run_folder: Path) -> list[dict[str, Any]]:
    """The lines without their times."""
    lines = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines]


def without_times(result: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in result.items() if key not in TIMES}


def test_a_run_leaves_a_folder_that_describes_itself(make_config: Make, tmp_path: Path) -> None:
    run = tmp_path / "a" / "run"
    config = make_config()
    result = train(config, run, progress=False)
    assert {path.name for path in run.iterdir()} - {LOCK_FILE} == {
        "config.yaml",
        "task.json",
        "environment.json",
        "metrics.jsonl",
        "tensorboard",
        "checkpoints",
        "result.json",
    }
    assert load_config(run / "config.yaml") == spelled_out(config)
    assert json.loads((run / "task.json").read_text()) == {
        "name": "regex '(b|ab*a)*'",
        "symbols": ["a", "b"],
        "labels": ["0", "1"],
    }
    assert json.loads((run / "result.json").read_text()) == result
    assert (result["status"], result["stopped_because"], result["steps"]) == (
        "done",
        "max_steps",
        24,
    )
    assert (result["protocol"], result["selection"]) == ("strict", "validation")
    assert list(result["splits"]) == ["validation", "bin0", "bin1"]
    assert result["horizon"]["lengths"] == [10, 20]
    lines = metrics(run)
    assert [(line["step"], line["split"]) for line in lines] == [
        (6, "validation"),
        (10, "train"),
        (12, "validation"),
        (18, "validation"),
        (20, "train"),
        (24, "validation"),
    ]  # strict: no bin is looked at during training
    validation = [line for line in lines if line["split"] == "validation"]
    best = max(validation, key=lambda line: (line["sequence_accuracy"], -line["nats_per_token"]))
    assert result["selected_step"] == best["step"]
    for key in ("sequence_accuracy", "token_accuracy", "nats_per_token"):
        assert result["splits"]["validation"][key] == pytest.approx(best[key], rel=1e-6)
    state = run / "checkpoints" / "step_00000024" / "training_state.pt"
    assert torch.load(state, weights_only=True)["run"]["step"] == 24


def test_it_learns(make_config: Make, tmp_path: Path) -> None:
    training = {"max_steps": 100, "evaluate_every": 100, "lr": 0.03, "batch_size": 40}
    train(
        make_config(model={"layer": "lstm", "dim": 16}, training=training), tmp_path, progress=False
    )
    nats = [line["nats_per_token"] for line in metrics(tmp_path) if line["split"] == "train"]
    assert nats[-1] < 0.3 * nats[0]


@pytest.mark.parametrize(
    ("overrides", "step"),
    [
        ({"model": {"dropout": 0.2}}, 13),  # between two evaluations, within a window of the log
        ({"model": LSTM}, 11),  # at an evaluation
        ({"protocol": "published", "training": {"clip_norm": 1.0, "warmup_steps": 20}}, 7),
    ],
)
def test_interrupted_and_resumed_equals_uninterrupted(
    make_config: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    overrides: dict[str, Any],
    step: int,
) -> None:
    config = make_config(**overrides)
    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    result = train(config, whole, progress=False)
    with monkeypatch.context() as patch:
        at_step(patch, step, send(signal.SIGINT))
        with pytest.raises(TrainingInterrupted) as caught:
            train(config, pieces, progress=False)
    assert str(caught.value) == (
        f"stopped at step {step + 1}; to go on: fastweights train --resume {pieces}"
    )
    assert not (pieces / "result.json").exists()
    assert not (pieces / "failure.json").exists()
    assert Checkpoints(pieces).load("last").step == step + 1
    torch.manual_seed(99)  # a resumed run does not depend on what the process drew before
    resumed = train(config, pieces, resume=True, progress=False)
    assert without_times(resumed) == without_times(result)
    assert metrics(pieces) == metrics(whole)
    for which in ("last", "best"):
        a, b = Checkpoints(whole).load(which), Checkpoints(pieces).load(which)  # type: ignore[arg-type]
        assert a.step == b.step
        torch.testing.assert_close(a.model, b.model, rtol=0, atol=0)
        for checkpoint in (a, b):
            for name in ("wall_s", "cpu_s"):
                checkpoint.training_state["run"].pop(name)
        assert a.training_state["run"] == b.training_state["run"]
        for part in ("state", "param_groups"):
            torch.testing.assert_close(
                a.training_state["optimizer"][part],
                b.training_state["optimizer"][part],
                rtol=0,
                atol=0,
            )
    environment = json.loads((pieces / "environment.json").read_text())
    assert [entry["step"] for entry in environment["resumed"]] == [step + 1]


def test_killed_between_two_checkpoints(
    make_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a power cut: the run goes on from the last checkpoint, not from the last step."""
    config = make_config()
    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    result = train(config, whole, progress=False)

    class Killed(BaseException):
        pass

    def kill() -> NoReturn:
        raise Killed

    with monkeypatch.context() as patch:
        at_step(patch, 14, kill)
        with pytest.raises(Killed):
            train(config, pieces, progress=False)
    with (pieces / "metrics.jsonl").open("a") as file:
        file.write('{"step": 14, "split": "train", "nats')
    assert Checkpoints(pieces).load("last").step in (10, 12)
    assert without_times(train(config, pieces, resume=True, progress=False)) == without_times(
        result
    )
    assert metrics(pieces) == metrics(whole)


def test_killed_before_the_first_checkpoint(
    make_config: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def kill() -> NoReturn:
        raise GeneratorExit

    with monkeypatch.context() as patch:
        at_step(patch, 3, kill)
        with pytest.raises(GeneratorExit):
            train(make_config(), tmp_path / "run", progress=False)
    train(make_config(), tmp_path / "run", resume=True, progress=False)
    assert "no checkpoint yet, starting at step 0" in capsys.readouterr().err


def test_interrupted_in_the_final_evaluation(
    make_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config()
    with monkeypatch.context() as patch:
        patch.setattr(formal, "horizon", lambda *_, **__: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(TrainingInterrupted, match="stopped at step 24; to go on"):
            train(config, tmp_path, progress=False)
    assert not (tmp_path / "result.json").exists()
    lines = metrics(tmp_path)
    assert train(config, tmp_path, resume=True, progress=False)["steps"] == 24
    assert metrics(tmp_path) == lines


def test_a_second_interrupt_does_not_wait(
    make_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def twice() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    at_step(monkeypatch, 13, twice)
    with pytest.raises(TrainingInterrupted):
        train(make_config(), tmp_path, progress=False)
    assert Checkpoints(tmp_path).load("last").step in (10, 12)


def test_signal_handlers_and_generators_are_put_back(make_config: Make, tmp_path: Path) -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    train(make_config(model={"dropout": 0.5}), tmp_path, progress=False)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert torch.equal(torch.get_rng_state(), before)
    with cpu_threads(threads + 1):
        assert torch.get_num_threads() == threads + 1
    assert torch.get_num_threads() == threads


def test_it_runs_outside_the_main_thread(make_config: Make, tmp_path: Path) -> None:
    results = []
    thread = threading.Thread(
        target=lambda: results.append(train(make_config(), tmp_path, progress=False))
    )
    thread.start()
    thread.join()
    assert results[0]["status"] == "done"


def test_published_selects_on_the_test_bins_and_says_so(make_config: Make, tmp_path: Path) -> None:
    config = make_config(protocol="published", training={"max_epochs": 2})
    result = train(config, tmp_path, progress=False)
    assert (result["selection"], result["stopped_because"], result["steps"]) == (
        "bin0+bin1",
        "max_epochs",
        10,
    )
    evaluated = [(line["step"], line["split"]) for line in metrics(tmp_path)]
    assert evaluated == [
        (5, "bin0"),
        (5, "bin1"),
        (6, "bin0"),
        (6, "bin1"),
        (10, "train"),
        (10, "bin0"),
        (10, "bin1"),
    ]


def test_the_stop_rule_stops(make_config: Make, tmp_path: Path) -> None:
    config = make_config(training={"lr": 1e-30, "patience": 2})
    result = train(config, tmp_path, progress=False)
    assert result["steps"] == 18  # evaluations at 6, 12 and 18
    assert result["stopped_because"] == "2 evaluations without improvement"


def test_double_precision(make_config: Make, tmp_path: Path) -> None:
    train(make_config(precision="64-true"), tmp_path, progress=False)
    weights = Checkpoints(tmp_path).load("best").model
    assert {weight.dtype for weight in weights.values()} == {torch.float64}


# --- what must end in one line -------------------------------------------------------------------


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_folder_in_use_is_not_touched(make_config: Make, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(RunFolderError, match="is not empty; resume the run or name another"):
        train(make_config(), tmp_path, progress=False)
    assert contents(tmp_path) == {"thesis.tex": b"mine"}


@pytest.mark.skipif(os.name != "posix", reason="flock")
def test_one_process_at_a_time_in_a_folder(
    make_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config()
    with monkeypatch.context() as patch:
        at_step(patch, 7, send(signal.SIGINT))
        with pytest.raises(TrainingInterrupted):
            train(config, tmp_path, progress=False)
    before = contents(tmp_path)
    with locked_folder(tmp_path, "training"), pytest.raises(RunFolderError) as refused:
        train(config, tmp_path, resume=True, progress=False)
    assert str(refused.value) == f"{tmp_path}: another fastweights training is running here"
    assert contents(tmp_path) == before
    assert train(config, tmp_path, resume=True, progress=False)["steps"] == 24


def test_what_a_kill_at_the_very_start_leaves_is_in_nobodys_way(
    make_config: Make, tmp_path: Path
) -> None:
    (tmp_path / LOCK_FILE).touch()
    (tmp_path / f".config.yaml.k3v9{TEMPORARY_SUFFIX}").write_text("seed:")
    assert train(make_config(), tmp_path, progress=False)["steps"] == 24


def test_nothing_to_resume(make_config: Make, tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"no run to resume \(no config.yaml\)"):
        train(make_config(), tmp_path / "none", resume=True, progress=False)
    assert not (tmp_path / "none").exists()


def test_a_finished_run_returns_its_result(make_config: Make, tmp_path: Path) -> None:
    result = train(make_config(), tmp_path, progress=False)
    before = contents(tmp_path)
    assert train(make_config(), tmp_path, resume=True, progress=False) == result
    with pytest.raises(CheckpointError, match=r"training\.lr is 0.001 there, 0.02 was asked for"):
        train(make_config(training={"lr": 0.02}), tmp_path, resume=True, progress=False)
    assert contents(tmp_path) == before


def test_a_run_from_before_a_field_goes_on(
    make_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its configuration does not say is the default, which is what it was trained with."""
    newer = ("feed_forward", "feed_forward_options", "final_norm")
    dump = RunConfig.model_dump

    def older(self: RunConfig, **settings: Any) -> dict[str, Any]:
        values = dump(self, **settings)
        values["model"] = {k: v for k, v in values["model"].items() if k not in newer}
        return values

    with monkeypatch.context() as patch:
        patch.setattr(RunConfig, "model_dump", older)
        at_step(patch, 7, send(signal.SIGTERM))
        with pytest.raises(TrainingInterrupted):
            train(make_config(), tmp_path, progress=False)
    assert "feed_forward" not in (tmp_path / "config.yaml").read_text()
    assert train(make_config(), tmp_path, resume=True, progress=False)["steps"] == 24
    assert "feed_forward: dense" in (tmp_path / "config.yaml").read_text()


def test_another_configuration_is_refused(
    make_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        at_step(patch, 7, send(signal.SIGTERM))
        with pytest.raises(TrainingInterrupted):
            train(make_config(), tmp_path, progress=False)
    before = contents(tmp_path)
    with pytest.raises(CheckpointError) as caught:
        train(make_config(seed=2), tmp_path, resume=True, progress=False)
    assert str(caught.value) == (
        f"{tmp_path / 'checkpoints' / 'step_00000008'}: belongs to another configuration: "
        "seed is 1 there, 2 was asked for"
    )
    assert contents(tmp_path) == before
    assert (
        train(make_config(num_threads=None), tmp_path, resume=True, progress=False)["steps"] == 24
    )


def test_a_truncated_checkpoint_is_no_new_start(
    make_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        at_step(patch, 7, send(signal.SIGINT))
        with pytest.raises(TrainingInterrupted):
            train(make_config(), tmp_path, progress=False)
    path = tmp_path / "checkpoints" / "step_00000008" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    before = contents(tmp_path)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: damaged: checksum"):
        train(make_config(), tmp_path, resume=True, progress=False)
    assert contents(tmp_path) == before
    (tmp_path / "checkpoints" / "index.json").unlink()
    with pytest.raises(CheckpointError, match=r"index\.json: missing beside its checkpoints"):
        train(make_config(), tmp_path, resume=True, progress=False)


def test_changed_data_are_noticed(
    make_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, run = tmp_path / "data", tmp_path / "run"
    data.mkdir()
    (data / "train.src").write_text("ab\nba\nb\naa\n")
    (data / "train.tgt").write_text("01\n10\n1\n00\n")
    config = make_config(task={"kind": "files", "folder": str(data)})
    with monkeypatch.context() as patch:
        at_step(patch, 7, send(signal.SIGINT))
        with pytest.raises(TrainingInterrupted):
            train(config, run, progress=False)
    names = read_task(run)
    (run / "task.json").unlink()
    (data / "train.tgt").write_text("00\n10\n1\n00\n")
    with pytest.raises(CheckpointError, match="the training data have changed since step 8"):
        train(config, run, resume=True, progress=False)
    assert read_task(run) == names, "written again, as it was missing"
    (data / "train.src").write_text("bc\ncb\nc\nbb\n")  # the same ids
    (data / "train.tgt").write_text("01\n10\n1\n00\n")
    with pytest.raises(RunFolderError, match=r"task\.json: the symbols are a b there, .* b c$"):
        train(config, run, resume=True, progress=False)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite(
    make_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: float
) -> None:
    calls = []

    def cross_entropy(*arguments: Any, **options: Any) -> torch.Tensor:
        calls.append(0)
        loss = F.cross_entropy(*arguments, **options)
        return loss * bad if len(calls) == 9 else loss

    monkeypatch.setattr(formal, "F", SimpleNamespace(cross_entropy=cross_entropy))
    with pytest.raises(NonFiniteLossError) as caught:
        train(make_config(), tmp_path, progress=False)
    message = f"the loss is {bad} at step 9; the last good checkpoint is step_00000006"
    assert str(caught.value) == message
    assert json.loads((tmp_path / "failure.json").read_text()) == {"error": message}
    assert not (tmp_path / "result.json").exists()
    weights = Checkpoints(tmp_path).load("last").model
    assert all(bool(weight.isfinite().all()) for weight in weights.values())


def test_a_gradient_that_is_not_finite(
    make_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def cross_entropy(logits: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        calls.append(0)
        nothing = (logits - logits.detach()).sum()
        root = nothing.sqrt() if len(calls) == 9 else nothing  # 0, of infinite gradient
        return F.cross_entropy(logits, *arguments, **options) + root

    monkeypatch.setattr(formal, "F", SimpleNamespace(cross_entropy=cross_entropy))
    clipped = make_config(training={"clip_norm": 1.0})
    with pytest.raises(NonFiniteLossError, match=r"^the gradient is not finite at step 9, loss \d"):
        train(clipped, tmp_path / "run", progress=False)
    assert Checkpoints(tmp_path / "run").load("last").step == 6

    def out_of_memory(*_: object, **__: object) -> NoReturn:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", out_of_memory)
    with pytest.raises(RuntimeError, match=r"^out of memory$"):
        train(clipped, tmp_path / "other", progress=False)


def test_weights_that_are_not_finite_are_never_saved(
    make_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def infinite_at_9(at: int, training: TrainingConfig) -> float:
        return math.inf if at == 9 else lr_at(at, training)

    monkeypatch.setattr(loop, "lr_at", infinite_at_9)
    with pytest.raises(NonFiniteLossError, match="the weights are not finite after step 10; the"):
        train(make_config(), tmp_path, progress=False)
    assert Checkpoints(tmp_path).load("last").step < 10


def test_a_full_disk(make_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Checkpoints.save

    def save(self: Checkpoints, step: int, *arguments: Any, **options: Any) -> None:
        if step >= 10:

            def refuse(*_: object) -> NoReturn:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            monkeypatch.setattr("fastweights.train.checkpoint._write_file", refuse)
        real(self, step, *arguments, **options)

    monkeypatch.setattr(Checkpoints, "save", save)
    with pytest.raises(CheckpointError, match="No space left on device; step_00000006 is intact"):
        train(make_config(), tmp_path, progress=False)
    assert "No space left" in json.loads((tmp_path / "failure.json").read_text())["error"]
    monkeypatch.undo()
    result = train(make_config(), tmp_path, resume=True, progress=False)  # with space again
    assert result["steps"] == 24
    assert not (tmp_path / "failure.json").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"model": {"layer": "delta_nett"}}, "unknown layer 'delta_nett'; did you mean delta_net"),
        ({"task": {"kind": "formal_language", "language": "party"}}, "did you mean parity"),
        ({"device": "cuda"}, "device: 'cuda' was asked for, but there is no CUDA device here"),
    ],
)
def test_wrong_names_leave_no_folder(
    make_config: Make,
    tmp_path: Path,
    overrides: dict[str, Any],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=message):
        train(make_config(**overrides), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_a_protocol_without_its_split(make_config: Make, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "train.src").write_text("ab\nba\nb\n")
    (data / "train.tgt").write_text("01\n10\n1\n")
    config = make_config(task={"kind": "files", "folder": str(data)}, protocol="published")
    with pytest.raises(ConfigError, match="no bin0 split, which protocol 'published' needs"):
        train(config, tmp_path / "run", progress=False)
    config = make_config(task={"kind": "files", "folder": str(data)})
    result = train(config, tmp_path / "run", progress=False)
    assert list(result["splits"]) == ["validation"]
    assert result["horizon"] is None
