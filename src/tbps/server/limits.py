"""How much may be asked: rates of callers, requests under way, and how long the service waits for a sender."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import final

from tbps.errors import RequestError

_MOST = 10_000


@final
class Rates:
    """Token buckets by name: `per_minute` on average, all of them at once if nothing was asked before."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute, self._clock = per_minute, clock
        self._buckets: dict[str, tuple[float, float]] = {}  # what is left, and when
        self._lock = threading.Lock()

    def wait(self, name: str) -> float:
        """Takes one; seconds until there will be one where there is none."""
        with self._lock:
            now = self._clock()
            left, since = self._buckets.pop(name, (float(self._per_minute), now))
            left = min(float(self._per_minute), left + (now - since) * self._per_minute / 60)
            taken = left >= 1
            self._buckets[name] = (left - 1 if taken else left, now)
            while len(self._buckets) > _MOST:  # whoever asked longest ago begins anew
                self._buckets.pop(next(iter(self._buckets)))
            return 0.0 if taken else (1 - left) * 60 / self._per_minute


@dataclass(slots=True, eq=False)
class Ticket:
    """One request under way.

    gone: nobody waits for its answer any more; key: the id of the caller's key, None as long as the caller is not known;
    privileged: the caller is an administrator; placed: it has one of the `Places`.
    """

    deadline: float
    gone: threading.Event = field(default_factory=threading.Event)
    key: str | None = None
    privileged: bool = False
    placed: bool = False

    def left(self) -> float:
        """Seconds until its time is out; 0 when nobody waits."""
        return 0.0 if self.gone.is_set() else max(0.0, self.deadline - time.monotonic())


ticket: ContextVar[Ticket | None] = ContextVar("ticket", default=None)


@final
class Places:
    """Places for requests that are worked on or wait for it, taken and left in the thread that answers.

    A key that is no administrator's has at most half of them, and all such keys together leave an eighth to administrators. A
    request takes its place when its body was read, so that slow senders take none.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._by_key: Counter[str] = Counter()
        self.taken = 0

    def take(self, mine: Ticket) -> None:
        """Gives a request of a known caller a place. Raises RequestError (503) where there is none for it."""
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
        """Frees the place of a request, if it has one."""
        if not mine.placed or mine.key is None:
            return
        mine.placed = False
        self.taken -= 1
        self._by_key[mine.key] -= 1
        if not self._by_key[mine.key]:
            del self._by_key[mine.key]


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the service waits for the body of a request: `seconds` in all, and one more for every `rate` bytes that came.

    rate 0: no more than `seconds`. stall: how long at most without a byte.
    """

    seconds: float
    rate: int = 0
    stall: float = 30.0

    def left(self, waited: float, received: int) -> float:
        """Seconds that may still pass until the next bytes come."""
        more = received / self.rate if self.rate else 0.0
        return min(self.stall, self.seconds + more - waited)


def whole_seconds(seconds: float) -> int:
    return int(seconds) + 1
