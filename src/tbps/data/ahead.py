"""The next batches made while the device works on this one."""

import queue
import threading
from collections.abc import Iterator
from typing import TypeVar

_T = TypeVar("_T")
_PATIENCE = 0.1  # seconds between looks at whether anybody still wants the next item


def ahead(items: Iterator[_T], depth: int) -> Iterator[_T]:
    """The same items in the same order, up to `depth` of them made before they are asked for, by a thread of their own.

    An error of `items` is raised where its item would have come. Whoever stops asking lets the thread end by closing the iterator
    (or forgetting it). `depth` 0: no thread.
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
        except BaseException as error:  # raised again where it is asked for
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
