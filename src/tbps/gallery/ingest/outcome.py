"""Collects the results of one indexing run, and makes its report."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from tbps.errors import StorageError
from tbps.gallery.ingest.changes import Changes, apply_changes
from tbps.gallery.ingest.commits import Writer
from tbps.gallery.ingest.context import Context
from tbps.gallery.ingest.corrections import correction, crop_correction
from tbps.gallery.ingest.footage import VideoReport
from tbps.gallery.ingest.reading import ReadPicture
from tbps.gallery.ingest.report import IngestReport
from tbps.gallery.ingest.row import Row
from tbps.gallery.ingest.sources.candidates import Sources
from tbps.gallery.ingest.sources.folders import Failure
from tbps.preprocess.formats import HEIC_NEEDS
from tbps.redact import redacted


@dataclass(slots=True)
class IngestOutcome:
    """Results of an indexing run so far.

    finished_before: names of scenes and videos that an earlier run finished; corrected_scenes: key -> metadata of those whose
    metadata have changed; rowless: those without rows at their own path or at a path that is gone, with the start of each video.
    """

    context: Context
    sources: Sources
    changes: Changes
    failed: list[Failure]
    skipped: int = 0
    nobody: list[str] = field(default_factory=list)
    videos: list[VideoReport] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    remarks: list[Failure] = field(default_factory=list)
    finished_before: set[str] = field(default_factory=set)
    corrected_scenes: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    rowless: list[tuple[ReadPicture, datetime | None]] = field(default_factory=list)

    @classmethod
    def of(cls, context: Context, sources: Sources) -> "IngestOutcome":
        return cls(context, sources, Changes(context.known), list(sources.failed))

    def new_rows(self, picture: ReadPicture) -> Iterator[Row]:
        """Yields the rows of a picture to store; counts and compares those that the gallery already holds."""
        self.changes.note_former(picture.candidate, picture.at_path.former)
        self.remarks += [(picture.candidate.name, remark) for remark in picture.remarks]
        if picture.was_finished:
            self.count_finished(picture, None)
        elif picture.finished is not None and not picture.rows:
            self.nobody.append(picture.candidate.name)
        yield from (row for row in picture.rows if self.is_new(row))

    def is_new(self, row: Row) -> bool:
        """Whether a row must be stored; counts and compares a row that the gallery already holds."""
        known, candidate = self.context.known.get(row.content_hash), row.candidate
        if known is None and row.pixels is None:
            self.failed.append((candidate.name, "was forgotten while it was read; run again"))
        if known is None:
            return row.pixels is not None
        self.skipped += 1
        here = self.changes.note_found(row.content_hash, candidate)
        if here or candidate.root:
            compare = crop_correction if row.is_crop else correction
            columns = compare(known, candidate, row.metadata, self.context.kinds)
            self.changes.note_correction(row.content_hash, candidate, columns)
        return False

    def count_finished(self, scene: ReadPicture, start: datetime | None) -> None:
        """Counts a scene or video that an earlier run finished, and compares its rows. start: start time of the video."""
        self.skipped += 1
        self.finished_before.add(scene.candidate.name)
        assert scene.finished is not None
        if scene.at_path.current:
            self._compare(scene, scene.at_path.current, start)
        elif scene.candidate.root:
            elsewhere = self.context.known.crops_at_gone_paths(scene.candidate.name, scene.file_hash, self.sources.members)
            self._locate(scene, elsewhere, start)
            self.rowless += [] if elsewhere else [(scene, start)]
        if self._is_corrected(scene):
            self.corrected_scenes[scene.finished.key] = scene.finished.metadata

    def finish(self, writer: Writer, folder: Path, plan_notes: Sequence[str], started: float) -> IngestReport:
        """Makes the report, after everything is committed. Raises StorageError when a refresh cannot be written.

        plan_notes: notes on the metadata columns; started: `time.monotonic()` at the start of the run.
        """
        self._locate_rowless()
        settled = self.changes.settle(self.sources)
        sources, people = self.sources, self.context.people
        pictures, videos = ({candidate.name for candidate in found} for found in (sources.candidates, sources.videos))
        notes = [*sources.notes, *plan_notes, *_needing_heic(self.failed), *self.notes]
        notes += people.unused_notes(pictures, videos, {*self.finished_before, *(name for name, _ in self.failed)})
        erased = 0
        if self.context.refresh:
            with writer.writing():
                erased = apply_changes(folder, settled.former(), settled.updates())
                self.context.known.correct_finished(self.corrected_scenes)
        try:
            with writer.writing() as table:
                table.tidy()
        except StorageError as error:
            notes.append(f"everything was added, but the gallery could not be tidied: {error}")
        differences = settled.differences()
        return IngestReport(
            added=writer.added,
            skipped_existing=self.skipped + writer.met,
            failed=_without_passwords(self.failed),
            duplicates=_without_passwords(differences.duplicates),
            notes=tuple(redacted(note) for note in notes),
            seconds=time.monotonic() - started,
            nobody=tuple(self.nobody),
            videos=tuple(self.videos),
            changed=_without_passwords(differences.changed),
            moved=_without_passwords(differences.moved),
            corrected=_without_passwords(differences.corrected),
            gone=_without_passwords(differences.gone),
            refreshed=self.context.refresh,
            erased=erased,
            remarks=_without_passwords(self.remarks),
            left_out=sources.left_out,
        )

    def _locate_rowless(self) -> None:
        """Finds the rows of replaced scenes and videos whose content still exists at another path."""
        replaced = self.changes.replaced()
        for scene, start in self.rowless if replaced else ():
            self._locate(scene, self.context.known.crops_of(replaced, scene.file_hash), start)

    def _locate(self, scene: ReadPicture, rows: Sequence[str], start: datetime | None) -> None:
        for content_hash in rows:
            self.changes.note_found(content_hash, scene.candidate)
        self._compare(scene, rows, start)

    def _compare(self, scene: ReadPicture, rows: Sequence[str], start: datetime | None) -> None:
        if not self._is_corrected(scene):
            return
        for content_hash in rows:
            known = self.context.known[content_hash]
            columns = crop_correction(known, scene.candidate, scene.metadata, self.context.kinds, start)
            self.changes.note_correction(content_hash, scene.candidate, columns)

    def _is_corrected(self, scene: ReadPicture) -> bool:
        """Whether the metadata of a finished scene or video have changed."""
        assert scene.finished is not None
        return not self.context.known.is_finished(scene.finished, same_metadata=True)


def _needing_heic(failed: Sequence[Failure]) -> list[str]:
    count = sum(HEIC_NEEDS in reason for _, reason in failed)
    return [f"{count:,} pictures were not read: {HEIC_NEEDS}"] if count else []


def _without_passwords(rows: Sequence[Failure]) -> tuple[Failure, ...]:
    return tuple((redacted(name), redacted(reason)) for name, reason in rows)
