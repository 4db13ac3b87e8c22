"""Compiled loops: threads, processes, the cache on disk and its message."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fastweights.kernels.cpu.kernel import WORK_PER_THREAD, Kernel

NUM_ITEMS = 7
ENOUGH_WORK = 8 * WORK_PER_THREAD

RUN_DELTA_RULE = """
import torch
from fastweights.ops.delta_rule import delta_rule
torch.set_num_threads(2)
generator = torch.Generator().manual_seed(0)
q, k, v = (torch.randn(3, 4, 512, 2, 16, generator=generator) / 4).unbind()
beta = torch.ones(4, 512, 2)
def run():
    return delta_rule(q, k, v, beta, backend="cpu")[0].numpy().tobytes()
y = run()
"""


def count_up(x: Any, y: Any, scratch: Any, start: int, stop: int) -> None:
    """y[i] = the running sums of x[i], by way of the scratch array."""
    for i in range(start, stop):
        scratch[0] = 0.0
        for j in range(x.shape[1]):
            scratch[0] += x[i, j]
            y[i, j] = scratch[0]


def run(kernel: Kernel, x: Tensor, work: int = ENOUGH_WORK) -> Tensor:
    y = torch.full_like(x, torch.nan)
    kernel.run(len(x), work, [x, y], scratch=(1,))
    return y


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.parametrize("num_items", [0, 1, NUM_ITEMS])
def test_any_number_of_threads_gives_the_same_result(set_num_threads, num_items):
    kernel = Kernel(count_up, "count_up")
    x = torch.randn(num_items, 100, generator=torch.Generator().manual_seed(0)).double()
    for threads in (1, 2, 3, 16):
        set_num_threads(threads)
        torch.testing.assert_close(run(kernel, x), x.cumsum(1))


def test_little_work_runs_in_the_calling_thread(set_num_threads, monkeypatch):
    monkeypatch.setattr("fastweights.kernels.cpu.kernel._pool", None)  # no thread to be had
    set_num_threads(16)
    x = torch.ones(NUM_ITEMS, 3, dtype=torch.float64)
    torch.testing.assert_close(run(Kernel(count_up, "count_up"), x, work=1), x.cumsum(1))


def test_compiled_once_for_arrays_of_any_strides():
    kernel = Kernel(count_up, "count_up")
    x = torch.randn(2 * NUM_ITEMS, 10, dtype=torch.float64)
    for view in (x, x[::2, ::2], x.T, x[:1].expand(3, -1)):
        torch.testing.assert_close(run(kernel, view), view.cumsum(1))
    assert len(kernel._loop.signatures) == 1


def test_a_child_of_a_fork_runs_kernels():
    """The parent's threads do not live on in the child. (Nor do torch's: its own operations hang
    there when they are large enough for two threads.)"""
    done = run_python(
        RUN_DELTA_RULE
        + """
import os
child = os.fork()
if not child:
    os._exit(0 if run() == y else 3)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 0, status
assert run() == y
"""
    )
    assert done.returncode == 0, done.stderr


def test_compiling_is_announced_once_and_kept(tmp_path: Path):
    first = run_python(RUN_DELTA_RULE + "run()", NUMBA_CACHE_DIR=str(tmp_path))
    assert first.returncode == 0, first.stderr
    (message,) = first.stderr.splitlines()
    assert message.startswith("fastweights: compiled delta_rule (key_dim 16, 16 columns, ")
    assert message.endswith(" s, kept for the next time")
    assert first.stdout == ""
    second = run_python(RUN_DELTA_RULE, NUMBA_CACHE_DIR=str(tmp_path))
    assert (second.returncode, second.stderr) == (0, "")


def test_without_a_folder_to_keep_it_in():
    code = """
from numba.core import caching
def refuse(self):
    raise OSError("read-only file system")
caching._CacheLocator.ensure_cache_path = refuse
"""
    done = run_python(code + RUN_DELTA_RULE)
    assert done.returncode == 0, done.stderr
    (message,) = done.stderr.splitlines()
    assert message.startswith("fastweights: compiled delta_rule ") and message.endswith(" s")


TIME_DELTA_RULE = """
import sys, time, torch
from fastweights.ops.delta_rule import delta_rule
torch.set_num_threads(2)
generator = torch.Generator().manual_seed(0)
q, k, v = (torch.randn(3, 4, 512, 8, 32, generator=generator) / 6).unbind()
inputs = [x.requires_grad_() for x in (q, k, v, torch.rand(4, 512, 8, generator=generator))]
dy = torch.ones(4, 512, 8, 32)
def step():
    y, _ = delta_rule(*inputs, backend="cpu")
    torch.autograd.grad(y, inputs, dy)
step()
print("ready", flush=True)
sys.stdin.readline()
start = time.perf_counter()
for _ in range(300):
    step()
print(time.perf_counter() - start)
"""


def time_together(processes: int) -> float:
    """Seconds of the slowest of some processes, with two threads each, that start together."""
    running = [
        subprocess.Popen(
            [sys.executable, "-c", TIME_DELTA_RULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(processes)
    ]
    for process in running:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in running:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return max(float(process.communicate(timeout=240)[0]) for process in running)


@pytest.mark.slow
def test_two_processes_on_the_same_cores_do_not_collapse():
    """Twice the work takes twice the time. Threads that spin while they wait take far longer: so do
    those of PyTorch's own operations, which is why no sum is taken here."""
    assert time_together(2) < 3 * time_together(1)
