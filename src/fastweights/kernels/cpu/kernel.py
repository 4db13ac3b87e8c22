"""Loops over independent items, compiled by Numba at the first call and run on several threads."""

import functools
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from numba import njit, typeof, types
from torch import Tensor

WORK_PER_THREAD = 500_000
"""Multiply-adds below which a second thread costs more than it saves (about 20 microseconds)."""


class Kernel:
    """`loop(*arrays, scratch, start, stop)`, which does the items from `start` up to `stop`.

    Every item writes its own part of the arrays, so the result does not depend on the number of
    threads. The threads wait without spinning, so processes that share the cores do not starve each
    other. Compiled code is kept on disk, in Numba's cache.

    Args:
        loop: a function that Numba can compile. Sizes that it takes from its closure are constants
            of the compiled code.
        label: what the message says after the first compilation.
    """

    def __init__(self, loop: Callable[..., None], label: str) -> None:
        self._loop = njit(nogil=True, error_model="numpy")(loop)
        self._label = label

    def run(
        self,
        num_items: int,
        work: int,
        tensors: Sequence[Tensor],
        scratch: tuple[int, ...] = (0,),
    ) -> None:
        """Do all items; the tensors that the loop writes are changed in place.

        Args:
            num_items: number of items.
            work: multiply-adds of all items together, roughly.
            tensors: CPU tensors, the loop's arrays.
            scratch: shape of an uninitialised array of the first tensor's dtype, one a thread.
        """
        arrays = [tensor.detach().numpy() for tensor in tensors]
        threads = max(1, min(torch.get_num_threads(), num_items, work // WORK_PER_THREAD))
        scratches = torch.empty(threads, *scratch, dtype=tensors[0].dtype).numpy()
        if not self._loop.signatures:
            self._compile([*arrays, scratches[0]])
        bounds = [num_items * i // threads for i in range(threads + 1)]
        blocks = [
            functools.partial(self._loop, *arrays, scratches[i], bounds[i], bounds[i + 1])
            for i in range(threads)
        ]
        others = [_pool(os.getpid()).submit(block) for block in blocks[1:]]
        blocks[0]()
        for other in others:
            other.result()

    def _compile(self, arrays: Sequence[Any]) -> None:
        """For arrays of these dtypes and numbers of axes, whatever their strides."""
        start = time.perf_counter()
        try:
            self._loop.enable_caching()
            kept = ", kept for the next time"
        except RuntimeError:  # no folder for the cache can be written
            kept = ""
        kinds = [typeof(array).copy(layout="A") for array in arrays[:-1]]
        self._loop.compile((*kinds, typeof(arrays[-1]), types.intp, types.intp))
        self._loop.disable_compile()  # or Numba would compile again for arrays with other strides
        if not self._loop.stats.cache_hits:
            wall_s = time.perf_counter() - start
            print(f"fastweights: compiled {self._label} in {wall_s:.1f} s{kept}", file=sys.stderr)


@functools.cache
def _pool(process: int) -> ThreadPoolExecutor:
    """The threads of a process: after a fork, the child has none of its parent's."""
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="fastweights")
