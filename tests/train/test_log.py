"""What a run writes about itself."""

import errno
import importlib.metadata
import json
import os
import re
import subprocess
import threading
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest
import torch

import fastweights
from fastweights.train.environment import commit_and_dirty, environment
from fastweights.train.errors import RunFolderError
from fastweights.train.log import Metrics, cut_after
from fastweights.train.process import full_disk_in_threads
from fastweights.train.progress import ProgressBar
from fastweights.train.protocol import Score


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def test_resumed_metrics_lose_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    with Metrics(tmp_path) as metrics:
        for step in (1, 2, 3):
            metrics.write(step=step, split="train", nats_per_token=0.5, wall_s=1.0)
            metrics.write(step=step, split="validation", nats_per_token=None)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "spl')
    with Metrics(tmp_path, resume_step=2) as metrics:
        metrics.write(step=3, split="train", nats_per_token=0.25, wall_s=2.0)
    assert [(line["step"], line["split"], line["nats_per_token"]) for line in lines(tmp_path)] == [
        (1, "train", 0.5),
        (1, "validation", None),
        (2, "train", 0.5),
        (2, "validation", None),
        (3, "train", 0.25),
    ]
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2


def test_a_bad_line_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\nnonsense\n{"step": 2}\n')
    with pytest.raises(RunFolderError, match=r"metrics\.jsonl: line 2: not a metrics line"):
        cut_after(path, 5)
    assert "nonsense" in path.read_text()


def test_metrics_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(RunFolderError, match="metrics cannot be written: Is a directory"):
        Metrics(tmp_path)


@pytest.mark.parametrize("first", ["_file", "_tensorboard"])
def test_a_full_disk_when_closing_is_one_line_and_both_are_closed(
    first: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = []

    def close(name: str) -> None:
        closed.append(name)
        if name == first:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    metrics = Metrics(tmp_path)
    metrics.close()
    metrics.close()
    for name in ("_file", "_tensorboard"):
        monkeypatch.setattr(metrics, name, SimpleNamespace(close=partial(close, name)))
    line = rf"^{re.escape(str(tmp_path))}: metrics cannot be written: No space left on device$"
    with pytest.raises(RunFolderError, match=line), metrics:
        pass
    assert closed == ["_file", "_tensorboard"]
    with pytest.raises(KeyError, match="the first error"), metrics:
        raise KeyError("the first error")


def test_a_full_disk_when_flushing_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: int) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Metrics(tmp_path) as metrics:
        monkeypatch.setattr("fastweights.train.log.os.fsync", refuse)
        with pytest.raises(RunFolderError, match="metrics cannot be written: No space left"):
            metrics.sync()


def test_a_full_disk_in_a_thread_prints_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[type[BaseException]] = []
    monkeypatch.setattr(threading, "excepthook", lambda what: told.append(what.exc_type))

    def fail(error: Exception) -> None:
        raise error

    def fail_in_a_thread() -> None:
        for error in (OSError(errno.ENOSPC, "No space left on device"), ValueError("a bug")):
            thread = threading.Thread(target=fail, args=(error,))
            thread.start()
            thread.join()

    with full_disk_in_threads():
        fail_in_a_thread()
    assert told == [ValueError]
    fail_in_a_thread()
    assert told == [ValueError, OSError, ValueError]


def test_the_environment_says_where_and_with_what() -> None:
    found = environment(torch.device("cpu"), num_threads=1)
    assert found["versions"]["torch"] == importlib.metadata.version("torch")
    assert (found["device"], found["num_threads"]) == ("cpu", 1)
    assert found["started_at"].endswith("+00:00")


def test_the_commit_and_whether_it_was_dirty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*arguments: str) -> None:
        who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        subprocess.run(["git", "-C", str(tmp_path), *who, *arguments], check=True)

    package = tmp_path / "fastweights" / "__init__.py"
    package.parent.mkdir()
    package.write_text("")
    monkeypatch.setattr(fastweights, "__file__", str(package))
    monkeypatch.chdir(tmp_path)
    assert commit_and_dirty() == (None, None)
    git("init", "--quiet")
    assert commit_and_dirty() == (None, None)
    git("add", ".")
    git("commit", "--quiet", "-m", "first")
    commit, dirty = commit_and_dirty()
    assert commit is not None
    assert (len(commit), dirty) == (40, False)
    package.write_text("changed")
    assert commit_and_dirty() == (commit, True)


def test_no_terminal_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    bar = ProgressBar(100, 0, "nats_per_token", shown=True)
    bar.step(10, 0.5, 12345.6)
    bar.evaluated(20, "validation", Score(0.875, 0.1))
    bar.close()
    assert capsys.readouterr().err == (
        "step 20/100  nats per token 0.5000  validation 87.5 %  12,346 tokens/s\n"
    )


def test_progress_can_be_switched_off(capsys: pytest.CaptureFixture[str]) -> None:
    bar = ProgressBar(100, 0, "nats_per_token", shown=False)
    bar.evaluated(20, "validation", Score(0.875, 0.1))
    bar.close()
    captured = capsys.readouterr()
    assert captured.err + captured.out == ""


def test_a_bar_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    bar = ProgressBar(100, 40, "nats_per_token", shown=True)
    bar.step(50, 0.5, 1000.0)
    bar.evaluated(50, "validation", Score(0.875, 0.1))
    bar.close()
    shown = capsys.readouterr().err
    assert "50/100" in shown
    assert "validation 87.5 %" in shown
