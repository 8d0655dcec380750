"""The LanceDB table of a gallery: its columns, committed appends, tidying, and the database's errors in the project's words.

id            first 24 hexadecimal digits of content_hash; stable, says nothing about the picture
embedding     (dim,) float32 unit vector
thumbnail     JPEG bytes within 224 x 256
source, root  name below the folder it was indexed from, and that folder ("" for a picture that never was a file)
identity, camera, captured_at (timestamp, UTC)      given in the metadata or null
attributes    every further given column as JSON text
content_hash  SHA-256 of the file's bytes
model         fingerprint of the model
...           one column (text, number or truth) for each simple further metadata column
"""

import json
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, final

os.environ.setdefault("LANCE_LOG", "error")  # read once, when lancedb is imported

import lancedb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float32, Float64, Integer

from tbps.errors import GalleryError, StorageError
from tbps.search.calibration import Spread
from tbps.search.columns import Kind
from tbps.search.facts import FACTS, Facts
from tbps.search.filters import Filter, about_filter, refusal
from tbps.search.hits import Hit
from tbps.search.rows import Rows
from tbps.search.scope import Scope

FIRST_TABLE = "images"
_TYPES: dict[Kind, Any] = {"text": pa.string(), "number": pa.float64(), "truth": pa.bool_()}
_FILTER_KINDS = {
    "id": "text",
    "source": "text",
    "identity": "text",
    "camera": "text",
    "captured_at": "time",
    "attributes": "JSON text",
}
_FULL = re.compile(r"\(os error (28|122|27)\)")  # no space, quota, file too large
_REFUSED = re.compile(r"\(os error (1|13|30)\)")  # not permitted, permission denied, read-only
_MANY_FRAGMENTS = 64
_IDS_AT_ONCE = 1024
_FILTERS_KEPT = 16
_SCOPES_KEPT = 8


def row_schema(dim: int) -> Any:
    """The Arrow schema of a new table."""
    text, required = pa.string(), False
    return pa.schema(
        [
            pa.field("id", text, required),
            pa.field("embedding", pa.list_(pa.float32(), dim), required),
            pa.field("thumbnail", pa.binary(), required),
            pa.field("source", text, required),
            pa.field("root", text, required),
            pa.field("identity", text),
            pa.field("camera", text),
            pa.field("captured_at", pa.timestamp("us")),
            pa.field("attributes", text, required),
            pa.field("content_hash", text, required),
            pa.field("model", text, required),
        ]
    )


@dataclass(frozen=True, slots=True)
class KnownRow:
    """What is needed to tell whether an image that is already in the gallery comes again with the same name and metadata."""

    source: str
    identity: str | None
    camera: str | None
    captured_at: datetime | None
    attributes: str


@dataclass(frozen=True, slots=True)
class CameraSpan:
    """How many images a camera has and when it took the first and the last; None where no image has a time."""

    camera: str | None
    images: int
    first: datetime | None
    last: datetime | None


@contextmanager
def _database(folder: Path) -> Iterator[None]:
    """The database's errors as StorageError or GalleryError naming `folder`."""
    try:
        yield
    except UnicodeEncodeError as error:
        raise StorageError(f"the path of gallery {folder} is not UTF-8 text, which the database needs; choose another") from error
    except (RuntimeError, OSError, ValueError) as error:
        text = str(error)
        if _FULL.search(text):
            raise StorageError(
                f"the disk of gallery {folder} is full; every image committed so far is kept; free space and run again"
            ) from error
        if _REFUSED.search(text):
            raise StorageError(
                f"gallery {folder} cannot be written; check that the disk is writable and its permissions"
            ) from error
        reason = text.partition("\n")[0][:300]
        raise GalleryError(f"gallery {folder} is damaged ({reason}); restore it, or index again into a new folder") from error


