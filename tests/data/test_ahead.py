"""Prefetching yields the same items, stops in time and passes errors on."""

import threading
import time
from collections.abc import Iterator

import pytest

from tbps.data.ahead import ahead


def _threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "tbps-ahead"]


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_same_items_in_the_same_order(depth: int) -> None:
    assert list(ahead(iter(range(50)), depth)) == list(range(50))
    assert not _threads()


def test_up_to_depth_items_are_prefetched() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(20):
            made.append(number)
            yield number

    stream = ahead(items(), 2)
    assert next(stream) == 0
    deadline = time.monotonic() + 300
    while len(made) < 4 and time.monotonic() < deadline:  # 0 is consumed, 1 and 2 fill the queue, the thread holds 3
        time.sleep(0.01)
    time.sleep(0.3)
    assert made == [0, 1, 2, 3]
    assert list(stream) == list(range(1, 20))


def test_an_error_is_raised_at_the_position_of_its_item() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise KeyError("caption 7")

    stream = ahead(items(), 4)
    assert next(stream) == 1
    with pytest.raises(KeyError, match="caption 7"):
        next(stream)
    assert not _threads()


def test_closing_ends_the_thread_with_items_left() -> None:
    stream = ahead(iter(range(1_000_000)), 2)
    assert next(stream) == 0
    assert len(_threads()) == 1
    stream.close()  # type: ignore[attr-defined]  # a generator
    assert not _threads()
