"""Bulk indexing: reader (threads: bytes, hash, decode, shrink) -> mapper (the encoder) -> writer (committed batches).

Memory is bounded: a picture is shrunk to the encoder's input and a thumbnail by the thread that decoded it, and only a window
of pictures is read ahead. A row is acknowledged (`on_progress`, the report) after its batch is committed. Videos come last, one
after another; each is remembered as done with the commit of its last rows. The gallery is locked for a commit only.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tbps.errors import DataError, MissingDependencyError, SettingsError, StorageError
from tbps.redact import redacted
from tbps.search.archives import Failure
from tbps.search.columns import plan_columns, row_metadata
from tbps.search.commits import Row, Writer, Writing, known_row
from tbps.search.encoder import Encoder
from tbps.search.footage import COLUMNS, Lookout, VideoReport, file_hash, report_of
from tbps.search.reading import Read, check_file, person_row, read_ahead
from tbps.search.sources import Candidate, Sources
from tbps.search.table import KnownRow
from tbps.search.video import Tally

OnProgress = Callable[[int, int], None]

_PROGRESS_SKIPS = 64


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What became of everything that was found.

    added: rows; skipped_existing: pictures, crops, scenes and videos that were there or done already. Without scenes and videos
    `added` + `skipped_existing` + len(`failed`) is the number of pictures.
    failed, duplicates: (name, reason). A duplicate has the bytes of a picture already in the gallery but another name or other
    metadata; what came first is kept, and it counts as skipped. notes: remarks on the metadata as a whole.
    nobody: names of the scenes and videos in which no person was found; videos: what was met in each that was looked at; those
    whose end could not be reached are in `failed` as well.
    """

    added: int
    skipped_existing: int
    failed: tuple[Failure, ...]
    duplicates: tuple[Failure, ...]
    notes: tuple[str, ...]
    seconds: float
    nobody: tuple[str, ...] = ()
    videos: tuple[VideoReport, ...] = ()


def ingest(
    writing: Writing, model: Encoder, sources: Sources, batch_size: int, on_progress: OnProgress | None, lookout: Lookout
) -> IngestReport:
    """Adds the sources to the table, which other processes may add to meanwhile.

    Raises StorageError on a full or read-only disk and ModelError on broken embeddings; committed rows stay.
    """
    started = time.monotonic()
    without_time = [video.name for video in sources.videos if video.columns.get("captured_at") is None]
    if lookout.footage.start is not None and len(without_time) > 1:
        raise SettingsError(
            f"start {lookout.footage.start} is that of one recording, but there are {len(without_time)} videos ({without_time[0]}, "
            "...); index them one by one, or give each its captured_at in a metadata.jsonl"
        )
    looks = bool(sources.videos) or lookout.footage.settings.photographs
    given = (lookout.columns(candidate.columns) for candidate in (*sources.candidates, *sources.videos))
    with writing() as table:
        plan = plan_columns([*given, *([COLUMNS] if looks else [])], table.extras(), table.doubles_hold)
        table.add_columns(plan.kinds)
        writer = Writer(writing, model, plan.kinds, batch_size, lookout, table)
    outcome = _Outcome(failed=list(sources.failed))
    _pictures(sources.candidates, writer, outcome, on_progress or (lambda done, total: None))
    for video in sources.videos:
        _video(video, writer, outcome)
    writer.commit()
    notes = [*sources.notes, *plan.notes]
    notes += outcome.notes
    pictures, videos = ({candidate.name for candidate in found} for found in (sources.candidates, sources.videos))
    notes += lookout.unused(pictures, videos, {*outcome.done, *(name for name, _ in outcome.failed)})
    notes += lookout.secrets(candidate.columns for candidate in (*sources.candidates, *sources.videos))
    try:
        with writing() as table:
            table.tidy()
    except StorageError as error:
        notes.append(f"everything was added, but the gallery could not be tidied: {error}")
    return IngestReport(
        writer.added,
        outcome.skipped + writer.met,
        _without_secrets(outcome.failed),
        _without_secrets(outcome.duplicates),
        tuple(redacted(note) for note in notes),
        time.monotonic() - started,
        tuple(outcome.nobody),
        tuple(outcome.videos),
    )