@final
class Snapshot:
    """One version of the table, read only: its own handle, every row's id and embedding in memory.

    before: an older one, of which the rows in memory are used where the table has only grown.
    """

    def __init__(self, folder: Path, handle: Any, before: "Snapshot | None" = None) -> None:
        self._folder = folder
        self._handle = handle
        self.version: int = handle.version
        self.kinds = filter_kinds(handle.schema)
        self.rows: Rows = self._read(None if before is None else before.rows)
        self._facts: Facts | None = None
        if before is not None and before._facts is not None:
            self.hold(before)
        self._passing: dict[str, Integer[np.ndarray, " M"]] = {}
        self._columns: dict[str, Column] = {}
        self._scopes: dict[tuple[str, ...], Scope] = {}

    def hold(self, before: "Snapshot | None" = None) -> None:
        """Reads what hits tell of their rows into memory, thumbnails aside; only the newer rows where `before` has grown."""
        query, known = self._handle.search(), None
        if before is not None and before.rows.room is self.rows.room and before.rows.count:
            query, known = query.where(f"_rowid > {int(before.rows.row_ids[-1])}"), before._facts
        with _database(self._folder):
            self._facts = Facts(query.select(FACTS).with_row_id(True).to_arrow(), known)

    def scope(self, cameras: Sequence[str]) -> Scope:
        """The rows of some cameras; those of the last few choices are remembered."""
        wanted = tuple(sorted(set(cameras)))
        if (known := self._scopes.get(wanted)) is not None:
            return known
        column = self.column("camera")
        codes = [code for code, camera in enumerate(column.values) if camera in wanted]
        positions = np.flatnonzero(np.isin(column.codes, codes))

        def read() -> Any:
            with _database(self._folder):
                found = self._handle.search().select(list(self.kinds)).with_row_id(True).to_arrow()
            order = np.argsort(found.column("_rowid").to_numpy())
            return found.drop_columns(["_rowid"]).take(order[positions])

        scope = Scope(positions, self.rows, self.kinds, read)
        self._scopes = dict([*self._scopes.items(), (wanted, scope)][-_SCOPES_KEPT:])
        return scope

    def passing(self, filtered: Filter) -> Integer[np.ndarray, " M"]:
        """Ascending positions of the rows that a filter lets through; those of the last few filters are remembered.

        Raises QueryError on a filter that cannot be read.
        """
        if (known := self._passing.get(filtered.clause)) is not None:
            return known
        with _database(self._folder):
            try:
                found = self._handle.search().where(filtered.clause).select(["id"]).with_row_id(True).to_arrow()
            except (ValueError, RuntimeError) as error:
                if not about_filter(error):
                    raise
                raise refusal(filtered.text, error, self.kinds) from error
        positions = np.searchsorted(self.rows.row_ids, np.sort(found.column("_rowid").to_numpy()))
        self._passing = dict([*self._passing.items(), (filtered.clause, positions)][-_FILTERS_KEPT:])
        return positions

    @cached_property
    def spread(self) -> Spread:
        """How the embeddings are spread."""
        return Spread(self.rows.embeddings)

    def column(self, name: str) -> "Column":
        """The values of a filter column for every row, in memory from the first time on."""
        if name not in self._columns:
            with _database(self._folder):
                found = self._handle.search().select([name]).with_row_id(True).to_arrow()
            order = np.argsort(found.column("_rowid").to_numpy())
            encoded = found.column(name).combine_chunks().dictionary_encode()
            codes = encoded.indices.fill_null(-1).to_numpy()[order]
            self._columns = self._columns | {name: Column(codes, encoded.dictionary.to_pylist())}
        return self._columns[name]

    def hits(self, positions: Integer[np.ndarray, " hits"], scores: Float64[np.ndarray, " hits"], first: int = 1) -> list[Hit]:
        """The rows at `positions`, in that order, as hits ranked from `first` on."""
        if not len(positions):
            return []
        facts = self._facts
        columns = [*FACTS, "thumbnail"] if facts is None else ["id", "thumbnail"]
        with _database(self._folder):
            wanted = [int(row) for row in self.rows.row_ids[positions]]
            rows = {row["id"]: row for row in self._handle.take_row_ids(wanted).select(columns).to_arrow().to_pylist()}
            ordered = [rows[name.decode()] for name in self.rows.ids[positions]]
        if facts is not None:
            ordered = [held | row for held, row in zip(facts.at(positions), ordered, strict=True)]
        return [_hit(rank, float(score), row) for rank, (score, row) in enumerate(zip(scores, ordered, strict=True), start=first)]

    def _read(self, before: Rows | None) -> Rows:
        with _database(self._folder):
            count = self._handle.count_rows()
            if before is not None and before.count and self._begins_with(before):
                # Row ids only rise: if the rows above the last known one make up the difference, no known row is gone or moved.
                newer = f"_rowid > {int(before.row_ids[-1])}"
                if before.count + self._handle.count_rows(newer) == count:
                    return self._scan(before, self._handle.search().where(newer))
            dim = self._handle.schema.field("embedding").type.list_size
            return self._scan(Rows.room_for(count, dim), self._handle.search())

    def _begins_with(self, before: Rows) -> bool:
        """Whether the last known row is what it was; it is not in a table that was rewritten, or removed and made again."""
        last = self._handle.search().where(f"_rowid = {int(before.row_ids[-1])}").select(["id", "embedding"]).to_arrow()
        if not len(last):
            return False
        same = np.array_equal(last.column("embedding").combine_chunks().flatten().to_numpy(), before.embeddings[-1])
        return same and last.column("id")[0].as_py() == before.ids[-1].decode()

    def _scan(self, rows: Rows, query: Any) -> Rows:
        """The rows with those of a query behind them."""
        start = rows.count
        for batch in query.select(["id", "embedding"]).with_row_id(True).to_batches():
            rows = rows.extended(
                batch.column("_rowid").to_numpy(),
                batch.column("id").to_numpy(zero_copy_only=False).astype("S24"),
                batch.column("embedding").flatten().to_numpy().reshape(batch.num_rows, -1),
            )
        if (np.diff(rows.row_ids[start:].astype(np.int64)) > 0).all():
            return rows
        order = np.append(np.arange(start), start + np.argsort(rows.row_ids[start:]))
        empty = Rows.room_for(rows.count, rows.embeddings.shape[1])
        return empty.extended(rows.row_ids[order], rows.ids[order], rows.embeddings[order])


