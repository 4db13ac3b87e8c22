"""What is freed stays with the process while calls are timed.

Fresh memory costs a page fault each 4 KiB, 1,024 of them for the outputs of the delta rule at
B 4, H 4, T 1,024, D 64. glibc hands freed blocks back to the system or keeps them depending on what
the process freed before, so a call would cost more or less according to who was timed before it.
"""

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # names and values of glibc's malloc.h


def keep_freed_memory() -> None:
    """For the rest of the process, where the C library is glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, -1)
        mallopt(_M_MMAP_MAX, 0)
