"""Batches texts of concurrent searches into one pass of the text tower."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

import numpy as np
from PIL import Image

from tbps.errors import RequestError
from tbps.gallery import Encoder
from tbps.preprocess.image import ImageSpec
from tbps.server.callers.limits import Ticket, ticket

_PER_TURN = 16  # most texts of one caller per pass


@dataclass(slots=True, eq=False)
class _Entry:
    texts: Sequence[str]
    ticket: Ticket | None
    again: bool  # whether earlier texts of the same call were already encoded
    done: threading.Event = field(default_factory=threading.Event)
    rows: np.ndarray | None = None
    error: Exception | None = None

    def wanted(self) -> bool:
        return self.ticket is None or self.ticket.left() > 0


@final
class BatchingEncoder:
    """Encoder that joins concurrent calls of `encode_texts` into one call of another encoder.

    window: seconds that the first text waits for others; most: largest number of texts per call; bound: number of waiting texts
    above which RequestError (503) is raised; on_batch: called with the number of texts of each call. Texts whose caller no longer
    waits are not encoded. If a caller has many texts, such as the parts of a long description, at most 16 are encoded per call.
    """

    def __init__(self, model: Encoder, window: float, most: int, bound: int, on_batch: Callable[[int], None]) -> None:
        self._model, self._window, self._most, self._bound, self._on_batch = model, window, most, bound, on_batch
        self._entries: list[_Entry] = []
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="tbps-texts", daemon=True)
        self._thread.start()

    @property
    def name(self) -> str:
        return self._model.name

    @property
    def folder(self) -> Path | None:
        return self._model.folder

    @property
    def fingerprint(self) -> str:
        return self._model.fingerprint

    @property
    def dim(self) -> int:
        return self._model.dim

    @property
    def spec(self) -> ImageSpec:
        return self._model.spec

    def is_cut(self, text: str) -> bool:
        """Call `is_cut` of the model."""
        return self._model.is_cut(text)

    def encode_images(self, images: Sequence[Image.Image], batch_size: int = 64) -> np.ndarray:
        """Call `encode_images` of the model."""
        return self._model.encode_images(images, batch_size)

    def carried(self, image: Image.Image, vector: np.ndarray) -> np.ndarray:
        """Call `carried` of the model."""
        return self._model.carried(image, vector)

    def encode_texts(self, texts: Sequence[str], batch_size: int = 256) -> np.ndarray:
        """Encode texts together with those of other threads.

        Raises RequestError (503) if too many texts wait or the request's time is over.
        """
        return np.concatenate([self._encoded(texts[at : at + _PER_TURN], at > 0) for at in range(0, max(1, len(texts)), _PER_TURN)])

    def _encoded(self, texts: Sequence[str], again: bool) -> np.ndarray:
        """Embeddings of texts that are encoded in one turn."""
        entry = _Entry(texts, ticket.get(), again)
        with self._changed:
            if self._stopped:
                raise RequestError(503, "stopping", "the service is shutting down; try again in a moment", 5)
            if sum(len(each.texts) for each in self._entries) >= self._bound:
                raise RequestError(503, "busy", "too many searches wait for their turn; try again in a moment", 1)
            self._entries.append(entry)
            self._changed.notify_all()
        entry.done.wait(None if entry.ticket is None else entry.ticket.left())
        if entry.error is not None:
            raise entry.error
        if entry.rows is None:
            with self._changed:
                if entry in self._entries:
                    self._entries.remove(entry)
            raise RequestError(503, "timeout", "the search took too long; try again in a moment", 2)
        return entry.rows

    def stop(self) -> None:
        """Encode the waiting texts and end the thread."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.join(timeout=10)

    def _run(self) -> None:
        while (entries := self._next()) is not None:
            wanted = [entry for entry in entries if entry.wanted()]
            if wanted:
                self._encode(wanted)
            for entry in entries:
                entry.done.set()

    def _next(self) -> list[_Entry] | None:
        """Wait for the window to end and return the entries of the next call; None when the service stops.

        The list is empty if all callers left during the window.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._entries or self._stopped)
            if self._stopped and not self._entries:
                return None
            until = time.monotonic() + self._window
            while not self._full() and not self._stopped and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)
            taken, texts = 0, 0
            for entry in self._entries:
                if taken and texts + len(entry.texts) > self._most:
                    break
                taken, texts = taken + 1, texts + len(entry.texts)
            entries, self._entries = self._entries[:taken], self._entries[taken:]
            return entries

    def _full(self) -> bool:
        """Whether the batch is full or contains later texts of a call, which have waited before."""
        return any(entry.again for entry in self._entries) or sum(len(entry.texts) for entry in self._entries) >= self._most

    def _encode(self, entries: Sequence[_Entry]) -> None:
        texts = [text for entry in entries for text in entry.texts]
        try:
            rows = self._model.encode_texts(texts)
            self._on_batch(len(texts))
        except Exception as error:  # handed to the caller whose text caused it
            if len(entries) == 1:
                entries[0].error = error
            else:
                for entry in entries:
                    self._encode([entry])
            return
        start = 0
        for entry in entries:
            entry.rows = rows[start : start + len(entry.texts)]
            start += len(entry.texts)
