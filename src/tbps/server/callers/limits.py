"""Limits on callers: searches per minute, concurrent requests, and time limits for request bodies."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import final

from cachetools import LRUCache

from tbps.errors import RequestError

_MOST_BUCKETS = 10_000


@final
class Rates:
    """Token buckets by name. A bucket holds at most `per_minute` tokens and is refilled at that rate. Thread-safe.

    The buckets of the 10,000 most recently used names are kept; any other name starts with a full bucket.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute, self._clock = per_minute, clock
        self._buckets: LRUCache[str, tuple[float, float]] = LRUCache(_MOST_BUCKETS)  # tokens, and time of their count
        self._lock = threading.Lock()

    def wait(self, name: str) -> float:
        """Take one token and return 0. If the bucket is empty, return the seconds until the next token."""
        with self._lock:
            now = self._clock()
            tokens, since = self._buckets.get(name, (float(self._per_minute), now))
            tokens = min(float(self._per_minute), tokens + (now - since) * self._per_minute / 60)
            taken = tokens >= 1
            self._buckets[name] = (tokens - 1 if taken else tokens, now)
            return 0.0 if taken else (1 - tokens) * 60 / self._per_minute


@dataclass(slots=True, eq=False)
class Ticket:
    """One request in progress.

    deadline: time on the monotonic clock; gone: set when the client no longer waits; key: id of the caller's key, None until the
    caller is identified; privileged: whether the caller is an administrator; placed: whether the request has one of the `Places`.
    """

    deadline: float
    gone: threading.Event = field(default_factory=threading.Event)
    key: str | None = None
    privileged: bool = False
    placed: bool = False

    def left(self) -> float:
        """Seconds until the deadline; 0 if the client no longer waits."""
        return 0.0 if self.gone.is_set() else max(0.0, self.deadline - time.monotonic())


ticket: ContextVar[Ticket | None] = ContextVar("ticket", default=None)


@final
class Places:
    """Limit on requests that are being processed or wait to be. Not thread-safe: use it in the thread of the event loop.

    A key that is not an administrator's gets at most half of the places, and one eighth of all places is reserved for
    administrators. A request takes a place after its body was read, so that slow senders do not occupy places.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._by_key: Counter[str] = Counter()
        self.taken = 0

    def take(self, mine: Ticket) -> None:
        """Take a place for a request of an identified caller, unless it has one. Raises RequestError (503) if none is free."""
        if mine.placed or mine.key is None:
            return
        most, share = self._most, self._most
        if not mine.privileged:
            most, share = self._most - self._most // 8, max(1, self._most // 2)
        if self.taken >= most:
            raise RequestError(503, "busy", "too many requests wait for their turn; try again in a moment", 1)
        if self._by_key[mine.key] >= share:
            raise RequestError(503, "busy", "too many requests with this key wait for their turn; try again in a moment", 1)
        self.taken += 1
        self._by_key[mine.key] += 1
        mine.placed = True

    def leave(self, mine: Ticket) -> None:
        """Free the place of a request, if it has one."""
        if not mine.placed or mine.key is None:
            return
        mine.placed = False
        self.taken -= 1
        self._by_key[mine.key] -= 1
        if not self._by_key[mine.key]:
            del self._by_key[mine.key]


@dataclass(frozen=True, slots=True)
class Patience:
    """Time limit for the body of a request: `seconds`, plus one second for every `rate` bytes received.

    rate: 0 for a fixed time limit; stall: largest number of seconds without a byte.
    """

    seconds: float
    rate: int = 0
    stall: float = 30.0

    def left(self, waited: float, received: int) -> float:
        """Seconds within which the next bytes must arrive. waited: seconds spent waiting so far; received: bytes so far."""
        more = received / self.rate if self.rate else 0.0
        return min(self.stall, self.seconds + more - waited)


def whole_seconds(seconds: float) -> int:
    """Seconds for a Retry-After header, rounded up."""
    return int(seconds) + 1
