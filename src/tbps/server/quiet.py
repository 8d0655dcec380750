"""Keeps a log small whatever strangers send."""

import logging
import threading
import time
from collections.abc import Callable
from typing import final

_MOST_MESSAGES = 1000


@final
class Seldom(logging.Filter):
    """Lets a message through `most` times in `seconds`, and then says with the next one how many it kept back.

    Messages are told apart by their texts without what is filled in.
    """

    def __init__(self, most: int = 20, seconds: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._most, self._seconds, self._clock = most, seconds, clock
        self._seen: dict[str, tuple[float, int]] = {}  # since when, and how often
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        message = str(record.msg)
        with self._lock:
            now = self._clock()
            since, count = self._seen.get(message, (now, 0))
            kept_back = 0
            if now - since >= self._seconds:
                since, count, kept_back = now, 0, max(0, count - self._most)
            self._seen[message] = since, count + 1
            while len(self._seen) > _MOST_MESSAGES:
                del self._seen[next(iter(self._seen))]
        if count >= self._most:
            return False
        if kept_back:
            record.msg = f"{record.getMessage()} ({kept_back:,} more of this kind were left out)"
            record.args = ()
        elif count == self._most - 1:
            record.msg = f"{record.getMessage()} (more of this kind are counted and left out for {self._seconds:g} s)"
            record.args = ()
        return True
