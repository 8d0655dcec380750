"""Locks between processes, with `flock`: the system releases them however the process that holds them ends."""

import fcntl
import math
import time

_PAUSE = 0.01


def acquire(descriptor: int, patience: float = math.inf) -> bool:
    """Locks an open file or folder until it is closed; False if others hold its lock for more than `patience` seconds.

    Threads that opened the file separately lock each other out as well. Raises OSError where the file system has no locks.
    """
    if patience == math.inf:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return True
    give_up = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= give_up:
                return False
            time.sleep(_PAUSE)
        else:
            return True
