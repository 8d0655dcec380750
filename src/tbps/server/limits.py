"""How much may be asked: rates of callers, and requests under way."""

import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import final

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


@dataclass(frozen=True, slots=True)
class Ticket:
    """One request under way. gone: nobody waits for its answer any more."""

    deadline: float
    gone: threading.Event = field(default_factory=threading.Event)

    def left(self) -> float:
        """Seconds until its time is out; 0 when nobody waits."""
        return 0.0 if self.gone.is_set() else max(0.0, self.deadline - time.monotonic())


ticket: ContextVar[Ticket | None] = ContextVar("ticket", default=None)
