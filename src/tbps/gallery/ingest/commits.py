"""Rows on their way into the table: encoded in batches, committed together, acknowledged after their commit."""

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from tbps.errors import GalleryError
from tbps.gallery.encoder import Encoder, checked_embeddings
from tbps.gallery.ingest.footage import Lookout, of_camera
from tbps.gallery.ingest.known import Known
from tbps.gallery.ingest.sources import Candidate
from tbps.gallery.store.columns import RowMetadata, fitted, row_metadata
from tbps.gallery.store.schema import Kind
from tbps.gallery.store.table import KnownRow, Table

Writing = Callable[[], AbstractContextManager[Table]]  # the gallery's lock, and the table that answers at that moment

COMMIT_ROWS = 256
COMMIT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Row:
    """One row to be; `pixels` (height, width, 3) uint8 is None when its hash is known; `origin`: the key of its scene or video."""

    candidate: Candidate
    content_hash: str
    pixels: np.ndarray | None
    thumbnail: bytes
    origin: str = ""


@dataclass(frozen=True, slots=True)
class Manner:
    """How to index. refresh: take over what has changed on the disk since (see `changes`)."""

    batch_size: int = 64
    refresh: bool = False


class Writer:
    """Gathers rows into encoder batches, and embedded rows into commits of 256 rows or 5 seconds.

    `pictures` counts those whose rows wait for a commit, `settled` those whose rows are committed, `met` the rows that another
    process had added by then, which are left out.
    """

    def __init__(
        self,
        writing: Writing,
        model: Encoder,
        kinds: Mapping[str, Kind],
        manner: Manner,
        lookout: Lookout,
        table: Table,
    ) -> None:
        batch_size = manner.batch_size
        self._writing, self._model, self.kinds, self._batch_size = writing, model, kinds, batch_size
        self.refresh = manner.refresh
        self._waiting: list[Row] = []
        self._rows: list[dict[str, Any]] = []
        self._origins: list[str] = []
        self._embeddings: list[np.ndarray] = []
        self._done: dict[str, Mapping[str, Any]] = {}
        self._last_commit = time.monotonic()
        self.lookout, self.spec, self.fingerprint, self.window = lookout, model.spec, model.fingerprint, 2 * batch_size
        self._alone, self._seen = True, table.state()  # whether nobody else has written since `known` was read
        self.known = Known(table.known())
        self.added = self.met = self.pictures = self.settled = 0

    def add(self, row: Row) -> None:
        metadata = row_metadata(row.candidate.columns, self.kinds)
        self.known.add(row.content_hash, known_row(row.candidate, metadata))
        self._rows.append(_table_row(row, metadata, self.fingerprint))
        self._origins.append(row.origin)
        self._waiting.append(row)
        if len(self._waiting) == self._batch_size:
            self._encode()

    def known_as(self, content_hash: str, columns: Mapping[str, Any]) -> str | None:
        """The hash under which the gallery holds a picture, as far as whoever adds it may know; None where it does not."""
        at_camera = of_camera(content_hash, columns)
        if at_camera in self.known:
            return at_camera
        known = self.known.get(content_hash)
        if known is None or self.lookout.footage.within is None:
            return content_hash if known is not None else None
        return content_hash if known.camera == row_metadata(columns, {}).camera else None

    def remember(self, key: str, told: Mapping[str, Any]) -> None:
        """Notes a scene or video as done, with the next commit."""
        self._done[key] = told

    def commit_if_due(self) -> bool:
        """Commits when enough rows or time have gathered, if it can whole encoder batches; whether it did."""
        rows, seconds = len(self._rows), time.monotonic() - self._last_commit
        due = rows >= COMMIT_ROWS or seconds >= COMMIT_SECONDS
        overdue = rows >= 2 * COMMIT_ROWS or seconds >= 2 * COMMIT_SECONDS
        if not (self._rows or self._done) or not (overdue or (due and not self._waiting)):
            return False
        self.commit()
        return True

    def commit(self) -> None:
        """Encodes what waits and commits every row, then what is done with them."""
        if self._waiting:
            self._encode()
        if self._rows or self._done:
            with self._writing() as table:
                self.lookout.record.refresh()
                if self._rows:
                    self._append(table, self._rows, np.concatenate(self._embeddings))
                self.lookout.record.append(self._done)
        self.settled, self.pictures = self.settled + self.pictures, 0
        self._rows, self._origins, self._embeddings, self._done, self._last_commit = [], [], [], {}, time.monotonic()

    def _append(self, table: Table, rows: list[dict[str, Any]], embeddings: np.ndarray) -> None:
        self._refit(rows, table.extras())
        self._alone = self._alone and table.state() == self._seen
        present = set() if self._alone else table.present([row["id"] for row in rows])
        # What another process has looked at to its end stays as it is: its people may have been forgotten since.
        finished = [origin in self.lookout.record for origin in self._origins]
        kept = [place for place, row in enumerate(rows) if row["id"] not in present and not finished[place]]
        if kept:
            committing = self.lookout.footage.committing or (lambda ids: nullcontext())
            with committing([rows[place]["id"] for place in kept]):
                table.append([rows[place] for place in kept], embeddings[kept])
        if table.name != self._seen[0]:  # rewritten by an erasure: what is gone is neither kept in memory nor taken for known
            self.known.renew(table.known())
        self._seen = table.state()
        self.added, self.met = self.added + len(kept), self.met + len(rows) - len(kept)

    def _refit(self, rows: list[dict[str, Any]], stored: Mapping[str, Kind]) -> None:
        """Fits rows to columns of whole numbers that another process has made columns of doubles meanwhile.

        Raises GalleryError where columns are gone.
        """
        for name in [name for name, kind in self.kinds.items() if stored.get(name) != kind]:
            if (self.kinds[name], stored.get(name)) != ("integer", "number"):
                raise GalleryError("an older snapshot of the gallery was restored while pictures were added; run again")
            for row in rows:
                row[name] = fitted(row.get(name), "number")

    def _encode(self) -> None:
        pixels = [row.pixels for row in self._waiting if row.pixels is not None]
        embeddings = self._model.encode_images([Image.fromarray(p) for p in pixels], batch_size=self._batch_size)
        self._embeddings.append(checked_embeddings(embeddings, (len(pixels), self._model.dim), self._model.name))
        self._waiting = []


def _table_row(item: Row, metadata: RowMetadata, fingerprint: str) -> dict[str, Any]:
    return {
        "id": item.content_hash[:24],
        "thumbnail": item.thumbnail,
        "source": item.candidate.name,
        "root": item.candidate.root,
        "identity": metadata.identity,
        "camera": metadata.camera,
        "captured_at": metadata.captured_at,
        "attributes": metadata.attributes,
        "content_hash": item.content_hash,
        "model": fingerprint,
        **metadata.extras,
    }


def known_row(candidate: Candidate, metadata: RowMetadata) -> KnownRow:
    """What is remembered of a row to tell how the same file differs later."""
    return KnownRow(candidate.root, candidate.name, metadata.identity, metadata.camera, metadata.captured_at, metadata.attributes)
