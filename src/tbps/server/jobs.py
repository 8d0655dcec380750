"""Uploads indexed one after another, by one thread, while searches go on.

STATE/spool/jobs/ holds what waits: one folder a job, removed when the job ends; STATE/spool/asked/ the pictures of a search for its
moment. What a killed service left there is removed at the next start; every picture whose row was committed by then is in the
gallery. What became of a job is kept longer, see `job_records`.
"""

import secrets
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, final

from tbps.errors import DataError, MissingDependencyError, RequestError, SettingsError, TbpsError
from tbps.search.footage import Footage
from tbps.search.gallery import Gallery, IngestReport
from tbps.search.sources import Named
from tbps.server.answers import log
from tbps.server.forms import Upload
from tbps.server.job_records import KEPT_FOR, MOST, Job, JobRecords, State, now, outdated
from tbps.server.keys import make_state
from tbps.server.security import Caller
from tbps.server.uploads import Kind, PictureCaps, admission, check_kind, named_as
from tbps.storage import make_folder, writing_to

SPOOL = "spool"
_JOBS, _ASKED = "jobs", "asked"
_SKIPPED_SHOWN = 1000
_RECORD_SECONDS = 1.0  # how often the progress of a job that runs is put on disk
_TIDY_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be indexed: files below `folder`, and how."""

    caller: Caller
    folder: Path
    files: Sequence[Upload]
    columns: Mapping[str, Any]
    footage: Footage
    caps: PictureCaps


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

    `on_end` is told of every job that ended, in its thread, or at the next start where the service ended first; twice where it was
    killed just then.
    """

    def __init__(self, state: Path, gallery: Gallery, most: int, on_end: OnEnd) -> None:
        self._state, self._spool, self._records = state, state / SPOOL, JobRecords(state)
        self._gallery, self._most, self._on_end = gallery, most, on_end
        self._jobs: dict[str, Job] = {}  # oldest first
        self._work: dict[str, _Work] = {}
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="tbps-jobs", daemon=True)

    def start(self) -> None:
        """Removes what a killed service left, learns what became of its jobs, and begins."""
        make_state(self._state)
        with writing_to(self._state):
            shutil.rmtree(self._spool, ignore_errors=True)
        make_folder(self._spool / _JOBS)
        make_folder(self._spool / _ASKED)
        for known in self._records.read():
            job = known if known.ended else known.stopped()
            if not known.ended:
                self._tell(job)
                self._record(job)
            self._jobs[job.id] = job
        self._thread.start()

    def stop(self) -> None:
        """Ends what is under way; what is committed stays."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout=30)
        shutil.rmtree(self._spool, ignore_errors=True)

    def folder(self) -> Path:
        """A new folder for one upload. Raises RequestError (503) when enough of them arrive or wait already."""
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
        job = self.one(caller, name)
        with self._changed:
            if (work := self._work.get(name)) is None:
                return self._jobs.get(name, job)
            work.cancelled.set()
            if self._jobs[name].state is State.waiting:
                shutil.rmtree(work.order.folder, ignore_errors=True)
                self._end(replace(job, state=State.cancelled, message="cancelled before it began"))
            return self._jobs[name]

    def _full(self) -> RequestError:
        return RequestError(503, "busy", f"{self._most} uploads arrive or wait already; send this one later", 60)

    def _run(self) -> None:
        while (name := self._next()) is not None:
            work = self._work[name]
            self._record(self._jobs[name])
            try:
                report = self._index(name, work)
                job = replace(self._jobs[name], state=State.done, **_told(report, self._jobs[name]))
            except _CancelledError:
                job = self._jobs[name].stopped()
                if work.cancelled.is_set():
                    job = replace(job, state=State.cancelled, message="cancelled; what was added so far stays")
            except (DataError, SettingsError, MissingDependencyError) as error:
                job = replace(self._jobs[name], state=State.failed, message=_without(str(error), self._spool))
            except Exception as error:  # whatever it is, the jobs that wait go on
                if isinstance(error, TbpsError):
                    log.error("job %s: %s: %s", name, type(error).__name__, error)
                else:
                    log.exception("job %s", name)
                told = "failed; the service's keeper finds the reason in the log"
                job = replace(self._jobs[name], state=State.failed, message=told)
            shutil.rmtree(work.order.folder, ignore_errors=True)
            self._tell(job)
            self._end(job)

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
                self._changed.wait(_TIDY_SECONDS)

    def _end(self, job: Job) -> None:
        """Makes a job's end known, on disk first."""
        self._record(job)
        with self._changed:
            self._jobs[job.id] = job
            del self._work[job.id]

    def _tell(self, job: Job) -> None:
        try:
            self._on_end(job)
        except TbpsError as error:
            log.error("job %s: %s", job.id, error)

    def _record(self, job: Job) -> None:
        try:
            self._records.keep(job)
        except TbpsError as error:
            log.error("the record of job %s: %s", job.id, error)

    def _tidy(self) -> None:
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

        rules, sources = admission(order.caps), list[Named]()
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
        footage = replace(order.footage, on_video=lambda name, done, total: move(done, total))
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


def _may_see(caller: Caller, job: Job) -> bool:
    return caller.cameras is None or job.owner == caller.id


def _without(text: str, folder: Path) -> str:
    return text.replace(f"{folder}/", "").replace(str(folder), "")