@dataclass(slots=True)
class _Outcome:
    """The report as it grows."""

    failed: list[Failure]
    skipped: int = 0
    duplicates: list[Failure] = field(default_factory=list)
    nobody: list[str] = field(default_factory=list)
    videos: list[VideoReport] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    done: set[str] = field(default_factory=set)  # before

    def take(self, row: Row, writer: Writer) -> bool:
        """Gives a row to the writer, unless it is known; whether it did."""
        if (known := writer.known.get(row.content_hash)) is None:
            writer.add(row)
            return True
        self.skipped += 1
        if (reason := _difference(row.candidate, known)) is not None:
            self.duplicates.append((row.candidate.name, reason))
        return False

    def done_before(self, name: str, key: str, told: Mapping[str, Any], writer: Writer) -> None:
        """Counts a scene or video that was looked at to its end before."""
        self.skipped += 1
        self.done.add(name)
        if writer.lookout.record.differs(key, told):
            self.duplicates.append((name, "was looked at before with other metadata, which were kept"))


def _pictures(candidates: Sequence[Candidate], writer: Writer, outcome: _Outcome, progress: OnProgress) -> None:
    settled, total = 0, len(candidates)
    progress(0, total)
    for item in read_ahead(candidates, writer):
        if not isinstance(item, Read):
            outcome.failed.append(item)
            settled += 1
        elif item.known and item.done is not None:
            outcome.done_before(item.candidate.name, *item.done, writer)
            settled += 1
        else:
            waits = [outcome.take(row, writer) for row in item.rows]
            if item.done is not None:
                writer.remember(*item.done)
                outcome.nobody += [] if item.rows else [item.candidate.name]
            if any(waits) or item.done is not None:
                writer.pictures += 1
            else:
                settled += 1
        if writer.commit_if_due() or (settled and settled % _PROGRESS_SKIPS == 0):
            progress(writer.settled + settled, total)
    writer.commit()
    progress(total, total)


def _video(video: Candidate, writer: Writer, outcome: _Outcome) -> None:
    """Looks at one video to its end, unless that was done before; it is remembered as done only where its true end was reached."""
    lookout, tally = writer.lookout, Tally()
    columns = lookout.columns(video.columns)
    try:
        if not isinstance(video.picture, Path):
            raise DataError("is no file")
        check_file(video.picture)
        lookout.check(columns)
        plain = file_hash(video.picture)
        content_hash = lookout.identity(plain, columns)
        key, told = lookout.key(content_hash, writer.fingerprint), lookout.told(columns, content_hash)
        lookout.record.refresh()
        if (before := lookout.done_as(plain, columns, writer.fingerprint)) is not None:
            outcome.done_before(video.name, *before, writer)
            return
        for person in lookout.in_video(video.name, video.picture, (content_hash, key), columns, tally):
            outcome.take(person_row(person, video, writer.spec, key), writer)
            writer.commit_if_due()
    except (DataError, MissingDependencyError) as error:
        outcome.failed.append((video.name, str(error)))
        return
    except OSError as error:
        outcome.failed.append((video.name, f"cannot be read ({error.strerror or error})"))
        return
    if not tally.frames:
        outcome.failed.append((video.name, f"none of its frames can be decoded ({tally.broken} broken packets)"))
        return
    outcome.notes += [f"{video.name}: {remark}" for remark in tally.remarks]
    if tally.incomplete is None:
        writer.remember(key, told)
    else:
        reason = f"is incomplete: {tally.incomplete}; what was found is kept; index it again when it is whole"
        outcome.failed.append((video.name, reason))
    outcome.videos.append(report_of(video.name, tally))
    outcome.nobody += [] if tally.crops else [video.name]


def _without_secrets(rows: Sequence[Failure]) -> tuple[Failure, ...]:
    return tuple((redacted(name), redacted(reason)) for name, reason in rows)


def _difference(candidate: Candidate, known: KnownRow) -> str | None:
    """How a picture whose bytes are known differs from the one that was kept; None if it is the same again."""
    again = known_row(candidate, row_metadata(candidate.columns, {}))
    if again.source != known.source:
        return f"has the same content as {known.source}, which was kept"
    return None if again == known else "was indexed before with other metadata, which were kept"
