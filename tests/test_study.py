"""The grid over processes, with workers of a few milliseconds that do as a file tells them."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from rich.console import Console

from fastweights import study, worker
from fastweights.atomic import TEMPORARY_SUFFIX
from fastweights.cli.study_progress import Bars, Lines
from fastweights.experiments import EXPERIMENTS
from fastweights.experiments.experiment import Cell
from fastweights.study import Watcher, last_metrics, plan_study, run_study
from fastweights.train.config import ConfigError
from fastweights.train.errors import RunFolderError
from fastweights.train.lock import locked_folder
from fastweights.worker import Job

# What each seed's worker does is in behaviour.json beside the study; its calls are counted.
WORKER = """
import json, os, pathlib, signal, sys
folder = pathlib.Path(sys.argv[1])
root = folder.parents[3]
do = json.loads((root / "behaviour.json").read_text())[folder.name]
with open(root / "calls.txt", "a") as calls:
    calls.write(f"{folder.name} {os.environ['OMP_NUM_THREADS']}\\n")
(folder / "failure.json").unlink(missing_ok=True)
print("hello from", folder.name, flush=True)
if do == "done":
    scores = {"sequence_accuracy": 0.5}
    result = {"status": "done", "steps": 7, "wall_s": 1.5, "splits": {"bin1": scores}}
    (folder / "result.json").write_text(json.dumps(result))
elif do == "failure":
    (folder / "failure.json").write_text(json.dumps({"error": "the loss is nan at step 3"}))
    sys.exit(1)
elif do == "crash":
    sys.exit("fastweights: error: unknown layer 'lstn'")
elif do == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
elif do == "wait":
    (folder / "waiting").touch()
    sys.stdin.buffer.read()
    (folder / "stopped").touch()
    sys.exit(130)
elif do == "deaf":
    (folder / "waiting").touch()
    signal.pause()
"""
pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder around the study folder, with the worker's script."""
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    monkeypatch.setattr(worker, "COMMAND", (str(script),))
    monkeypatch.setattr(study, "POLL_S", 0.01)
    return tmp_path


def cells(seeds: Sequence[int], **overrides: Any) -> list[Cell]:
    return EXPERIMENTS["demo"].cells(models=["delta_net"], seeds=seeds, overrides=overrides)


def behave(root: Path, *behaviours: str) -> list[Cell]:
    """Seed n does the n-th thing."""
    seeds = range(1, len(behaviours) + 1)
    plan = {f"seed_{seed}": do for seed, do in zip(seeds, behaviours, strict=True)}
    (root / "behaviour.json").write_text(json.dumps(plan))
    return cells(list(seeds))


def call(root: Path, wanted: Sequence[Cell], **settings: Any) -> list[Job]:
    jobs = plan_study(wanted, root / "study")
    run_study(jobs, root / "study", workers=2, **settings)
    return jobs


def calls(root: Path) -> list[str]:
    return sorted(line.split()[0] for line in (root / "calls.txt").read_text().splitlines())


class AtWait(Watcher):
    """Does something once, when as many workers wait as there are."""

    def __init__(self, count: int, do: Callable[[], None]) -> None:
        self.count, self.do, self.folders = count, do, list[Path]()

    def started(self, job: Job) -> None:
        self.folders.append(job.folder)

    def waiting(self) -> None:
        if sum((folder / "waiting").exists() for folder in self.folders) == self.count:
            self.count = -1
            self.do()


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def test_one_that_ends_badly_loses_no_other(root: Path) -> None:
    jobs = call(root, behave(root, "kill", "done", "failure", "crash", "done"))
    assert [job.status for job in jobs] == ["failed", "done", "failed", "failed", "done"]
    assert [job.error for job in jobs] == [
        "killed by SIGKILL; the same command goes on",
        None,
        "the loss is nan at step 3",
        "unknown layer 'lstn'",
        None,
    ]
    # a crash says why in the run folder, too; a killed run is no failure but can go on
    assert json.loads((jobs[3].folder / "failure.json").read_text())["error"] == jobs[3].error
    assert not (jobs[0].folder / "failure.json").exists()
    assert (jobs[1].folder / "log.txt").read_text() == "hello from seed_2\n"


def test_a_second_call_skips_what_is_done_and_what_failed(root: Path) -> None:
    call(root, behave(root, "kill", "done", "failure", "crash"))
    first = calls(root)
    behave(root, "done", "done", "done", "done")
    jobs = call(root, cells([1, 2, 3, 4]))
    assert [job.status for job in jobs] == ["done", "done", "failed", "failed"]
    assert [job.error for job in jobs[2:]] == ["the loss is nan at step 3", "unknown layer 'lstn'"]
    assert calls(root) == sorted([*first, "seed_1"])
    jobs = call(root, cells([1, 2, 3, 4]), retry_failed=True)
    assert {job.status for job in jobs} == {"done"}
    assert calls(root) == sorted([*first, "seed_1", "seed_3", "seed_4"])


