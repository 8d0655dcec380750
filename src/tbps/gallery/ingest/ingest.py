"""Bulk indexing: reader (threads: bytes, hash, decode, shrink) -> mapper (the encoder) -> writer (committed batches).

Memory is bounded: a picture is shrunk to the encoder's input and a thumbnail by the thread that decoded it, and only a window
of pictures is read ahead. A row is acknowledged (`on_progress`, the report) after its batch is committed. Videos come last, one
after another; each is remembered as done with the commit of its last rows. The gallery is locked for a commit only.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from tbps.errors import DataError, MissingDependencyError, SettingsError, StorageError
from tbps.gallery.encoder import Encoder
from tbps.gallery.ingest.changes import Changes, take_over
from tbps.gallery.ingest.commits import Manner, Row, Writer, Writing
from tbps.gallery.ingest.folders import Failure
from tbps.gallery.ingest.footage import COLUMNS, Lookout, VideoReport, report_of
from tbps.gallery.ingest.known import correction
from tbps.gallery.ingest.reading import Read, check_file, person_row, read_ahead
from tbps.gallery.ingest.sources import Candidate, Sources
from tbps.gallery.store.columns import plan_columns
from tbps.preprocess.formats import HEIC_NEEDS
from tbps.preprocess.metadata import parse_time
from tbps.redact import redacted
from tbps.storage import file_hash
from tbps.video import Tally

OnProgress = Callable[[int, int], None]

_PROGRESS_SKIPS = 64


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What became of everything that was found.

    added: rows; skipped_existing: pictures, crops, scenes and videos that were there or done already. Without scenes and videos,
    `added` + `skipped_existing` + len(`failed`) is the number of pictures, less those of `changed` that are not taken over.
    failed, duplicates: (name, reason). A duplicate has the bytes of a picture that is in the gallery from another path; that one is
    kept, and it counts as skipped. notes: remarks on the whole; remarks: (name, remark) on how a picture was read.
    left_out: how many files and folders of what kind were not looked at, with an example.
    changed, moved, corrected, gone: (name, what is different) for files that are not as they were indexed (see `changes`);
    refreshed: whether that was taken over, but for what is gone; erased: rows of former content that went.
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
    changed: tuple[Failure, ...] = ()
    moved: tuple[Failure, ...] = ()
    corrected: tuple[Failure, ...] = ()
    gone: tuple[Failure, ...] = ()
    refreshed: bool = False
    erased: int = 0
    remarks: tuple[Failure, ...] = ()
    left_out: Mapping[str, tuple[int, str]] = field(default_factory=dict)


def ingest(
    writing: Writing, model: Encoder, sources: Sources, manner: Manner, on_progress: OnProgress | None, lookout: Lookout
) -> IngestReport:
    """Adds the sources to the table, which other processes may add to meanwhile.

    Raises StorageError on a full or read-only disk and ModelError on broken embeddings; committed rows stay.
    """
    started = time.monotonic()
    _check_start(sources, lookout)
    looks = bool(sources.videos) or lookout.footage.settings.photographs
    given = (lookout.columns(candidate.columns) for candidate in (*sources.candidates, *sources.videos))
    with writing() as table:
        plan = plan_columns([*given, *([COLUMNS] if looks else [])], table.extras(), table.doubles_hold)
        table.add_columns(plan.kinds)
        writer = Writer(writing, model, plan.kinds, manner, lookout, table)
    outcome = _Outcome(list(sources.failed), Changes(writer.known), sources.members)
    _pictures(sources.candidates, writer, outcome, on_progress or (lambda done, total: None))
    for video in sources.videos:
        _video(video, writer, outcome)
    writer.commit()
    outcome.locate_rowless(writer)
    settled = outcome.changes.settle(sources)
    notes = [*sources.notes, *plan.notes, *_needing_heic(outcome.failed), *outcome.notes]
    pictures, videos = ({candidate.name for candidate in found} for found in (sources.candidates, sources.videos))
    notes += lookout.unused(pictures, videos, {*outcome.done, *(name for name, _ in outcome.failed)})
    notes += lookout.secrets(candidate.columns for candidate in (*sources.candidates, *sources.videos))
    erased = 0
    if manner.refresh:
        with writing():
            erased = take_over(lookout.folder, settled.former(), settled.updates())
            lookout.record.correct(outcome.told)
    try:
        with writing() as table:
            table.tidy()
    except StorageError as error:
        notes.append(f"everything was added, but the gallery could not be tidied: {error}")
    differences = settled.differences()
    return IngestReport(
        added=writer.added,
        skipped_existing=outcome.skipped + writer.met,
        failed=_without_secrets(outcome.failed),
        duplicates=_without_secrets(differences.duplicates),
        notes=tuple(redacted(note) for note in notes),
        seconds=time.monotonic() - started,
        nobody=tuple(outcome.nobody),
        videos=tuple(outcome.videos),
        changed=_without_secrets(differences.changed),
        moved=_without_secrets(differences.moved),
        corrected=_without_secrets(differences.corrected),
        gone=_without_secrets(differences.gone),
        refreshed=manner.refresh,
        erased=erased,
        remarks=_without_secrets(outcome.remarks),
        left_out=sources.left_out,
    )


def _check_start(sources: Sources, lookout: Lookout) -> None:
    """Raises SettingsError where one start is given for several recordings."""
    without_time = [video.name for video in sources.videos if video.columns.get("captured_at") is None]
    if lookout.footage.start is not None and len(without_time) > 1:
        raise SettingsError(
            f"start {lookout.footage.start} is that of one recording, but there are {len(without_time)} videos ({without_time[0]}, "
            "...); index them one by one, or give each its captured_at in a metadata.jsonl"
        )


def _needing_heic(failed: Sequence[Failure]) -> list[str]:
    count = sum(HEIC_NEEDS in reason for _, reason in failed)
    return [f"{count:,} pictures were not read: {HEIC_NEEDS}"] if count else []


@dataclass(slots=True)
class _Outcome:
    """The report as it grows.

    members: see `Sources`; told: scenes and videos whose metadata were corrected, by their keys; rowless: those that were done
    before, of which no row is known at their path or at one that is gone, and when each began.
    """

    failed: list[Failure]
    changes: Changes
    members: Mapping[str, frozenset[str]]
    skipped: int = 0
    nobody: list[str] = field(default_factory=list)
    videos: list[VideoReport] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    done: set[str] = field(default_factory=set)  # before
    remarks: list[Failure] = field(default_factory=list)
    told: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    rowless: list[tuple[Read, datetime | None]] = field(default_factory=list)

    def take(self, row: Row, writer: Writer) -> bool:
        """Gives a row to the writer, unless it is known; whether it did."""
        known = writer.known.get(row.content_hash)
        if known is None and row.pixels is None:
            self.failed.append((row.candidate.name, "was forgotten while it was read; run again"))
            return False
        if known is None:
            writer.add(row)
            return True
        self.skipped += 1
        here = self.changes.found(row.content_hash, row.candidate)
        if here or row.candidate.root:
            self.changes.correct(row.content_hash, row.candidate, correction(known, row.candidate, writer.kinds))
        return False

    def done_before(self, item: Read, start: datetime | None, writer: Writer) -> None:
        """Counts a scene or video that was looked at to its end before."""
        self.skipped += 1
        self.done.add(item.candidate.name)
        assert item.done is not None
        if item.own:
            self._correct(item, item.own, start, writer)
        elif item.candidate.root:
            elsewhere = tuple(writer.known.elsewhere(item.candidate.name, item.file_hash, self.members))
            self._locate(item, elsewhere, start, writer)
            self.rowless += [] if elsewhere else [(item, start)]
        if writer.lookout.record.differs(*item.done):
            self.told[item.done[0]] = item.done[1]

    def locate_rowless(self, writer: Writer) -> None:
        """Finds the rows of scenes and videos that are still there as copies, where what was indexed was replaced."""
        replaced = self.changes.replaced()
        for item, start in self.rowless if replaced else ():
            self._locate(item, tuple(writer.known.shown(replaced, item.file_hash)), start, writer)

    def _locate(self, item: Read, rows: Sequence[str], start: datetime | None, writer: Writer) -> None:
        for content_hash in rows:
            self.changes.found(content_hash, item.candidate)
        self._correct(item, rows, start, writer)

    def _correct(self, item: Read, rows: Sequence[str], start: datetime | None, writer: Writer) -> None:
        if item.done is None or not writer.lookout.record.differs(*item.done):
            return
        for content_hash in rows:
            columns = correction(writer.known[content_hash], item.candidate, writer.kinds, start)
            self.changes.correct(content_hash, item.candidate, columns)


def _pictures(candidates: Sequence[Candidate], writer: Writer, outcome: _Outcome, progress: OnProgress) -> None:
    settled, total = 0, len(candidates)
    progress(0, total)
    for item in read_ahead(candidates, writer):
        if not isinstance(item, Read):
            outcome.failed.append(item)
            settled += 1
        elif _waits(item, writer, outcome):
            writer.pictures += 1
        else:
            settled += 1
        if writer.commit_if_due() or (settled and settled % _PROGRESS_SKIPS == 0):
            progress(writer.settled + settled, total)
    writer.commit()
    progress(total, total)


def _waits(item: Read, writer: Writer, outcome: _Outcome) -> bool:
    """Takes a picture that was read; whether something of it waits for a commit."""
    outcome.changes.former(item.candidate, item.former)
    outcome.remarks += [(item.candidate.name, remark) for remark in item.remarks]
    if item.known:
        outcome.done_before(item, None, writer)
        return False
    waits = [outcome.take(row, writer) for row in item.rows]
    if item.done is not None:
        writer.remember(*item.done)
        outcome.nobody += [] if item.rows else [item.candidate.name]
    return any(waits) or item.done is not None


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
        own, former = writer.known.parted(video, plain)
        outcome.changes.former(video, former)
        before = lookout.done_as(plain, columns, writer.fingerprint)
        if before is not None and not (former and not own and writer.refresh):
            item = Read(replace(video, columns=columns), (), plain, before, True, own, former)
            outcome.done_before(item, parse_time(columns.get("captured_at")) or lookout.footage.start, writer)
            return
        if former and not writer.refresh:
            return
        origin = key if before is None else ""  # what comes back after it was replaced is added again
        for person in lookout.in_video(video.name, video.picture, (content_hash, key), columns, tally):
            outcome.take(person_row(person, video, writer.spec, origin), writer)
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
        reason = f"is incomplete: {tally.incomplete}; what was found is kept; when it is whole, index it with --refresh"
        outcome.failed.append((video.name, reason))
    outcome.videos.append(report_of(video.name, tally))
    outcome.nobody += [] if tally.crops else [video.name]


def _without_secrets(rows: Sequence[Failure]) -> tuple[Failure, ...]:
    return tuple((redacted(name), redacted(reason)) for name, reason in rows)
