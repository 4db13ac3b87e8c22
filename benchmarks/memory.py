"""Peak memory of one forward and backward pass, in a fresh process that does nothing else.

Linux only: the kernel keeps the peak of a process's resident memory and can be told to forget it.
"""

import ctypes
import gc
import multiprocessing
import signal
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from benchmarks.candidates import CANDIDATES
from benchmarks.inputs import make_inputs
from benchmarks.passes import Ready
from benchmarks.peers import HUGGING_FACE_MODULE
from benchmarks.shapes import Shape

LIMIT_GIB = 12.0
LIMIT_S = 300.0
_SYMBOLS = "torch.fx.experimental.symbolic_shapes"
_STATUS, _FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class NotMeasured(Exception):
    """Why there is no figure, in a few words."""


class MemoryMeter:
    """Starts a process a measurement, forked from one that has imported everything."""

    def __init__(self, questions: Sequence[str]) -> None:
        self._context = multiprocessing.get_context("forkserver") if _FORGET.exists() else None
        if self._context is not None:
            # The last one is what autograd.grad imports at its first call.
            modules = [__name__, "fastweights.kernels.cpu.kernel", _SYMBOLS]
            hugging_face = [HUGGING_FACE_MODULE] if "delta_rule" in questions else []
            self._context.set_forkserver_preload([*modules, *hugging_face])

    def peak_mib(self, question: str, name: str, size: Shape) -> float:
        """What a forward and backward pass adds to the resident memory at its peak, with one
        thread: outputs and gradients counted, inputs not. Raises NotMeasured."""
        if self._context is None:
            raise NotMeasured("needs Linux")
        receiver, sender = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_work, args=(sender, question, name, size))
        process.start()
        sender.close()
        try:
            if not receiver.poll(LIMIT_S):
                raise NotMeasured(f"more than {LIMIT_S:.0f} s")
            found = receiver.recv()
        except EOFError:
            process.join()
            raise NotMeasured(f"its process died (exit code {process.exitcode})") from None
        finally:
            process.kill()
            process.join()
        if isinstance(found, str):
            raise NotMeasured(found)
        return float(found)


def _work(sender: Connection, question: str, name: str, size: Shape) -> None:
    """Sends MiB, or the reason why not. Ctrl-C is for the process that waits for it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        sender.send(_peak_mib(question, name, size))
    except Exception as error:
        full = isinstance(error, MemoryError) or "allocate memory" in str(error)
        line = " ".join(str(error).split()) or type(error).__name__
        sender.send(f"more than {LIMIT_GIB:.0f} GiB" if full else line)


def _peak_mib(question: str, name: str, size: Shape) -> float:
    import resource  # not on every system

    torch.set_num_threads(1)
    candidate = {each.name: each for each in CANDIDATES[question]}[name]
    # Libraries set up and the very kernels loaded: what they do depends on all sizes but the time.
    short = size.model_copy(update={"time": min(size.time, 64)})
    Ready(candidate, make_inputs(question, short)).forward_backward()
    ready = Ready(candidate, make_inputs(question, size))
    gc.collect()
    # Else the pass would find room that is counted already. glibc has it.
    getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)(0)
    limit = int(_mib("VmSize") * 2**20 + LIMIT_GIB * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    _FORGET.write_text("5", encoding="ascii")
    before = _mib("VmRSS")
    ready.forward_backward()
    return max(0.0, _mib("VmHWM") - before)


def _mib(field: str) -> float:
    """A line of the kernel's account of this process."""
    for line in _STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise NotMeasured(f"{_STATUS} has no {field}")
