"""How many processes are worth starting."""

import os


def available_cores() -> int:
    """Cores that this process may use, which a container, `taskset` or a batch system can make fewer than the machine has."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # only Linux restricts a process to cores
        return os.cpu_count() or 1
