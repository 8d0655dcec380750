"""Indexing of one upload: detects file formats, adds the files to the gallery and reports the job's progress."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

from PIL import Image

from tbps.errors import DataError
from tbps.gallery import Admission, Footage, Gallery, IngestReport, Named
from tbps.server.callers.gate import Caller
from tbps.server.uploads.decoding import Decoders
from tbps.server.uploads.formats import Kind, check_kind, named_as
from tbps.server.uploads.forms import Upload
from tbps.server.uploads.records import Job, JobRecords
from tbps.storage import writing_to

_SKIPPED_SHOWN = 1000
_RECORD_SECONDS = 1.0  # between two writes of a running job's record


@dataclass(frozen=True, slots=True)
class Order:
    """Files of one upload, below `folder`, and options for indexing them. columns: metadata for every image."""

    caller: Caller
    folder: Path
    files: Sequence[Upload]
    columns: Mapping[str, Any]
    footage: Footage
    decoders: Decoders


class CancelledError(Exception):
    """A job was cancelled, or the service is stopping."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Receivers of a job's progress.

    records: stores the job on disk; show: makes its state visible to callers; is_cancelled: returns whether the job must end early.
    """

    records: JobRecords
    show: Callable[[Job], None]
    is_cancelled: Callable[[], bool]


@final
class Indexing:
    """Adds the files of an order to a gallery. job: current state of the job, also valid after an error."""

    def __init__(self, gallery: Gallery, order: Order, job: Job, progress: Progress) -> None:
        self.job = job
        self._gallery, self._order, self._progress = gallery, order, progress
        self._began = self._recorded = time.monotonic()

    def run(self) -> str:
        """Index all files. Returns a summary for the sender. Raises CancelledError, TbpsError."""
        sources = self._sources()
        if not sources:
            return "nothing could be indexed"
        footage = replace(
            self._order.footage, on_video=lambda name, done, total: self._move(done, total), committing=self._committing
        )
        report = self._gallery.add(sources, [self._order.columns] * len(sources), self._move, footage=footage)
        return self._take(report)

    def _sources(self) -> list[Named]:
        """Files of allowed formats, with names that end in the suffix of their format. Others are recorded as skipped."""
        rules, sources = Admission(self._order.decoders.caps.bytes, self._decoded), list[Named]()
        for upload in self._order.files:
            self._check()
            try:
                kind, suffix = check_kind(upload.file)
            except DataError as error:
                self._show(skipped=(*self.job.skipped, (upload.name, str(error))))
                continue
            file = upload.file if kind is Kind.picture else _with_suffix(upload.file, suffix)
            sources.append(Named(named_as(upload.name, kind, suffix), file, rules))
        return sources

    def _decoded(self, content: bytes) -> Image.Image:
        self._check()
        return self._order.decoders.open(content)

    def _check(self) -> None:
        if self._progress.is_cancelled():
            raise CancelledError

    def _move(self, done: int, total: int) -> None:
        """Update the progress: number of pictures or frames done. Raises CancelledError."""
        self._check()
        moment = time.monotonic()
        self._show(done=done, total=total or None, rate=round(done / max(moment - self._began, 1e-3), 2))
        if moment - self._recorded >= _RECORD_SECONDS:
            self._progress.records.try_keep(self.job)
            self._recorded = moment

    @contextmanager
    def _committing(self, ids: Sequence[str]) -> Iterator[None]:
        """Context manager around a commit of rows: the job's record lists their ids before it and counts them after it."""
        self._progress.records.keep(replace(self.job, pending=tuple(ids)))
        self._show(pending=tuple(ids))
        yield
        self._show(added=self.job.added + len(ids), pending=())
        self._progress.records.try_keep(self.job)

    def _show(self, **changes: Any) -> None:
        self.job = replace(self.job, **changes)
        self._progress.show(self.job)

    def _take(self, report: IngestReport) -> str:
        """Add the gallery's report to the job. Returns a summary that contains nothing about other images of the gallery."""
        skipped = [*self.job.skipped, *report.failed, *((name, "no person was found") for name in report.nobody)]
        done = self.job.total if self.job.total is not None else self.job.done
        self._show(added=report.added, skipped=tuple(skipped[:_SKIPPED_SHOWN]), done=done)
        again = f", {report.skipped_existing:,} were there already" if report.skipped_existing else ""
        return f"{report.added:,} added{again}, {len(skipped):,} could not be used"


def _with_suffix(file: Path, suffix: str) -> Path:
    """Append the suffix of its format to a file's name, since readers are chosen by suffix."""
    with writing_to(file.parent):
        return file.rename(file.with_name(file.name + suffix))
