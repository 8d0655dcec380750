"""The machine: how many cores this process may use, and how freed memory is kept."""

import contextlib
import ctypes
import os
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # glibc's malloc.h


def keep_freed_memory() -> None:
    """Lets glibc keep what is freed, for the next tensor of that size; elsewhere it does nothing.

    By default a large block comes from the system and goes back to it, and the system clears every page of the next one: on a CPU
    that takes longer than many an operation on it. The process then holds on to the most that it ever needed.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # a C library without it
        return
    for setting, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 64 * 2**20)):
        mallopt(setting, value)


def return_freed_memory() -> None:
    """Returns freed memory of this process to the system, so that less of what was erased stays in it; overwrites nothing."""
    if arrow := sys.modules.get("pyarrow"):
        arrow.default_memory_pool().release_unused()
    if sys.platform.startswith("linux"):
        with contextlib.suppress(AttributeError):  # a C library without it
            ctypes.CDLL(None).malloc_trim(0)


def available_cores() -> int:
    """Cores that this process may use, which a container, `taskset` or a batch system can make fewer than the machine has."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # only Linux restricts a process to cores
        return os.cpu_count() or 1
