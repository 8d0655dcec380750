"""Resources of the machine: available cores, and how the C library keeps freed memory."""

import contextlib
import ctypes
import os
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # glibc's malloc.h


def keep_freed_memory() -> None:
    """Makes glibc keep freed memory for later allocations; does nothing where the C library is another one.

    By default glibc returns large blocks to the system, which clears every page when it is allocated again. On a CPU that often
    takes longer than the operation on the tensor. In exchange, the process keeps its peak memory.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # a C library other than glibc
        return
    for setting, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 64 * 2**20)):
        mallopt(setting, value)


def return_freed_memory() -> None:
    """Returns freed memory of this process to the system, so that less erased data remains in it. Does not overwrite the memory."""
    if arrow := sys.modules.get("pyarrow"):
        arrow.default_memory_pool().release_unused()
    if sys.platform.startswith("linux"):
        with contextlib.suppress(AttributeError):  # a C library other than glibc
            ctypes.CDLL(None).malloc_trim(0)


def available_cores() -> int:
    """Returns the number of cores that this process may use; a container, `taskset` or a batch system can restrict it."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # sched_getaffinity exists on Linux only
        return os.cpu_count() or 1
