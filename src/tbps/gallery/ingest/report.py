"""The report of one indexing run."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tbps.gallery.ingest.footage import VideoReport
from tbps.gallery.ingest.sources.folders import Failure


@dataclass(frozen=True, slots=True)
class IngestReport:
    """Report of one indexing run: the outcome of every file that was found.

    added: rows that were stored; skipped_existing: pictures, crops, scenes and videos that the gallery held already. Without scenes
    and videos, `added` + `skipped_existing` + len(`failed`) is the number of pictures, less the `changed` ones when `refreshed` is
    false.
    failed, duplicates: (name, reason); a duplicate has the bytes of a picture that is stored from another path, and counts as
    skipped.
    notes: remarks on the whole run; remarks: (name, remark) on how a picture was read; left_out: kind of file or folder -> how many
    were not indexed, and an example.
    changed, moved, corrected, gone: (name, difference) of files that differ from the indexed state (see `changes`); refreshed:
    whether the first three were applied; erased: number of rows of former content that were deleted then.
    nobody: names of scenes and videos in which no person was found; videos: counts of each video that was searched. A video whose
    end could not be reached is in `failed` as well.
    """

    added: int
    skipped_existing: int
    failed: tuple[Failure, ...]
    duplicates: tuple[Failure, ...]
    notes: tuple[str, ...]
    seconds: float
    nobody: tuple[str, ...] = ()
    videos: tuple[VideoReport, ...] = ()
    changed: tuple[Failure, ...] = ()
    moved: tuple[Failure, ...] = ()
    corrected: tuple[Failure, ...] = ()
    gone: tuple[Failure, ...] = ()
    refreshed: bool = False
    erased: int = 0
    remarks: tuple[Failure, ...] = ()
    left_out: Mapping[str, tuple[int, str]] = field(default_factory=dict)
