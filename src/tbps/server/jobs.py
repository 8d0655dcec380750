"""Uploads indexed one after another, by one thread, while searches go on.

STATE/spool/jobs/ holds what waits: one folder per job, removed when the job ends; STATE/spool/asked/ the pictures of a search for
its moment. What a killed service left there is removed at the next start; every picture whose row was committed by then is in the
gallery. What became of a job is kept longer, see `job_records`. Only one service at a time works on a state folder (see `claims`).
"""

import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, final

from PIL import Image

from tbps.errors import DataError, MissingDependencyError, RequestError, SettingsError, TbpsError
from tbps.gallery import Admission, Footage, Gallery, IngestReport, Named
from tbps.server.answers import log
from tbps.server.audit import entries
from tbps.server.callers import Caller
from tbps.server.decoding import Decoders
from tbps.server.forms import Upload
from tbps.server.job_records import ENDS, KEPT_FOR, MOST, Job, JobRecords, State, now, outdated
from tbps.server.keys import make_state
from tbps.server.state_layout import SPOOL, SPOOLED, clear_spool, remove_order
from tbps.server.uploads import Kind, check_kind, named_as
from tbps.storage import make_folder, writing_to

__all__ = ["SPOOL", "Jobs", "Order"]

DEED = "indexed"  # of the line in the audit log that tells the final state of a job
_JOBS, _ASKED = SPOOLED
_SKIPPED_SHOWN = 1000
_RECORD_SECONDS = 1.0  # how often the progress of a job that runs is put on disk
_TIDY_SECONDS = 3600.0
_AGAIN_SECONDS = 60.0  # until a final state is told again that could not be written to the audit log


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be indexed: files below `folder`, and how."""

    caller: Caller
    folder: Path
    files: Sequence[Upload]
    columns: Mapping[str, Any]
    footage: Footage
    decoders: Decoders


class _CancelledError(Exception):
    """Somebody wishes a job to end."""


@dataclass(slots=True)
class _Work:
    """Of a job that has not ended."""

    order: Order
    cancelled: threading.Event = field(default_factory=threading.Event)


OnEnd = Callable[[Job], None]


@final
class Jobs:
    """Takes orders and works on them.

    `on_end` writes the final state of a job to the audit log: once per job, in the job's thread or at the next start where the
    service ended first. Where it raises, it is called again later.
    """

    def __init__(self, state: Path, gallery: Gallery, most: int, on_end: OnEnd) -> None:
        self._state, self._spool, self._records = state, state / SPOOL, JobRecords(state)
        self._gallery, self._most, self._on_end = gallery, most, on_end
        self._jobs: dict[str, Job] = {}  # oldest first
        self._work: dict[str, _Work] = {}
        self._changed = threading.Condition()
        self._started = self._stopped = False
        self._thread = threading.Thread(target=self._run, name="tbps-jobs", daemon=True)

    def start(self) -> None:
        """Removes the uploads that a killed service left, tells what became of its jobs, and begins. Raises StorageError."""
        make_state(self._state)
        self._started = True
        if left := clear_spool(self._state):
            log.warning("%s holds %d entries that no service made, such as %r; they stay", self._spool, len(left), left[0])
        make_folder(self._spool / _JOBS)
        make_folder(self._spool / _ASKED)
        known = self._records.read()
        told = _told_before(self._state) if any(not (job.ended and job.told) for job in known) else {}
        for job in known:
            self._jobs[job.id] = job if job.ended and job.told else self._completed(job, told)
        self._thread.start()

    def stop(self) -> bool:
        """Ends what is under way; what is committed stays. Whether nothing of it uses the state folder any more."""
        started, self._started = self._started, False
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout=30)
        if not started or self._thread.is_alive():
            return not self._thread.is_alive()  # the spool is another service's, or still read; the next start clears it
        for name in list(self._work):
            self._finish(self._jobs[name].stopped())
        try:
            clear_spool(self._state)
        except TbpsError as error:
            log.error("uploads that waited stay until the next start: %s", error)
        return True

    def folder(self) -> Path:
        """A new folder for one upload.

        Raises RequestError (503) when enough of them arrive or wait already, and where nothing can be added to the gallery.
        """
        if not os.access(self._gallery.path, os.W_OK):
            raise RequestError(503, "read_only", "the gallery of this service can only be read; nothing can be added or erased")
        if sum(1 for _ in (self._spool / _JOBS).iterdir()) >= self._most:
            raise self._full()
        return make_folder(self._spool / _JOBS / secrets.token_hex(12))

    def asked_folder(self) -> Path:
        """A new folder for the pictures of one search."""
        return make_folder(self._spool / _ASKED / secrets.token_hex(12))

    def unfinished(self) -> int:
        """How many jobs wait or run."""
        return len(self._work)

    def submit(self, order: Order) -> Job:
        """The job that an order becomes. Raises RequestError (503) as `folder`, StorageError."""
        with self._changed:
            if self._stopped or self.unfinished() >= self._most:
                raise self._full()
            job = Job(secrets.token_hex(12), order.caller.id, State.waiting, now(), owner_name=order.caller.name)
            self._records.keep(job)
            self._jobs[job.id], self._work[job.id] = job, _Work(order)
            self._changed.notify_all()
        return job

    def of(self, caller: Caller) -> list[Job]:
        """The jobs that a caller may know of, newest first: their own, and all where no cameras bound them."""
        return [job for job in reversed(list(self._jobs.values())) if _may_see(caller, job)]

    def one(self, caller: Caller, name: str) -> Job:
        """A job by its id. Raises RequestError (404)."""
        job = self._jobs.get(name)
        if job is None or not _may_see(caller, job):
            raise RequestError(404, "unknown_job", f"there is no such job; the last {MOST} of {KEPT_FOR.days} days are kept")
        return job

    def cancel(self, caller: Caller, name: str) -> Job:
        """Asks a job to end. Raises RequestError (404)."""
        self.one(caller, name)
        with self._changed:
            if (work := self._work.get(name)) is None:
                return self._jobs[name]
            work.cancelled.set()
            if self._jobs[name].state is not State.waiting:
                return self._jobs[name]
            del self._work[name]  # it will not begin
        _remove(work.order.folder)
        return self._finish(self._jobs[name].final(State.cancelled, "cancelled before it began"))

    def _full(self) -> RequestError:
        return RequestError(503, "busy", f"{self._most} uploads arrive or wait already; send this one later", 60)

    def _run(self) -> None:
        while (name := self._next()) is not None:
            self._do(name)

    def _do(self, name: str) -> None:
        """Works on one job to its end. In a function of its own: names in its report do not stay in memory until the next job."""
        work = self._work[name]
        self._record(self._jobs[name])
        try:
            report = self._index(name, work)
            job = self._jobs[name].final(State.done, "")
            job = replace(job, **_told(report, job))
        except _CancelledError:
            job = self._jobs[name].stopped()
            if work.cancelled.is_set():
                job = job.final(State.cancelled, "cancelled; what was added so far stays")
        except (DataError, SettingsError, MissingDependencyError) as error:
            job = self._jobs[name].final(State.failed, _without(str(error), self._spool))
        except Exception as error:  # whatever it is, the jobs that wait go on
            if isinstance(error, TbpsError):
                log.error("job %s: %s: %s", name, type(error).__name__, error)
            else:
                log.exception("job %s", name)
            job = self._jobs[name].final(State.failed, "failed; the service's keeper finds the reason in the log")
        _remove(work.order.folder)
        self._finish(self._counted(job))

    def _next(self) -> str | None:
        """The job whose turn it is, as soon as there is one; None when the service stops. Meanwhile old jobs go."""
        with self._changed:
            while True:
                self._tidy()
                if self._stopped:
                    return None
                for name in self._work:
                    self._jobs[name] = replace(self._jobs[name], state=State.running)
                    return name
                untold = any(job.ended and not job.told for job in self._jobs.values())
                self._changed.wait(_AGAIN_SECONDS if untold else _TIDY_SECONDS)

    def _finish(self, job: Job) -> Job:
        """Makes a final state known: on disk first, then in the audit log, then to callers."""
        self._record(job)
        job = self._tell(job)
        with self._changed:
            self._jobs[job.id] = job
            self._work.pop(job.id, None)
        return job

    def _tell(self, job: Job) -> Job:
        """Writes the final state of a job to the audit log; the job, marked as told where that was possible."""
        try:
            self._on_end(job)
        except TbpsError as error:
            log.error("job %s: %s", job.id, error)
            return job
        told = replace(job, told=True)
        self._record(told)
        return told

    def _completed(self, job: Job, told: Mapping[str, Mapping[str, Any]]) -> Job:
        """A job that the service before left, with its final state told. told: lines of the audit log by job."""
        if (line := told.get(job.id)) is None:
            job = self._counted(job) if job.ended else self._counted(job.stopped())
            self._record(job)
            return self._tell(job)
        if not job.ended:  # the line was written, the record not: as version 0.1 did
            state = State(line["state"]) if line.get("state") in ENDS else State.failed
            job = replace(job.stopped(), state=state, added=int(line.get("added", job.added)))
        job = replace(job, told=True, pending=())
        self._record(job)
        return job

    def _counted(self, job: Job) -> Job:
        """A job whose rows that were being committed when it ended are counted, if they are in the gallery."""
        if not job.pending:
            return job
        try:
            return replace(job, added=job.added + len(self._gallery.present(job.pending)), pending=())
        except TbpsError as error:
            log.error("job %s: what was committed last cannot be counted: %s", job.id, error)
            return replace(job, pending=())

    def _record(self, job: Job) -> None:
        try:
            self._records.keep(job)
        except TbpsError as error:
            log.error("the record of job %s: %s", job.id, error)

    def _tidy(self) -> None:
        """Drops old jobs, and tells what could not be told."""
        if untold := [job for job in self._jobs.values() if job.ended and not job.told and job.id not in self._work]:
            told = _told_before(self._state)
            for job in untold:
                self._jobs[job.id] = self._completed(job, told)
        for job in outdated(list(self._jobs.values()), now()):
            del self._jobs[job.id]
            try:
                self._records.drop(job)
            except TbpsError as error:
                log.error("the record of job %s: %s", job.id, error)

    def _index(self, name: str, work: _Work) -> IngestReport | None:
        """Adds what can be added; None where nothing could be read."""
        order, began = work.order, time.monotonic()
        recorded = began

        def check() -> None:
            if self._stopped or work.cancelled.is_set():
                raise _CancelledError

        def move(done: int, total: int) -> None:
            nonlocal recorded
            check()
            moment = time.monotonic()
            rate = done / max(moment - began, 1e-3)
            job = replace(self._jobs[name], done=done, total=total or None, rate=round(rate, 2))
            if moment - recorded >= _RECORD_SECONDS:
                self._record(job)
                recorded = moment
            self._jobs[name] = job

        @contextmanager
        def committing(ids: Sequence[str]) -> Iterator[None]:
            self._records.keep(replace(self._jobs[name], pending=tuple(ids)))
            self._jobs[name] = replace(self._jobs[name], pending=tuple(ids))
            yield
            job = self._jobs[name]
            self._jobs[name] = replace(job, added=job.added + len(ids), pending=())
            self._record(self._jobs[name])

        def decoded(content: bytes) -> Image.Image:
            check()
            return order.decoders.open(content)

        rules, sources = Admission(order.decoders.caps.bytes, decoded), list[Named]()
        for upload in order.files:
            check()
            try:
                kind, suffix = check_kind(upload.file)
            except DataError as error:
                job = self._jobs[name]
                self._jobs[name] = replace(job, skipped=(*job.skipped, (upload.name, str(error))))
                continue
            file = upload.file if kind is Kind.picture else _with_suffix(upload.file, suffix)
            sources.append(Named(named_as(upload.name, kind, suffix), file, rules))
        if not sources:
            return None
        footage = replace(order.footage, on_video=lambda name, done, total: move(done, total), committing=committing)
        return self._gallery.add(sources, [order.columns] * len(sources), move, footage=footage)


def _with_suffix(file: Path, suffix: str) -> Path:
    """A file by a name that ends as its content says, which the readers go by."""
    with writing_to(file.parent):
        return file.rename(file.with_name(file.name + suffix))


def _told(report: IngestReport | None, job: Job) -> dict[str, Any]:
    """What a report says to who sent the pictures: not what else the gallery holds."""
    if report is None:
        return {"message": "nothing could be indexed"}
    skipped = [*job.skipped, *report.failed, *((name, "no person was found") for name in report.nobody)]
    again = f", {report.skipped_existing:,} were there already" if report.skipped_existing else ""
    shown = tuple(skipped[:_SKIPPED_SHOWN])
    return {
        "added": report.added,
        "skipped": shown,
        "message": f"{report.added:,} added{again}, {len(skipped):,} could not be used",
        "done": job.total if job.total is not None else job.done,
    }


def _told_before(state: Path) -> dict[str, Mapping[str, Any]]:
    """The lines of the audit log that tell the final state of a job, by job."""
    return {str(line["job"]): line for line in entries(state) if line.get("deed") == DEED and "job" in line}


def _remove(folder: Path) -> None:
    try:
        remove_order(folder)
    except TbpsError as error:
        log.error("an upload that was worked on stays until the next start: %s", error)


def _may_see(caller: Caller, job: Job) -> bool:
    return caller.cameras is None or job.owner == caller.id


def _without(text: str, folder: Path) -> str:
    return text.replace(f"{folder}/", "").replace(str(folder), "")