def test_each_worker_has_one_thread_unless_configured(root: Path) -> None:
    behave(root, "done", "done")
    call(root, cells([1]))
    call(root, cells([2], num_threads=3))
    assert (root / "calls.txt").read_text().splitlines() == ["seed_1 1", "seed_2 3"]
    config = (root / "study/parity/delta_net/seed_1/config.yaml").read_text()
    assert "num_threads: 1\n" in config
    assert "num_heads: 4\n" in config, "the layer's defaults are spelled out"


def test_another_configuration_is_refused_and_nothing_is_written(root: Path) -> None:
    call(root, behave(root, "done", "kill"))

    def contents() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}

    before = contents()
    with pytest.raises(ConfigError) as caught:
        plan_study(cells([1, 2], training={"lr": 0.5}), root / "study")
    assert caught.value.lines == [
        f"{root}/study/parity/delta_net/seed_{seed}: holds a run with training.lr 0.003, 0.5 is "
        "asked for; remove it or name another folder"
        for seed in (1, 2)
    ]
    with pytest.raises(ConfigError, match=r"model\.layer_options\.num_heads 4, 2 is asked for"):
        plan_study(cells([1], model={"layer_options": {"num_heads": 2}}), root / "study")
    assert contents() == before
    plan_study(cells([1, 2], num_threads=2, device="cpu"), root / "study")  # where, not what


def test_mistakes_are_found_before_anything_is_written(root: Path) -> None:
    with pytest.raises(ValueError, match=r"max_write_strengh.*did you mean max_write_strength"):
        plan_study(cells([1], model={"layer_options": {"max_write_strengh": 2}}), root / "study")
    with pytest.raises(ValueError, match="parity/delta_net/seed_1 is asked for twice"):
        plan_study(cells([1, 1]), root / "study")
    assert not (root / "study").exists()
    with pytest.raises(ValueError, match="workers must be >= 1, got 0"):
        run_study(plan_study(cells([1]), root / "study"), root / "study", workers=0)
    stray = root / "study/parity/delta_net/seed_1/thesis.tex"
    stray.parent.mkdir(parents=True)
    stray.touch()
    with pytest.raises(RunFolderError, match="seed_1: is in the way: no run folder"):
        plan_study(cells([1]), root / "study")
    with pytest.raises(RunFolderError, match=r"worker\.py: is not a folder"):
        plan_study(cells([1]), root / "worker.py")
    (root / "config.yaml").touch()
    with pytest.raises(RunFolderError, match="holds a run; name another folder for the study"):
        plan_study(cells([1]), root)


def test_what_a_killed_worker_leaves_is_not_in_the_way(root: Path) -> None:
    wanted = behave(root, "done")
    folder = root / "study/parity/delta_net/seed_1"
    folder.mkdir(parents=True)
    (folder / f".config.yaml.k3v9{TEMPORARY_SUFFIX}").write_text("task:")
    assert [job.status for job in call(root, wanted)] == ["done"]


def test_a_run_that_another_process_still_holds_is_not_marked_as_failed(root: Path) -> None:
    wanted = behave(root, "crash")
    with locked_folder(root / "study/parity/delta_net/seed_1", "training"):
        (job,) = call(root, wanted)
    assert (job.status, (job.folder / "failure.json").exists()) == ("failed", False)
    assert plan_study(wanted, root / "study")[0].status == "stopped"


def test_the_last_words_are_told_where_they_cannot_be_written(root: Path) -> None:
    wanted = behave(root, "crash")
    jobs = plan_study(wanted, root / "study")
    (jobs[0].folder / "failure.json" / "x").mkdir(parents=True)
    script = root / "worker.py"
    script.write_text(
        script.read_text().replace('(folder / "failure.json").unlink(missing_ok=True)', "")
    )
    run_study(jobs, root / "study")
    assert (jobs[0].status, jobs[0].error) == ("failed", "unknown layer 'lstn'")


