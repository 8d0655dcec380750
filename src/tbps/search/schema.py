"""The columns of a gallery's table.

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

from typing import Any

import pyarrow as pa

from tbps.search.columns import Kind

TYPES: dict[Kind, Any] = {"text": pa.string(), "number": pa.float64(), "truth": pa.bool_()}
_FILTER_KINDS = {
    "id": "text",
    "source": "text",
    "identity": "text",
    "camera": "text",
    "captured_at": "time",
    "attributes": "JSON text",
}


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


def filter_kinds(schema: Any) -> dict[str, str]:
    """The columns that a filter may name, with their kinds."""
    return _FILTER_KINDS | dict(extra_kinds(schema))


def extra_kinds(schema: Any) -> dict[str, Kind]:
    """The kinds of the columns that came from metadata."""
    fixed = set(row_schema(1).names)
    by_type: dict[Any, Kind] = {arrow: kind for kind, arrow in TYPES.items()}
    return {field.name: by_type[field.type] for field in schema if field.name not in fixed}
