"""Cache of the images that the audit log already records as shown to a caller."""

import threading
from collections.abc import Iterable
from typing import final

from cachetools import LRUCache

from tbps.server.callers.gate import Caller

_KEPT = 20_000


@final
class Shown:
    """Pairs of caller and image that the audit log already contains, so that requests for the crops of hits are not logged again.

    Keeps the 20,000 newest pairs. Thread-safe.
    """

    def __init__(self) -> None:
        self._pairs: LRUCache[tuple[str, str], bool] = LRUCache(_KEPT)
        self._lock = threading.Lock()

    def add(self, caller: Caller, ids: Iterable[str]) -> None:
        """Add images that the log contains for a caller."""
        with self._lock:
            for id in ids:
                self._pairs[caller.id, id] = True

    def forget(self) -> None:
        """Remove all pairs, so that images that are shown again are logged again."""
        with self._lock:
            self._pairs.clear()

    def holds(self, caller: Caller, id: str) -> bool:
        """Whether the log contains this image for this caller."""
        with self._lock:
            return (caller.id, id) in self._pairs
