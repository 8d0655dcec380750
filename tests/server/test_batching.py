"""Batching of texts: each caller gets its own rows; limits; texts whose caller has left."""

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from tbps.errors import CaptionError, RequestError
from tbps.gallery.gallery import Gallery
from tbps.model.bundle import load
from tbps.server.batching import BatchingEncoder
from tbps.server.callers.limits import Rates, Ticket, ticket
from tests.support.colour_encoder import ColourEncoder


class Slow(ColourEncoder):
    """Records the texts of each call; calls wait while `go` is cleared. Refuses "bad"."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[list[str]] = []
        self.go = threading.Event()
        self.go.set()

    def encode_texts(self, texts: Sequence[str], batch_size: int = 256) -> np.ndarray:
        self.calls.append(list(texts))
        self.go.wait(300)
        if "bad" in texts:
            raise CaptionError("bad")
        return super().encode_texts(texts)


@pytest.fixture
def slow() -> Slow:
    return Slow()


@pytest.fixture
def batching(slow: Slow) -> Iterator[BatchingEncoder]:
    sizes: list[int] = []
    made = BatchingEncoder(slow, window=1.0, most=8, bound=20, on_batch=sizes.append)
    yield made
    slow.go.set()
    made.stop()


def until(condition: object) -> None:
    end = time.monotonic() + 300
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.002)


@dataclass(slots=True, eq=False)
class Stopped(Ticket):
    """Ticket that expires exactly when `out` is set, regardless of the load of the machine."""

    out: threading.Event = field(default_factory=threading.Event)

    def left(self) -> float:
        assert self.out.wait(300)
        return 0.0


def test_concurrent_texts_are_encoded_together(slow: Slow, batching: BatchingEncoder) -> None:
    asked = [["red coat"], ["bag", "blue"], ["hat"], ["shoes"]]
    slow.go.clear()
    with ThreadPoolExecutor(8) as pool:
        before = pool.submit(batching.encode_texts, ["one before them"])
        until(lambda: slow.calls)
        found = [pool.submit(batching.encode_texts, texts) for texts in asked]
        until(lambda: len(batching._entries) == len(asked))
        slow.go.set()
        for texts, rows in zip([["one before them"], *asked], [before, *found], strict=True):
            assert np.array_equal(rows.result(), ColourEncoder().encode_texts(texts))
    assert [sorted(call) for call in slow.calls] == [["one before them"], ["bag", "blue", "hat", "red coat", "shoes"]]


def test_a_full_batch_does_not_wait(slow: Slow) -> None:
    """The window is longer than the test, so that a batch is encoded only because it is full."""
    batching = BatchingEncoder(slow, window=100_000.0, most=8, bound=40, on_batch=lambda size: None)
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(batching.encode_texts, [[f"word {n}"] for n in range(8)]))
    assert [len(call) for call in slow.calls] == [8]
    assert len(batching.encode_texts([f"word {n}" for n in range(30)])) == 30, "one caller's texts stay together"
    batching.stop()


def test_texts_of_others_are_encoded_between_parts_of_a_long_description(slow: Slow) -> None:
    """Otherwise a description of hundreds of parts would delay every other search until its last part is encoded."""
    batching = BatchingEncoder(slow, window=0.0, most=64, bound=1000, on_batch=lambda size: None)
    many = [f"part {n}" for n in range(100)]
    slow.go.clear()
    with ThreadPoolExecutor(2) as pool:
        long = pool.submit(batching.encode_texts, many)
        until(lambda: slow.calls)
        short = pool.submit(batching.encode_texts, ["a man"])
        until(lambda: batching._entries)
        slow.go.set()
        assert np.array_equal(short.result(), ColourEncoder().encode_texts(["a man"]))
        assert np.array_equal(long.result(), ColourEncoder().encode_texts(many))
    batching.stop()
    assert "a man" in slow.calls[1] and max(map(len, slow.calls)) <= 17
    assert [text for call in slow.calls for text in call if text != "a man"] == many


def test_an_error_reaches_only_the_caller_whose_text_caused_it(batching: BatchingEncoder) -> None:
    with ThreadPoolExecutor(4) as pool:
        good, bad = pool.submit(batching.encode_texts, ["good"]), pool.submit(batching.encode_texts, ["bad"])
        assert np.array_equal(good.result(), ColourEncoder().encode_texts(["good"]))
        with pytest.raises(CaptionError):
            bad.result()


def test_waiting_texts_are_bounded_and_removed_when_their_time_is_over(slow: Slow, batching: BatchingEncoder) -> None:
    slow.go.clear()
    short_time = Stopped(0.0)

    def ask(text: str, mine: Ticket | None) -> np.ndarray:
        ticket.set(mine)
        return batching.encode_texts([text] * 10)

    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(ask, "first", None)
        until(lambda: slow.calls)
        short = pool.submit(ask, "short", short_time)
        until(lambda: len(batching._entries) == 1)
        long = pool.submit(ask, "long", None)
        until(lambda: len(batching._entries) == 2)
        with pytest.raises(RequestError) as full:
            batching.encode_texts(["one too many"])
        assert (full.value.status, full.value.code, full.value.retry_after) == (503, "busy", 1)
        short_time.out.set()
        with pytest.raises(RequestError) as late:
            short.result()
        assert (late.value.status, late.value.code) == (503, "timeout")
        assert [entry.texts[0] for entry in batching._entries] == ["long"]
        slow.go.set()
        assert len(first.result()) == len(long.result()) == 10
    assert not any("short" in call for call in slow.calls)


def test_the_thread_goes_on_after_the_only_caller_has_left(slow: Slow) -> None:
    """Regression: the encoding thread ended, and no search by description was answered any more."""
    batching = BatchingEncoder(slow, window=0.1, most=8, bound=20, on_batch=lambda size: None)

    def ask(text: str, mine: Ticket | None) -> np.ndarray:
        ticket.set(mine)
        return batching.encode_texts([text])

    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(RequestError):
            pool.submit(ask, "gone", Ticket(0.0)).result()
        batching._thread.join(0.5)  # until the window is over; returns early only if the thread has ended
        assert batching._thread.is_alive()
        assert np.array_equal(pool.submit(ask, "red", None).result(), ColourEncoder().encode_texts(["red"]))
    batching.stop()
    assert not batching._thread.is_alive()
    assert slow.calls == [["red"]]


def test_texts_after_stop_are_refused(slow: Slow) -> None:
    batching = BatchingEncoder(slow, 0, 8, 20, lambda size: None)
    batching.stop()
    with pytest.raises(RequestError):
        batching.encode_texts(["red"])


def test_it_replaces_the_model_of_a_gallery(tmp_path: Path, tiny_model_folder: Path) -> None:
    """With a real text tower, padding to the longest text of a batch changes an embedding by rounding only."""
    model = load(tiny_model_folder)
    batching = BatchingEncoder(model, 0.1, 64, 100, lambda size: None)
    texts = ["a man", "a woman in a red coat with a black backpack", "the man wears a navy jacket", "black trousers"]
    with ThreadPoolExecutor(4) as pool:
        rows = list(pool.map(batching.encode_texts, [[text] for text in texts]))
    for text, row in zip(texts, rows, strict=True):
        assert row[0] == pytest.approx(model.encode_texts([text])[0], abs=1e-5)
    assert (batching.fingerprint, batching.dim, batching.spec) == (model.fingerprint, model.dim, model.spec)
    assert batching.is_cut("a man") is False
    assert Gallery.open(tmp_path / "gallery", batching).info().fingerprint == model.fingerprint
    batching.stop()


def test_token_buckets_refill() -> None:
    now = [0.0]
    rates = Rates(2, lambda: now[0])
    assert [rates.wait("a"), rates.wait("a"), rates.wait("a"), rates.wait("b")] == [0, 0, 30, 0]
    now[0] = 15
    assert rates.wait("a") == 15
    now[0] = 30
    assert [rates.wait("a"), rates.wait("a")] == [0, 30]
    now[0] = 3600
    assert [rates.wait("a"), rates.wait("a"), rates.wait("a")] == [0, 0, 30], "a bucket holds the tokens of one minute"
