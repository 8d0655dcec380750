"""The LanceDB table of a gallery: reads and commits rows, copies the table with rows removed or changed, compacts it."""

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float32

from tbps.errors import GalleryError
from tbps.gallery.store.database import lancedb, talking_to
from tbps.gallery.store.filter_sql import VALUES_AT_ONCE, ids_sql, sql_of
from tbps.gallery.store.filters import Condition
from tbps.gallery.store.numbers import EXACT, canonical_name
from tbps.gallery.store.schema import TYPES, WIDENED, Kind, extra_kinds, filter_kinds, row_schema
from tbps.gallery.store.staleness import state_of
from tbps.gallery.store.version import Shortlist, Version

FIRST_TABLE = "images"
_MANY_FRAGMENTS = 64
_AGE = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class KnownRow:
    """The columns of a row that are compared when its image is indexed again: path and metadata."""

    root: str
    source: str
    identity: str | None
    camera: str | None
    captured_at: datetime | None
    attributes: str


@dataclass(frozen=True, slots=True)
class CameraSpan:
    """Number of images of a camera, and the times of the first and the last; None if no image has a time."""

    camera: str | None
    images: int
    first: datetime | None
    last: datetime | None


@final
class Table:
    """Reads and writes the newest version of a table; one process at a time may write (see `lock`)."""

    def __init__(self, folder: Path, handle: Any) -> None:
        self.folder = folder
        self._handle = handle
        self.name: str = handle.name

    @classmethod
    def open(cls, folder: Path, dim: int, name: str = FIRST_TABLE) -> "Table | None":
        """Opens a table of a gallery folder; None if it does not exist yet.

        Raises GalleryError if it is damaged or its columns are not those of a gallery.
        """
        store = folder / f"{name}.lance"
        if not any((store / "_versions").glob("*.manifest")) and not any((store / "data").glob("*")):
            return None  # a process killed while it creates a table leaves a folder without versions and rows
        with talking_to(folder):
            handle = lancedb.connect(folder).open_table(name)
            schema = handle.schema
        expected = row_schema(dim)
        if any(name not in schema.names or schema.field(name).type != expected.field(name).type for name in expected.names):
            raise GalleryError(f"the table of gallery {folder} does not fit its manifest; restore it, or index again")
        return cls(folder, handle)

    @classmethod
    def create(cls, folder: Path, dim: int, name: str = FIRST_TABLE) -> "Table":
        """Creates an empty table. Raises StorageError if it cannot be written."""
        with talking_to(folder):
            return cls(folder, lancedb.connect(folder).create_table(name, schema=row_schema(dim), exist_ok=True))

    @classmethod
    def begin(cls, folder: Path, dim: int, name: str = FIRST_TABLE) -> "Table":
        """Opens the table, or creates it. Raises as `open` and `create`."""
        return cls.open(folder, dim, name) or cls.create(folder, dim, name)

    @property
    def version_number(self) -> int:
        """The newest version's number."""
        with talking_to(self.folder):
            self._handle.checkout_latest()
            return int(self._handle.version)

    def state(self) -> tuple[str, int]:
        """A value that changes whenever the table is written to."""
        return self.name, self.version_number

    def __len__(self) -> int:
        with talking_to(self.folder):
            self._handle.checkout_latest()
            return int(self._handle.count_rows())

    def kinds(self) -> dict[str, str]:
        """The columns that a filter may name, with their kinds."""
        return filter_kinds(self._schema())

    def extras(self) -> dict[str, Kind]:
        """The columns that come from metadata, with their kinds."""
        return extra_kinds(self._schema())

    def _schema(self) -> Any:
        with talking_to(self.folder):
            self._handle.checkout_latest()  # another process may have added columns
            return self._handle.schema

    def versions(self) -> int:
        """How many versions are on disk."""
        with talking_to(self.folder):
            return len(self._handle.list_versions())

    def open_version(
        self, before: Version | None = None, hidden: Collection[str] = (), shortlist: Shortlist | None = None
    ) -> Version:
        """The newest version, with every embedding in memory; see `Version` for the arguments.

        Raises StaleVersionError if a writer removed its files while they were read.
        """
        opened = state_of(self.folder)
        with talking_to(self.folder):
            handle = lancedb.connect(self.folder).open_table(self.name)
        return Version(self.folder, handle, opened, before, hidden, shortlist)

    def known(self) -> dict[str, KnownRow]:
        """Path and metadata of every row, by content hash."""
        columns = ["content_hash", "root", "source", "identity", "camera", "captured_at", "attributes"]
        found: dict[str, KnownRow] = {}
        for batch in self.batches(columns):
            found |= {row.pop("content_hash"): KnownRow(**_named(row)) for row in batch.to_pylist()}
        return found

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[Any]:
        """All rows of the newest version as Arrow record batches; columns: in that order, None for all."""
        wanted = list(self._handle.schema.names if columns is None else columns)
        with talking_to(self.folder):
            self._handle.checkout_latest()
            for batch in self._handle.search().select(wanted).to_batches():
                yield batch.select(wanted)

    def matching(self, condition: Condition, columns: Sequence[str], ids: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """The given columns of the rows that satisfy a condition; ids: only rows with one of these.

        Raises QueryError on an unknown column, and on a value that does not fit its column.
        """
        clause, wanted = sql_of(condition, self.kinds()), list(columns)
        clauses = [clause] if ids is None else [f"({clause} and {ids_sql(some)})" for some in _chunks(ids)]
        with talking_to(self.folder):
            self._handle.checkout_latest()
            return [row for each in clauses for row in self._handle.search().where(each).select(wanted).to_arrow().to_pylist()]

    def rows(self, ids: Sequence[str], columns: Sequence[str] | None = None) -> Any:
        """The rows with some ids as an Arrow table; ids without a row are ignored; columns: None for all."""
        wanted = list(self._handle.schema.names if columns is None else columns)
        with talking_to(self.folder):
            self._handle.checkout_latest()
            parts = [self._handle.search().where(ids_sql(some)).select(wanted).to_arrow().select(wanted) for some in _chunks(ids)]
        return pa.concat_tables(parts) if parts else self._handle.schema.empty_table().select(wanted)

    def present(self, ids: Sequence[str]) -> set[str]:
        """The subset of the ids that have a row."""
        return set(self.rows(ids, ["id"]).column("id").to_pylist())

    def count_of(self, ids: Collection[str]) -> int:
        """The number of ids that have a row."""
        wanted = pa.array(sorted(ids), pa.string())
        return sum(pc.sum(pc.is_in(batch.column("id"), value_set=wanted)).as_py() or 0 for batch in self.batches(["id"]))

    def cameras(self) -> list[CameraSpan]:
        """The cameras by name, with number of images and time span; images without a camera last."""
        parts = [pa.Table.from_batches([batch]) for batch in self.batches(["camera", "captured_at"])]
        if not parts:
            return []
        spans = pa.concat_tables(parts).group_by("camera")
        found = spans.aggregate([([], "count_all"), ("captured_at", "min"), ("captured_at", "max")]).to_pylist()
        cameras = [CameraSpan(row["camera"], row["count_all"], row["captured_at_min"], row["captured_at_max"]) for row in found]
        return sorted(cameras, key=lambda span: (span.camera is None, span.camera or ""))

    def doubles_hold(self, name: str) -> bool:
        """Whether doubles can hold all values of an integer column exactly."""
        values = pa.chunked_array([batch.column(name) for batch in self.batches([name])], pa.int64())
        least, most = pc.min_max(values).values()
        return (least.as_py() or 0) >= -EXACT and (most.as_py() or 0) <= EXACT

    def add_columns(self, kinds: Mapping[str, Kind]) -> None:
        """Adds filter columns that do not exist yet; older rows hold null.

        An integer column is converted to doubles if its kind in `kinds` is "number". That takes three commits; if the process is
        killed in between, the next call completes the conversion.
        """
        self._complete_widening()
        for name in [name for name, kind in self.extras().items() if kind == "integer" and kinds.get(name) == "number"]:
            with talking_to(self.folder):
                self._handle.add_columns({f"{WIDENED}{name}": f"cast(`{name}` as double)"})
                self._handle.drop_columns([name])
            self._complete_widening()
        missing = [pa.field(name, TYPES[kind]) for name, kind in kinds.items() if name not in self._handle.schema.names]
        if missing:
            with talking_to(self.folder):
                self._handle.add_columns(missing)

    def _complete_widening(self) -> None:
        with talking_to(self.folder):
            self._handle.checkout_latest()
            for begun in [name for name in self._handle.schema.names if name.startswith(WIDENED)]:
                name = begun.removeprefix(WIDENED)
                if name in self._handle.schema.names:
                    self._handle.drop_columns([begun])
                else:
                    self._handle.alter_columns({"path": begun, "rename": name})

    def append(self, rows: list[dict[str, Any]], embeddings: Float32[np.ndarray, "N dim"]) -> None:
        """Commits N rows with their embeddings, all or none. rows: the other columns; missing ones are null."""
        schema = self._handle.schema
        columns = [
            _vectors(embeddings) if field.name == "embedding" else pa.array([row.get(field.name) for row in rows], field.type)
            for field in schema
        ]
        with talking_to(self.folder):
            self._handle.add(pa.Table.from_arrays(columns, schema=schema))

    def append_embedded(self, rows: Any, embeddings: Float32[np.ndarray, "N dim"], model: str) -> None:
        """Commits N rows of another table with the embeddings of a model. rows: an Arrow table; this table has all its columns."""
        self.append([{**row, "model": model} for row in rows.drop_columns(["embedding"]).to_pylist()], embeddings)

    def copy_without(self, ids: Collection[str], name: str) -> "Table":
        """Copies all rows except those with the given ids to a new table `name` with one version; the tables share no files."""
        gone = pa.array(sorted(ids), pa.string())
        return self._copy(name, (_without(batch, gone) for batch in self.batches()))

    def copy_changed(self, ids: Collection[str], updates: Mapping[str, Mapping[str, Any]], name: str) -> "Table":
        """As `copy_without`, and sets new values in some rows. updates: id -> column -> value."""
        gone, changed = (pa.array(sorted(each), pa.string()) for each in (ids, updates))

        def rows() -> Iterator[Any]:
            for batch in self.batches():
                kept = _without(batch, gone)
                touched = pc.any(pc.is_in(kept.column("id"), value_set=changed)).as_py()
                yield _updated(kept, updates) if touched else kept

        return self._copy(name, rows())

    def _copy(self, name: str, batches: Iterator[Any]) -> "Table":
        """Writes Arrow batches to a new table. An error of the iterator is raised unchanged, although it passes through LanceDB."""
        errors: list[Exception] = []

        def recorded() -> Iterator[Any]:
            try:
                yield from batches
            except Exception as error:
                errors.append(error)
                raise

        try:
            with talking_to(self.folder):
                reader = pa.RecordBatchReader.from_batches(self._handle.schema, recorded())
                return Table(self.folder, lancedb.connect(self.folder).create_table(name, data=reader))
        except Exception as error:
            if errors:
                raise errors[0] from error
            raise

    def tidy(self) -> None:
        """Compacts the table if that is worth the cost. Call under the gallery's lock, as for `compact`.

        Compacting rewrites up to the whole table. So it is done only if at least a tenth of the rows lie outside the largest
        fragment, or if there are many fragments.
        """
        with talking_to(self.folder):
            self._handle.checkout_latest()
            stats = self._handle.stats()["fragment_stats"]
            fragments, rows = stats["num_fragments"], self._handle.count_rows()
        if fragments >= _MANY_FRAGMENTS or (fragments > 1 and 10 * (rows - stats["lengths"]["max"]) >= rows):
            self.compact()

    def compact(self) -> None:
        """Merges fragments, and deletes old versions and files that killed writers left.

        Call under the gallery's lock, as it deletes uncommitted files of other writers too.
        """
        with talking_to(self.folder):
            self._handle.checkout_latest()
            self._handle.optimize()
            # Merging commits twice, and the first of these versions still needs the old files: wait until it can be deleted too.
            time.sleep(2 * _AGE.total_seconds())
            # LanceDB would warn about readers of older versions if the age were 0; readers of this package retry (see `staleness`).
            self._handle.optimize(cleanup_older_than=_AGE, delete_unverified=True)


def _chunks(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (ids[at : at + VALUES_AT_ONCE] for at in range(0, len(ids), VALUES_AT_ONCE))


def _without(batch: Any, ids: Any) -> Any:
    """An Arrow batch without the rows with some ids."""
    return batch.filter(pc.invert(pc.is_in(batch.column("id"), value_set=ids)))


def _updated(batch: Any, updates: Mapping[str, Mapping[str, Any]]) -> Any:
    """An Arrow batch with new values in some columns of some rows; columns without new values are not copied."""
    found = [updates.get(id, {}) for id in batch.column("id").to_pylist()]
    named = {column for row in found for column in row}
    columns = [
        pa.array([row.get(field.name, old) for row, old in zip(found, column.to_pylist(), strict=True)], field.type)
        if field.name in named
        else column
        for field, column in zip(batch.schema, batch.columns, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def _named(row: dict[str, Any]) -> dict[str, Any]:
    """A row with canonical identity and camera: version 0.1 stored the number 7.0 as "7.0" instead of "7"."""
    return row | {name: canonical_name(row[name]) for name in ("identity", "camera") if row[name] is not None}


def _vectors(embeddings: Float32[np.ndarray, "N dim"]) -> Any:
    return pa.FixedSizeListArray.from_arrays(pa.array(embeddings.ravel()), embeddings.shape[1])
