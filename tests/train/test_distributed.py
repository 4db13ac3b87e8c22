"""Several gloo processes do what one does: losses, weights, checkpoints; they stop and go on."""

import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from fastweights.layers.moe import ROUTINGS
from fastweights.train import loop, processes
from fastweights.train.checkpoint import Checkpoint, Checkpoints
from fastweights.train.config import ConfigError, RunConfig, merge, parse_config, save_config
from fastweights.train.errors import OtherProcessError, RunFolderError, TrainingInterrupted
from fastweights.train.loop import train
from fastweights.train.optimizer import lr_at
from fastweights.worker import IMPORTED

COUNT = 2
STOPPED_AT = 5

TEXT: dict[str, Any] = {
    "task": {"kind": "text", "context_length": 8},
    "model": {"layer": "softmax_attention", "dim": 8, "num_layers": 2, "ff_dim": 8},
    "training": {
        "batch_size": 4,
        "max_steps": 20,
        "evaluate_every": 10,
        "checkpoint_every": 10,
        "lr": 1e-2,
        "clip_norm": 0.1,
        "weight_decay": 0.1,
    },
    "precision": "64-true",
    "device": "cpu",
    "num_threads": 1,
}
EXPERTS: dict[str, Any] = {
    "model": {
        "feed_forward": "moe",
        "ff_dim": None,
        "feed_forward_options": {"num_experts": 3, "expert_dim": 4, "top_k": 2, "router": "switch"},
    }
}
FSDP: dict[str, Any] = {"strategy": "fsdp"}
CARRIED: dict[str, Any] = {
    "task": {"carry_state": True},
    "model": {"layer_options": {"memory_length": 8}},
    "training": {"accumulate": 2},
}
TRANSFORMER_XL: dict[str, Any] = {
    "model": {"layer": "transformer_xl"},
    "training": {"accumulate": 2, "activation_checkpointing": True},
}
FORMAL: dict[str, Any] = {
    "task": {
        "kind": "regex",
        "pattern": "(b|ab*a)*",
        "train_window": [1, 10],
        "test_window": [11, 14],
        "num_train": 21,
        "num_validation": 6,
        "num_bin0": 6,
        "num_bin1": 6,
    },
    "model": {"layer": "softmax_attention", "dim": 8, "ff_dim": 8},
    "training": {"batch_size": 8, "max_steps": 20, "evaluate_every": 10, "clip_norm": 0.5},
    "precision": "64-true",
    "device": "cpu",
    "num_threads": 1,
    "horizon_lengths": [],
}


# --- what the processes do ------------------------------------------------------------------------


