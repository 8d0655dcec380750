"""Embeds new rows in batches, and commits them to the gallery's table."""

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
from PIL import Image

from tbps.errors import GalleryError
from tbps.gallery.encoder import Encoder, checked_embeddings
from tbps.gallery.ingest.context import Context
from tbps.gallery.ingest.row import Row
from tbps.gallery.store.columns import fitted
from tbps.gallery.store.schema import Kind
from tbps.gallery.store.table import Table

Writing = Callable[[], AbstractContextManager[Table]]
"""Returns a context manager that holds the gallery's lock and yields its current table."""

COMMIT_ROWS = 256
COMMIT_SECONDS = 5.0


class Writer:
    """Collects rows into encoder batches, and embedded rows into commits of 256 rows or 5 seconds.

    pictures: number of pictures with uncommitted rows; settled: number of pictures whose rows are all committed; added: number of
    rows stored; met: number of rows left out because another process had stored them.
    """

    def __init__(self, writing: Writing, model: Encoder, context: Context, table: Table) -> None:
        """table: the current table, from which `context.known` was read."""
        self.context = context
        self.writing, self._model = writing, model
        self._unencoded: list[Row] = []
        self._rows: list[dict[str, Any]] = []
        self._keys: list[str] = []
        self._embeddings: list[np.ndarray] = []
        self._finished: dict[str, Mapping[str, Any]] = {}
        self._last_commit = time.monotonic()
        self._alone, self._seen = True, table.state()  # whether no other process has written since `known` was read
        self.added = self.met = self.pictures = self.settled = 0

    def add(self, row: Row) -> None:
        """Adds a row with new content; it is stored with the next commit."""
        self.context.known.add(row.content_hash, row.known())
        self._rows.append(row.columns(self.context.fingerprint))
        self._keys.append(row.key)
        self._unencoded.append(row)
        if len(self._unencoded) == self.context.options.batch_size:
            self._encode()

    def add_finished(self, key: str, metadata: Mapping[str, Any]) -> None:
        """Records a scene or video as finished with the next commit."""
        self._finished[key] = metadata

    def is_due(self) -> bool:
        """Whether a commit is due by rows or by time; twice as many of either if it would encode an incomplete batch."""
        rows, seconds = len(self._rows), time.monotonic() - self._last_commit
        due = rows >= COMMIT_ROWS or seconds >= COMMIT_SECONDS
        overdue = rows >= 2 * COMMIT_ROWS or seconds >= 2 * COMMIT_SECONDS
        return bool(self._rows or self._finished) and (overdue or (due and not self._unencoded))

    def commit(self) -> None:
        """Embeds and stores all pending rows, then records the finished scenes and videos."""
        if self._unencoded:
            self._encode()
        if self._rows or self._finished:
            with self.writing() as table:
                self._fit_kinds(table)
                new = self._unstored(table)
                if new:
                    rows, embeddings = [self._rows[place] for place in new], np.concatenate(self._embeddings)[new]
                    with self._committing([row["id"] for row in rows]):
                        table.append(rows, embeddings)
                self.added, self.met = self.added + len(new), self.met + len(self._rows) - len(new)
                self._see(table)
                self.context.known.add_finished(self._finished)
        self.settled, self.pictures = self.settled + self.pictures, 0
        self._rows, self._keys, self._embeddings, self._finished, self._last_commit = [], [], [], {}, time.monotonic()

    def _encode(self) -> None:
        pixels = [row.pixels for row in self._unencoded if row.pixels is not None]
        images = [Image.fromarray(each) for each in pixels]
        embeddings = self._model.encode_images(images, batch_size=self.context.options.batch_size)
        self._embeddings.append(checked_embeddings(embeddings, (len(pixels), self._model.dim), self._model.name))
        self._unencoded = []

    def _fit_kinds(self, table: Table) -> None:
        """Converts values of integer columns that another process has converted to doubles.

        Raises GalleryError when columns no longer exist.
        """
        stored: Mapping[str, Kind] = table.extras() if self._rows else self.context.kinds
        for name, kind in self.context.kinds.items():
            if stored.get(name) == kind:
                continue
            if (kind, stored.get(name)) != ("integer", "number"):
                raise GalleryError("an older snapshot of the gallery was restored while pictures were added; run again")
            for row in self._rows:
                row[name] = fitted(row.get(name), "number")

    def _unstored(self, table: Table) -> list[int]:
        """Indices of the pending rows that no other process has stored.

        Rows of a scene or video that another process has finished are left out, since its people may have been forgotten since.
        """
        self._alone = self._alone and table.state() == self._seen
        stored = set() if self._alone else table.present([row["id"] for row in self._rows])
        finished = self.context.known.finished_among(self._keys)
        return [place for place, row in enumerate(self._rows) if row["id"] not in stored and not finished[place]]

    def _committing(self, ids: list[str]) -> AbstractContextManager[None]:
        committing = self.context.options.footage.committing
        return nullcontext() if committing is None else committing(ids)

    def _see(self, table: Table) -> None:
        """Records the table's state. After an erasure, which replaces the table, reads the known rows again."""
        if not self._rows:
            return
        if table.name != self._seen[0]:
            self.context.known.replace(table.known())
        self._seen = table.state()
