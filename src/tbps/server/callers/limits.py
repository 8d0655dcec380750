"""Limits on callers: searches per minute, requests at a time, and seconds until a body has to be there."""

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
    """Token buckets by name: `per_minute` on average, and as many at once after a minute without any. Safe from several threads.

    The 10,000 names that were used last are kept; any other starts with a full bucket.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute, self._clock = per_minute, clock
        self._buckets: LRUCache[str, tuple[float, float]] = LRUCache(_MOST_BUCKETS)  # tokens, and when they were counted
        self._lock = threading.Lock()

    def wait(self, name: str) -> float:
        """Take one token. Returns 0, or the seconds until there is one if the bucket is empty."""
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

    deadline: on the monotonic clock; gone: the client no longer waits; key: id of the caller's key, None until the caller is
    identified; privileged: the caller is an administrator; placed: the request has one of the `Places`.
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
    """Bounded number of requests that are worked on or wait for it; used in the event loop's thread only.

    One key that is not an administrator's gets at most half of the places, and all such keys together leave an eighth to
    administrators. A request takes its place after its body was read, so that slow senders take none.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._by_key: Counter[str] = Counter()
        self.taken = 0

    def take(self, mine: Ticket) -> None:
        """Give a request of an identified caller a place, unless it has one. Raises RequestError (503) if none is free for it."""
        if mine.placed or mine.key is None:
            return
        most, share = self._most, self._most
        if not mine.privileged:
            most, share = self._most - self._most // 8, max(1, self._most // 2)
        if self.taken >= most:
            raise RequestError(503, "busy", "too many requests wait for their turn; ask again in a moment", 1)
        if self._by_key[mine.key] >= share:
            raise RequestError(503, "busy", "too many requests with this key wait for their turn; ask again in a moment", 1)
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
    """Time limit for the body of a request: `seconds` in all, plus one for every `rate` bytes that have arrived.

    rate: 0 adds nothing. stall: most seconds without a byte.
    """

    seconds: float
    rate: int = 0
    stall: float = 30.0

    def left(self, waited: float, received: int) -> float:
        """Seconds until the next bytes have to arrive."""
        more = received / self.rate if self.rate else 0.0
        return min(self.stall, self.seconds + more - waited)


def whole_seconds(seconds: float) -> int:
    """Seconds for a Retry-After header, rounded up."""
    return int(seconds) + 1