def as_torchrun(rank: int, count: int, port: int) -> dict[str, str]:
    """What torchrun tells a process."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "GROUP_RANK": "0",
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "test",
        "TORCHELASTIC_RESTART_COUNT": "0",
    }


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


def work(rank: int, port: int, jobs: list[Callable[..., None]], folder: Path) -> None:
    """One process: the jobs, one after the other."""
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    os.environ.update(as_torchrun(rank, COUNT, port))
    for job in jobs:
        job(folder=folder)


def together(jobs: list[Callable[..., None]], folder: Path) -> None:
    """The jobs in COUNT processes that know each other as those of torchrun do."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(IMPORTED))
    port = free_port()
    started = [
        context.Process(target=work, args=(rank, port, jobs, folder)) for rank in range(COUNT)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(240)
        process.kill()
    assert [process.exitcode for process in started] == [0] * COUNT


def write_corpus(folder: Path) -> None:
    text = "\n\n".join("abcd" * (5 + i) for i in range(30))
    (folder / "corpus.txt").write_text(text, encoding="utf-8")


def text_config(folder: Path, *overlays: dict[str, Any]) -> RunConfig:
    values = merge(TEXT, {"task": {"text": str(folder / "corpus.txt")}})
    for overlay in overlays:
        values = merge(values, overlay)
    return parse_config(values)


def trains(name: str, *overlays: dict[str, Any], folder: Path, resume: bool = False) -> None:
    train(text_config(folder, *overlays), folder / name, resume=resume, progress=False)


def uneven(folder: Path) -> None:
    train(parse_config(FORMAL), folder / "formal_2", progress=False)


def stops(name: str, *overlays: dict[str, Any], folder: Path) -> None:
    """One process alone gets the signal, in the step after STOPPED_AT."""

    def signal_at(step: int, *arguments: Any) -> float:
        if step == STOPPED_AT and processes.rank() == 1:
            signal.raise_signal(signal.SIGTERM)
        return lr_at(step, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "lr_at", signal_at)
        with pytest.raises(TrainingInterrupted):
            trains(name, *overlays, folder=folder)
    if processes.is_first():
        shutil.copytree(folder / name, folder / f"{name}_alone")


def refused(folder: Path) -> None:
    """In all processes, before there is a folder."""
    wrong = text_config(folder, {"training": {"batch_size": 5}})
    with pytest.raises(ConfigError, match="5 sequences at once, for 2 processes"):
        train(wrong, folder / "refused", progress=False)
    if processes.is_first():
        (folder / "in_use").mkdir()
        (folder / "in_use" / "thesis.tex").touch()
    with pytest.raises(RunFolderError if processes.is_first() else OtherProcessError):
        train(text_config(folder), folder / "in_use", progress=False)


def routed(folder: Path) -> None:
    """Every router on this process's tokens."""
    found = routings(processes.my_rows(logits()), dist.group.WORLD)
    torch.save(found, folder / str(processes.rank()))


def logits() -> torch.Tensor:
    return 3 * torch.randn(7, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def routings(x: torch.Tensor, group: Any) -> dict[str, tuple[torch.Tensor, ...]]:
    """Experts, gates, balance loss and its gradient, by router."""
    found: dict[str, tuple[torch.Tensor, ...]] = {}
    for name, routing in ROUTINGS.items():
        x = x.detach().requires_grad_()
        index, gate, loss = routing(x, 2, None, group)
        found[name] = (index, gate.detach(), loss.detach(), *torch.autograd.grad(loss, x))
    return found


# --- tests ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with what two processes did, and one process alone."""
    folder = tmp_path_factory.mktemp("runs")
    write_corpus(folder)
    together(
        [
            partial(trains, "ddp", EXPERTS, {"strategy": "ddp"}),
            partial(trains, "fsdp", EXPERTS, FSDP),
            partial(trains, "transformer_xl_fsdp", TRANSFORMER_XL, FSDP),
            partial(stops, "experts", EXPERTS, FSDP),
            partial(trains, "experts", EXPERTS, {"strategy": "ddp"}, resume=True),
            partial(stops, "lanes", CARRIED),
            partial(trains, "lanes", CARRIED, resume=True),
            uneven,
            refused,
            routed,
        ],
        folder,
    )
    train(text_config(folder, EXPERTS), folder / "one", progress=False)
    train(text_config(folder, TRANSFORMER_XL), folder / "transformer_xl", progress=False)
    train(text_config(folder, CARRIED), folder / "carried", progress=False)
    train(parse_config(FORMAL), folder / "formal_1", progress=False)
    return folder


def losses(run_folder: Path) -> list[float]:
    lines = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    return [line["nats_per_token"] for line in lines if "nats_per_token" in line]


def last(run_folder: Path) -> Checkpoint:
    return Checkpoints(run_folder).load("last")


def assert_same_training(got: Path, want: Path) -> None:
    """Losses, weights and optimizer, in float64."""
    torch.testing.assert_close(losses(got), losses(want), rtol=0, atol=1e-10)
    torch.testing.assert_close(last(got).model, last(want).model, rtol=0, atol=1e-9)
    a, b = (last(run).training_state["optimizer"] for run in (got, want))
    torch.testing.assert_close(a["state"], b["state"], rtol=0, atol=1e-9)
    assert a["param_groups"] == b["param_groups"]


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_train_as_one(runs: Path, strategy: str) -> None:
    assert_same_training(runs / strategy, runs / "one")
    results = [json.loads((runs / name / "result.json").read_text()) for name in (strategy, "one")]
    a, b = (result["splits"]["test"]["nats_per_token"] for result in results)
    assert a == pytest.approx(b, abs=1e-10)
    assert results[0]["num_parameters"] == results[1]["num_parameters"]
    assert results[0]["experts"] == results[1]["experts"]


def test_sharded_parts_of_a_batch_with_blocks_computed_twice(runs: Path) -> None:
    """Of the layer whose weights are the smallest: one number."""
    assert_same_training(runs / "transformer_xl_fsdp", runs / "transformer_xl")


def test_uneven_batches_count_every_token_once(runs: Path) -> None:
    assert_same_training(runs / "formal_2", runs / "formal_1")


@pytest.mark.parametrize(("name", "whole"), [("experts", "one"), ("lanes", "carried")])
def test_stopped_and_resumed(runs: Path, name: str, whole: str) -> None:
    """The second process alone had the signal; both stopped after the same step. One of the runs
    goes on with the other strategy, one has a state that is carried on."""
    assert_same_training(runs / name, runs / whole)
    environment = json.loads((runs / name / "environment.json").read_text())
    assert [entry["step"] for entry in environment["resumed"]] == [STOPPED_AT + 1]


def test_stopped_and_resumed_in_one_process(runs: Path) -> None:
    train(text_config(runs, CARRIED), runs / "lanes_alone", resume=True, progress=False)
    assert_same_training(runs / "lanes_alone", runs / "carried")


def test_what_does_not_fit_leaves_no_folder(runs: Path) -> None:
    assert not (runs / "refused").exists()


def test_experts_are_balanced_over_all_tokens(runs: Path) -> None:
    parts = [torch.load(runs / str(rank), weights_only=True) for rank in range(COUNT)]
    for name, (index, gate, loss, gradient) in routings(logits(), None).items():
        got = [part[name] for part in parts]
        assert torch.equal(torch.cat([x[0] for x in got]), index), name
        torch.testing.assert_close(torch.cat([x[1] for x in got]), gate)
        for part in got:
            torch.testing.assert_close(part[2], loss)
        # Every process has the gradient of the sum over the processes, of which DDP takes the mean.
        torch.testing.assert_close(torch.cat([x[3] for x in got]), COUNT * gradient)


def test_a_strategy_needs_torchrun(tmp_path: Path) -> None:
    config = parse_config(merge(FORMAL, {"strategy": "ddp"}))
    with pytest.raises(
        ConfigError, match="strategy: 'ddp' is for the processes of torchrun, as in"
    ):
        train(config, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


KILLED_ONCE = """
import os, signal, sys
from fastweights.cli import main
from fastweights.train import loop
from fastweights.train.optimizer import lr_at

def kill_at(step, *arguments):
    if step == 13 and (os.environ["RANK"], os.environ["TORCHELASTIC_RESTART_COUNT"]) == ("1", "0"):
        os.kill(os.getpid(), signal.SIGKILL)
    return lr_at(step, *arguments)

loop.lr_at = kill_at
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_killed_process_is_started_again_and_the_run_goes_on(tmp_path: Path) -> None:
    """With torchrun itself, from the last checkpoint, step 10."""
    write_corpus(tmp_path)
    (tmp_path / "killed_once.py").write_text(KILLED_ONCE)
    config = text_config(tmp_path, CARRIED)
    save_config(config, tmp_path / "config.yaml")
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    run += ["--max-restarts=1", "killed_once.py", "train", "config.yaml", "--out", "run"]
    environment = {**os.environ, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    done = subprocess.run(
        run, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("stopped because: max_steps") == 1, "the first process alone talks"
    train(config, tmp_path / "whole", progress=False)
    assert_same_training(tmp_path / "run", tmp_path / "whole")
    resumed = json.loads((tmp_path / "run" / "environment.json").read_text())["resumed"]
    assert [entry["step"] for entry in resumed] == [10]
