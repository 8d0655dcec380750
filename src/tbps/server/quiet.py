"""Rate limit for log messages that clients can cause."""

import logging
import threading
import time
from collections.abc import Callable
from typing import final

from cachetools import LRUCache

_MOST_MESSAGES = 1000


@final
class RepeatLimit(logging.Filter):
    """Logging filter that passes each message at most `most` times per `seconds`.

    The first message of the next period reports how many were left out. Messages are compared before formatting.
    """

    def __init__(self, most: int = 20, seconds: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._most, self._seconds, self._clock = most, seconds, clock
        self._seen: LRUCache[str, tuple[float, int]] = LRUCache(_MOST_MESSAGES)  # start of the period, and count in it
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        message = str(record.msg)
        with self._lock:
            now = self._clock()
            since, count = self._seen.get(message, (now, 0))
            left_out = 0
            if now - since >= self._seconds:
                since, count, left_out = now, 0, max(0, count - self._most)
            self._seen[message] = since, count + 1
        if count >= self._most:
            return False
        if left_out:
            record.msg = f"{record.getMessage()} ({left_out:,} more of this kind were left out)"
            record.args = ()
        elif count == self._most - 1:
            record.msg = f"{record.getMessage()} (more of this kind are counted and left out for {self._seconds:g} s)"
            record.args = ()
        return True
