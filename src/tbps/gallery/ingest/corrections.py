"""Compares the metadata of a file with the stored columns of its rows."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from tbps.gallery.ingest.known import crop_columns
from tbps.gallery.ingest.sources.candidates import Candidate
from tbps.gallery.store.columns import RowMetadata, row_metadata
from tbps.gallery.store.schema import Kind
from tbps.gallery.store.table import KnownRow
from tbps.preprocess.metadata import parse_time


def correction(known: KnownRow, candidate: Candidate, metadata: RowMetadata, kinds: Mapping[str, Kind]) -> dict[str, Any]:
    """The columns of a whole picture whose metadata have changed, with their new values.

    metadata: the candidate's, parsed. A metadata line replaces all stored metadata, except that the camera is kept when the line
    names none, as it may come from --camera (null in the line removes it). Without a line, only a given camera is compared, and
    the capture time when none was stored.
    """
    new: dict[str, Any] = {}
    if candidate.described or known.captured_at is None:
        new["captured_at"] = metadata.captured_at
    return _changed(known, candidate, metadata, kinds, new)


def crop_correction(
    known: KnownRow, candidate: Candidate, metadata: RowMetadata, kinds: Mapping[str, Kind], start: datetime | None = None
) -> dict[str, Any]:
    """As `correction`, for a crop of the scene or video `candidate`; its `crop_columns` are kept.

    start: start time of the video according to the present metadata and options; the time of a crop is that of its frame.
    """
    own = crop_columns(known)
    offset = own.get("offset_seconds")
    merged = row_metadata({**candidate.columns, **own}, kinds)
    new: dict[str, Any] = {}
    if offset is None and (candidate.described or known.captured_at is None):
        new["captured_at"] = metadata.captured_at
    elif offset is not None and start is not None:
        new["captured_at"] = parse_time(start + timedelta(seconds=round(offset, 3)))
    return _changed(known, candidate, merged, kinds, new)


def _changed(
    known: KnownRow, candidate: Candidate, metadata: RowMetadata, kinds: Mapping[str, Kind], new: dict[str, Any]
) -> dict[str, Any]:
    if "camera" in candidate.columns:
        new["camera"] = metadata.camera
    if candidate.described:
        new |= {"identity": metadata.identity, "attributes": metadata.attributes}
    changed = {name: value for name, value in new.items() if value != getattr(known, name)}
    if "attributes" in changed:
        changed |= {name: metadata.extras.get(name) for name in kinds}
    return changed