@dataclass(frozen=True, slots=True)
class Column:
    """codes: for each row the place of its value in `values`, -1 for null."""

    codes: Integer[np.ndarray, " N"]
    values: Sequence[Any]


def _hit(rank: int, score: float, row: Mapping[str, Any]) -> Hit:
    captured = row["captured_at"]
    return Hit(
        rank=rank,
        score=score,
        id=row["id"],
        source=row["source"],
        root=row["root"],
        camera=row["camera"],
        captured_at=None if captured is None else captured.isoformat(),
        identity=row["identity"],
        attributes=json.loads(row["attributes"]),
        thumbnail=row["thumbnail"],
    )


def filter_kinds(schema: Any) -> dict[str, str]:
    """The columns that a filter may name, with their kinds."""
    return _FILTER_KINDS | dict(extra_kinds(schema))


def extra_kinds(schema: Any) -> dict[str, Kind]:
    """The kinds of the columns that came from metadata."""
    fixed = set(row_schema(1).names)
    by_type: dict[Any, Kind] = {arrow: kind for kind, arrow in _TYPES.items()}
    return {field.name: by_type[field.type] for field in schema if field.name not in fixed}


@final
class Table:
    """The newest version of one table; one process at a time may write (see `lock`)."""

    def __init__(self, folder: Path, handle: Any) -> None:
        self._folder = folder
        self._handle = handle
        self.name: str = handle.name

    @classmethod
    def open(cls, folder: Path, dim: int, name: str = FIRST_TABLE) -> "Table | None":
        """The table of a gallery folder, None where none was made yet. Raises GalleryError when it is damaged or foreign."""
        store = folder / f"{name}.lance"
        if not any((store / "_versions").glob("*.manifest")) and not any((store / "data").glob("*")):
            return None  # a kill while it was made leaves a folder without a version and without rows
        with _database(folder):
            handle = lancedb.connect(folder).open_table(name)
            schema = handle.schema
        expected = row_schema(dim)
        if any(name not in schema.names or schema.field(name).type != expected.field(name).type for name in expected.names):
            raise GalleryError(f"the table of gallery {folder} does not fit its manifest; restore it, or index again")
        return cls(folder, handle)

    @classmethod
    def create(cls, folder: Path, dim: int, name: str = FIRST_TABLE) -> "Table":
        """An empty table. Raises StorageError where it cannot be written."""
        with _database(folder):
            return cls(folder, lancedb.connect(folder).create_table(name, schema=row_schema(dim), exist_ok=True))

    @classmethod
    def begin(cls, folder: Path, dim: int, name: str = FIRST_TABLE) -> "Table":
        """The table, made where it is not there yet. Raises as `open` and `create`."""
        return cls.open(folder, dim, name) or cls.create(folder, dim, name)

    @property
    def version(self) -> int:
        """The newest version's number."""
        with _database(self._folder):
            self._handle.checkout_latest()
            return int(self._handle.version)

    def state(self) -> tuple[str, int]:
        """Equal as long as nobody writes."""
        return self.name, self.version

    def __len__(self) -> int:
        with _database(self._folder):
            self._handle.checkout_latest()
            return int(self._handle.count_rows())

    def kinds(self) -> dict[str, str]:
        """The columns that a filter may name, with their kinds."""
        return filter_kinds(self._handle.schema)

    def extras(self) -> dict[str, Kind]:
        """The kinds of the columns that came from metadata."""
        return extra_kinds(self._handle.schema)

    def versions(self) -> int:
        """How many versions are on disk."""
        with _database(self._folder):
            return len(self._handle.list_versions())

    def snapshot(self, before: Snapshot | None = None) -> Snapshot:
        """The newest version, whole in memory, which it shares with an older one where it can."""
        version = self.version
        try:
            with _database(self._folder):
                handle = lancedb.connect(self._folder).open_table(self.name)
            return Snapshot(self._folder, handle, before)
        except GalleryError:
            if self.version == version:
                raise
            return self.snapshot(before)  # its files were removed while they were read

    def known(self) -> dict[str, KnownRow]:
        """Content hash -> what is known of it, for every row."""
        columns = ["content_hash", "source", "identity", "camera", "captured_at", "attributes"]
        found: dict[str, KnownRow] = {}
        for batch in self.batches(columns):
            found |= {row.pop("content_hash"): KnownRow(**row) for row in batch.to_pylist()}
        return found

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[Any]:
        """Every row of the newest version as Arrow record batches, all columns or those named, in that order."""
        wanted = list(self._handle.schema.names if columns is None else columns)
        with _database(self._folder):
            self._handle.checkout_latest()
            for batch in self._handle.search().select(wanted).to_batches():
                yield batch.select(wanted)

    def matching(self, clause: str, columns: Sequence[str]) -> list[dict[str, Any]]:
        """The rows that pass an SQL condition, those columns only. Raises QueryError on a condition that cannot be read."""
        with _database(self._folder):
            self._handle.checkout_latest()
            try:
                found = self._handle.search().where(clause).select(list(columns)).to_arrow()
            except (ValueError, RuntimeError) as error:
                if not about_filter(error):
                    raise
                raise refusal(clause.replace("\n", ""), error, self.kinds()) from error
        return list(found.to_pylist())

    def rows(self, ids: Sequence[str], columns: Sequence[str] | None = None) -> Any:
        """The rows with those ids that are there, as an Arrow table of all columns or those named."""
        wanted = list(self._handle.schema.names if columns is None else columns)
        with _database(self._folder):
            self._handle.checkout_latest()
            parts = [
                self._handle.search().where(ids_clause(ids[at : at + _IDS_AT_ONCE])).select(wanted).to_arrow().select(wanted)
                for at in range(0, len(ids), _IDS_AT_ONCE)
            ]
        return pa.concat_tables(parts) if parts else self._handle.schema.empty_table().select(wanted)

    def present(self, ids: Sequence[str]) -> set[str]:
        """Those of the ids that have a row."""
        return set(self.rows(ids, ["id"]).column("id").to_pylist())

    def count_of(self, ids: Collection[str]) -> int:
        """How many of the ids have a row."""
        wanted = pa.array(sorted(ids), pa.string())
        return sum(pc.sum(pc.is_in(batch.column("id"), value_set=wanted)).as_py() or 0 for batch in self.batches(["id"]))

    def cameras(self) -> list[CameraSpan]:
        """Every camera with its count and time span, by name; images without a camera last."""
        parts = [pa.Table.from_batches([batch]) for batch in self.batches(["camera", "captured_at"])]
        if not parts:
            return []
        spans = pa.concat_tables(parts).group_by("camera")
        found = spans.aggregate([([], "count_all"), ("captured_at", "min"), ("captured_at", "max")]).to_pylist()
        cameras = [CameraSpan(row["camera"], row["count_all"], row["captured_at_min"], row["captured_at_max"]) for row in found]
        return sorted(cameras, key=lambda span: (span.camera is None, span.camera or ""))

    def add_columns(self, kinds: Mapping[str, Kind]) -> None:
        """Adds the filter columns that are not there yet; older rows hold null."""
        missing = [pa.field(name, _TYPES[kind]) for name, kind in kinds.items() if name not in self._handle.schema.names]
        if missing:
            with _database(self._folder):
                self._handle.add_columns(missing)

    def append(self, rows: list[dict[str, Any]], embeddings: Float32[np.ndarray, "N dim"]) -> None:
        """Commits N rows (every column but `embedding`; absent ones are null) with their embeddings: all or none."""
        schema = self._handle.schema
        columns = [
            _vectors(embeddings) if field.name == "embedding" else pa.array([row.get(field.name) for row in rows], field.type)
            for field in schema
        ]
        with _database(self._folder):
            self._handle.add(pa.Table.from_arrays(columns, schema=schema))

    def append_embedded(self, rows: Any, embeddings: Float32[np.ndarray, "N dim"], model: str) -> None:
        """Commits N rows of another table (Arrow, its extra columns among the table's own) under a model's embeddings."""
        self.append([{**row, "model": model} for row in rows.drop_columns(["embedding"]).to_pylist()], embeddings)

    def copy_without(self, ids: Collection[str], name: str) -> "Table":
        """A new table `name` beside this one: every row but those with the ids, one version, nothing else of this one."""
        gone = pa.array(sorted(ids), pa.string())

        def kept() -> Iterator[Any]:
            for batch in self.batches():
                yield batch.filter(pc.invert(pc.is_in(batch.column("id"), value_set=gone)))

        with _database(self._folder):
            reader = pa.RecordBatchReader.from_batches(self._handle.schema, kept())
            return Table(self._folder, lancedb.connect(self._folder).create_table(name, data=reader))

    def tidy(self) -> None:
        """Merges small fragments and removes old versions and the leftovers of killed writers, when that is worth its cost.

        Only under the gallery's lock: it removes files that a second writer might be about to commit. Rewriting costs up to the
        size of the table, so it waits until a tenth of the rows lie outside the largest fragment or fragments are many.
        """
        with _database(self._folder):
            self._handle.checkout_latest()
            stats = self._handle.stats()["fragment_stats"]
            fragments, rows = stats["num_fragments"], self._handle.count_rows()
        if fragments >= _MANY_FRAGMENTS or (fragments > 1 and 10 * (rows - stats["lengths"]["max"]) >= rows):
            self.compact()

    def compact(self) -> None:
        """Merges fragments and removes old versions and the leftovers of killed writers, whatever it costs; under the lock."""
        with _database(self._folder):
            self._handle.checkout_latest()
            # Not 0, which warns of readers at older versions: those read again (see `engine`).
            self._handle.optimize(cleanup_older_than=timedelta(milliseconds=1), delete_unverified=True)


def ids_clause(ids: Sequence[str]) -> str:
    """The SQL condition that a row has one of these ids."""
    return f"id in ({', '.join(quoted(name) for name in ids)})"


def quoted(text: str) -> str:
    """An SQL text literal."""
    return "'" + text.replace("'", "''") + "'"


def _vectors(embeddings: Float32[np.ndarray, "N dim"]) -> Any:
    return pa.FixedSizeListArray.from_arrays(pa.array(embeddings.ravel()), embeddings.shape[1])
