"""The columns of a gallery's table: their types, and whether filters, hits and exports include them.

id            first 24 hexadecimal digits of content_hash; stable, reveals nothing about the picture
embedding     (dim,) float32 unit vector
thumbnail     JPEG bytes within 224 x 256
source, root  path below the folder that was indexed, and that folder ("" for a picture that was given in memory)
identity, camera, captured_at (timestamp, UTC)      from the metadata, or null
attributes    all other metadata as JSON text
content_hash  SHA-256 of the file's bytes
model         fingerprint of the model
...           one column (text, number, integer or truth) for each other metadata column of simple values

Filters, hits and exports each use an allow-list that is derived from `COLUMNS`: a new column is included only where its entry says
so. The kind `integer` stores whole numbers of up to 64 bits exactly; messages call both `integer` and `number` columns "number".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

Kind = Literal["text", "number", "integer", "truth"]

TYPES: dict[Kind, Any] = {"text": pa.string(), "number": pa.float64(), "integer": pa.int64(), "truth": pa.bool_()}


@dataclass(frozen=True, slots=True)
class OwnColumn:
    """A column that every gallery has.

    kind: its kind in filters, None if no filter may name it; in_hits: read for every hit; in_exports: written to exports unchanged.
    """

    name: str
    type: Any
    nullable: bool = False
    kind: str | None = None
    in_hits: bool = False
    in_exports: bool = False


COLUMNS: tuple[OwnColumn, ...] = (
    OwnColumn("id", pa.string(), kind="text", in_hits=True, in_exports=True),
    OwnColumn("embedding", None),
    OwnColumn("thumbnail", pa.binary()),
    OwnColumn("source", pa.string(), kind="text", in_hits=True, in_exports=True),
    OwnColumn("root", pa.string(), in_hits=True, in_exports=True),
    OwnColumn("identity", pa.string(), nullable=True, kind="text", in_hits=True, in_exports=True),
    OwnColumn("camera", pa.string(), nullable=True, kind="text", in_hits=True, in_exports=True),
    OwnColumn("captured_at", pa.timestamp("us"), nullable=True, kind="time", in_hits=True, in_exports=True),
    OwnColumn("attributes", pa.string(), kind="JSON text", in_hits=True, in_exports=True),
    OwnColumn("content_hash", pa.string(), in_exports=True),
    OwnColumn("model", pa.string()),
)
WIDENED = "WIDENED_"  # name prefix of a column that is being converted to doubles; no metadata column has capital letters
RESERVED = frozenset(column.name for column in COLUMNS)
HIT_COLUMNS = [column.name for column in COLUMNS if column.in_hits]
EXPORT_COLUMNS = tuple(column.name for column in COLUMNS if column.in_exports)
OWN_KINDS: Mapping[str, str] = {column.name: column.kind for column in COLUMNS if column.kind is not None}


def row_schema(dim: int) -> Any:
    """The Arrow schema of a new table; embeddings have `dim` numbers."""
    vector = pa.list_(pa.float32(), dim)
    return pa.schema([pa.field(each.name, vector if each.type is None else each.type, each.nullable) for each in COLUMNS])


def filter_kinds(schema: Any) -> dict[str, str]:
    """The columns that a filter may name, with their kinds."""
    return {**OWN_KINDS, **extra_kinds(schema)}


def extra_kinds(schema: Any) -> dict[str, Kind]:
    """The columns that come from metadata, with their kinds."""
    by_type: dict[Any, Kind] = {arrow: kind for kind, arrow in TYPES.items()}
    extras = [field for field in schema if field.name not in RESERVED and not field.name.startswith(WIDENED)]
    return {field.name: by_type[field.type] for field in extras if field.type in by_type}


def told_kind(kind: str) -> str:
    """The kind of a column for messages, which call both kinds of numbers "number"."""
    return "number" if kind == "integer" else kind