def test_a_worker_that_cannot_start_loses_no_other(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = worker._context()

    def refuse_the_first(*, target: Any, args: tuple[Any, ...]) -> Any:
        if args[0][-1].endswith("seed_1"):
            raise OSError(12, "Cannot allocate memory")
        return context.Process(target=target, args=args)

    monkeypatch.setattr(worker, "_context", lambda: SimpleNamespace(Process=refuse_the_first))
    jobs = call(root, behave(root, "done", "done"))
    assert [job.status for job in jobs] == ["failed", "done"]
    assert jobs[0].error == "cannot be started: Cannot allocate memory"


def test_ctrl_c_stops_the_workers_and_leaves_the_rest(root: Path) -> None:
    jobs = plan_study(behave(root, "wait", "wait", "done"), root / "study")
    with pytest.raises(KeyboardInterrupt):
        run_study(jobs, root / "study", workers=2, watcher=AtWait(2, interrupt))
    assert [job.status for job in jobs] == ["stopped", "stopped", "new"]
    assert all((job.folder / "stopped").exists() for job in jobs[:2])
    behave(root, "done", "done", "done")
    assert {job.status for job in call(root, cells([1, 2, 3]))} == {"done"}


def test_sigterm_is_ctrl_c_and_handlers_come_back(root: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    jobs = plan_study(behave(root, "wait"), root / "study")
    with pytest.raises(KeyboardInterrupt):
        terminate = AtWait(1, lambda: signal.raise_signal(signal.SIGTERM))
        run_study(jobs, root / "study", watcher=terminate)
    assert jobs[0].status == "stopped"
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_second_ctrl_c_kills(root: Path) -> None:
    class Twice(AtWait):
        def stopping(self, running: Sequence[Job]) -> None:
            main = threading.get_ident()
            threading.Timer(0.2, signal.pthread_kill, (main, signal.SIGINT)).start()

    jobs = plan_study(behave(root, "deaf"), root / "study")
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_study(jobs, root / "study", watcher=Twice(1, interrupt))
    assert jobs[0].status == "stopped"
    assert time.monotonic() - began < study.STOP_WITHIN_S / 2


def test_workers_end_when_the_study_is_killed(root: Path) -> None:
    behave(root, "wait")
    code = f"""
from pathlib import Path
from fastweights import study, worker
from tests.test_study import cells
worker.COMMAND = {worker.COMMAND!r}
root = Path({str(root)!r})
job = worker.Job(cells([1])[0], root / "study/parity/delta_net/seed_1", "new")
study.run_study([job], root / "study")
"""
    folder = root / "study/parity/delta_net/seed_1"
    killed = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parent.parent)
    try:
        wait_for(folder / "waiting")
    finally:
        killed.kill()
        killed.wait()
    wait_for(folder / "stopped")


def wait_for(path: Path, within_s: float = 120) -> None:
    deadline = time.monotonic() + within_s
    while not path.exists():
        assert time.monotonic() < deadline, f"no {path.name}"
        time.sleep(0.02)


def test_no_more_workers_than_asked_for(root: Path) -> None:
    class Count(Watcher):
        now = most = 0

        def started(self, job: Job) -> None:
            self.now += 1
            self.most = max(self.most, self.now)

        def ended(self, job: Job) -> None:
            self.now -= 1

    count = Count()
    call(root, behave(root, *["done"] * 5), watcher=count)
    assert (count.now, count.most) == (0, 2)


def test_one_study_at_a_time_in_a_folder(root: Path) -> None:
    refused: list[str] = []

    def call_again() -> None:
        with pytest.raises(RunFolderError) as caught:
            run_study([], root / "study")
        refused.append(str(caught.value))
        interrupt()

    jobs = plan_study(behave(root, "wait"), root / "study")
    with pytest.raises(KeyboardInterrupt):
        run_study(jobs, root / "study", watcher=AtWait(1, call_again))
    assert refused == [f"{root}/study: another fastweights study is running here"]
    run_study([], root / "study")  # the lock went with the process's hold on it


def test_study_yaml_lists_the_cells_of_every_call(root: Path) -> None:
    behave(root, "done", "done")
    call(root, cells([2]))
    call(root, cells([1, 2]))
    path = root / "study/study.yaml"
    assert [cell["seed"] for cell in yaml.safe_load(path.read_text())["cells"]] == [2, 1]
    path.write_text("cells: 3\n")
    with pytest.raises(RunFolderError, match=r"study\.yaml: is damaged: no list of cells"):
        call(root, cells([1]))


def test_last_metrics_reads_the_end_of_the_file(tmp_path: Path) -> None:
    assert last_metrics(tmp_path) == (None, None)
    lines = [{"step": step, "split": "train", "nats_per_token": 0.1} for step in range(2000)]
    lines.insert(1995, {"step": 1990, "split": "validation", "sequence_accuracy": 0.25})
    text = "\n".join(map(json.dumps, lines))
    (tmp_path / "metrics.jsonl").write_text(text + '\n{"step": 20')
    assert last_metrics(tmp_path) == (1999, 0.25)
    (tmp_path / "metrics.jsonl").write_text("")
    assert last_metrics(tmp_path) == (None, None)


@pytest.mark.parametrize("kind", [Lines, Bars])
def test_progress_has_a_line_a_run(root: Path, kind: type[Lines]) -> None:
    screen = io.StringIO()
    console = Console(file=screen, width=120, force_terminal=kind is Bars, highlight=False)
    call(root, behave(root, "done", "kill"), watcher=kind(console))
    call(root, cells([1, 2]), watcher=kind(console))
    shown = screen.getvalue()
    assert "2 runs (2 new), 2 at once" in shown
    assert "parity/delta_net/seed_1: 7 steps, 2 s, bin1 50.00 %" in shown
    assert "parity/delta_net/seed_2: failed: killed by SIGKILL; the same command goes on" in shown
    assert "[2/2]" in shown
    assert "2 runs (1 done before, 1 to go on), 2 at once" in shown
