"""Images that callers were shown lately according to the audit log."""

import threading
from collections.abc import Iterable
from typing import final

from cachetools import LRUCache

from tbps.server.callers.gate import Caller

_KEPT = 20_000


@final
class Shown:
    """Pairs of caller and image with a line in the audit log: the crops of a search's hits need no line each.

    The 20,000 newest pairs are kept. Safe from several threads.
    """

    def __init__(self) -> None:
        self._pairs: LRUCache[tuple[str, str], bool] = LRUCache(_KEPT)
        self._lock = threading.Lock()

    def add(self, caller: Caller, ids: Iterable[str]) -> None:
        """Remember images that the log has for a caller."""
        with self._lock:
            for id in ids:
                self._pairs[caller.id, id] = True

    def forget(self) -> None:
        """Forget all pairs: images that are looked at again get a line again."""
        with self._lock:
            self._pairs.clear()

    def holds(self, caller: Caller, id: str) -> bool:
        """Whether the log has this image for this caller."""
        with self._lock:
            return (caller.id, id) in self._pairs
