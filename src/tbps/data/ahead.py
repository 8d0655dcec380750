"""Prefetching: the next items are produced by a thread while the current one is used."""

import queue
import threading
from collections.abc import Iterator
from typing import TypeVar

_T = TypeVar("_T")
_PATIENCE = 0.1  # seconds between checks whether the iterator was closed


def ahead(items: Iterator[_T], depth: int) -> Iterator[_T]:
    """Yields the same items in the same order; a thread produces up to `depth` of them in advance.

    An error of `items` is raised at the position of its item. Closing or deleting the iterator ends the thread. `depth` 0: no
    thread.
    """
    return _ahead(items, depth) if depth > 0 else items


def _ahead(items: Iterator[_T], depth: int) -> Iterator[_T]:
    ready: queue.Queue[tuple[_T] | BaseException | None] = queue.Queue(depth)
    unwanted = threading.Event()

    def put(found: "tuple[_T] | BaseException | None") -> bool:
        while not unwanted.is_set():
            try:
                ready.put(found, timeout=_PATIENCE)
                return True
            except queue.Full:
                pass
        return False

    def make() -> None:
        try:
            for item in items:
                if not put((item,)):
                    return
            put(None)
        except BaseException as error:  # raised again by the consumer
            put(error)

    maker = threading.Thread(target=make, name="tbps-ahead", daemon=True)
    maker.start()
    try:
        while (found := ready.get()) is not None:
            if isinstance(found, BaseException):
                raise found
            yield found[0]
    finally:
        unwanted.set()
        maker.join()
