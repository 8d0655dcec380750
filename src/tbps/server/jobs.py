"""Uploads indexed one after another, by one thread, while searches go on.

STATE/spool/jobs/ holds what waits: one folder a job, removed when the job ends; STATE/spool/asked/ the pictures of a search for its
moment. What a killed service left there is removed at the next start; every picture whose row was committed by then is in the
gallery.
"""

import secrets
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, final

from tbps.errors import DataError, MissingDependencyError, RequestError, SettingsError, TbpsError
from tbps.search.footage import Footage
from tbps.search.gallery import Gallery, IngestReport
from tbps.search.sources import Named
from tbps.server.answers import log
from tbps.server.forms import Upload
from tbps.server.keys import make_state
from tbps.server.security import Caller
from tbps.server.uploads import Kind, PictureCaps, admission, check_kind, named_as
from tbps.storage import make_folder, writing_to

SPOOL = "spool"
_JOBS, _ASKED = "jobs", "asked"
_KEPT = 200
_SKIPPED_SHOWN = 1000


class State(StrEnum):
    """Of a job; the last three are its end."""

    waiting = "waiting"
    running = "running"
    done = "done"
    failed = "failed"
    cancelled = "cancelled"


_ENDS = (State.done, State.failed, State.cancelled)


@dataclass(frozen=True, slots=True)
class Job:
    """One upload. owner: the id of the key; done, total: pictures, or frames of a video; skipped: name and reason."""

    id: str
    owner: str
    state: State
    created_at: str
    done: int = 0
    total: int | None = None
    rate: float = 0.0
    added: int = 0
    skipped: tuple[tuple[str, str], ...] = ()
    message: str = ""

    @property
    def seconds_left(self) -> float | None:
        """At the present rate."""
        if self.state is not State.running or self.total is None or not self.rate:
            return None
        return round((self.total - self.done) / self.rate, 1)


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
class _Entry:
    order: Order
    job: Job
    cancelled: threading.Event = field(default_factory=threading.Event)


OnEnd = Callable[[Order, Job], None]


@final
class Jobs:
    """Takes orders and works on them. `on_end` is told of every job that ended, in its thread."""

    def __init__(self, state: Path, gallery: Gallery, most: int, on_end: OnEnd) -> None:
        self._spool = state / SPOOL
        self._gallery, self._most, self._on_end = gallery, most, on_end
        self._entries: dict[str, _Entry] = {}
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="tbps-jobs", daemon=True)

    def start(self) -> None:
        """Removes what a killed service left, and begins."""
        make_state(self._spool.parent)
        with writing_to(self._spool.parent):
            shutil.rmtree(self._spool, ignore_errors=True)
        make_folder(self._spool / _JOBS)
        make_folder(self._spool / _ASKED)
        self._thread.start()

    def stop(self) -> None:
        """Cancels everything; what is committed stays."""
        with self._changed:
            self._stopped = True
            for entry in self._entries.values():
                entry.cancelled.set()
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
        return sum(entry.job.state not in _ENDS for entry in list(self._entries.values()))

    def submit(self, order: Order) -> Job:
        """The job that an order becomes. Raises RequestError (503) as `folder`."""
        created = datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="seconds")
        job = Job(secrets.token_hex(12), order.caller.id, State.waiting, created)
        with self._changed:
            if self._stopped or self.unfinished() >= self._most:
                raise self._full()
            self._entries[job.id] = _Entry(order, job)
            ended = [name for name, entry in self._entries.items() if entry.job.state in _ENDS]
            for name in ended[: max(0, len(self._entries) - _KEPT)]:
                del self._entries[name]
            self._changed.notify_all()
        return job

    def of(self, caller: Caller) -> list[Job]:
        """The jobs that a caller may know of, newest first: their own, and all where no cameras bound them."""
        entries = list(self._entries.values())
        return [entry.job for entry in reversed(entries) if _may_see(caller, entry.job)]

    def one(self, caller: Caller, name: str) -> Job:
        """A job by its id. Raises RequestError (404)."""
        entry = self._entries.get(name)
        if entry is None or not _may_see(caller, entry.job):
            raise RequestError(404, "unknown_job", "there is no such job; jobs end with the service that took them")
        return entry.job

    def cancel(self, caller: Caller, name: str) -> Job:
        """Asks a job to end. Raises RequestError (404)."""
        self.one(caller, name)
        entry = self._entries[name]
        with self._changed:
            entry.cancelled.set()
            if entry.job.state is State.waiting:
                entry.job = replace(entry.job, state=State.cancelled, message="cancelled before it began")
                shutil.rmtree(entry.order.folder, ignore_errors=True)
        return entry.job

    def _full(self) -> RequestError:
        return RequestError(503, "busy", f"{self._most} uploads arrive or wait already; send this one later", 60)

    def _run(self) -> None:
        while (entry := self._next()) is not None:
            try:
                report = self._index(entry)
                job = replace(entry.job, state=State.done, **_told(report, entry.job))
            except _CancelledError:
                job = replace(entry.job, state=State.cancelled, message="cancelled; what was added so far stays")
            except (DataError, SettingsError, MissingDependencyError) as error:
                job = replace(entry.job, state=State.failed, message=_without(str(error), self._spool))
            except TbpsError as error:
                log.error("job %s: %s: %s", entry.job.id, type(error).__name__, error)
                job = replace(entry.job, state=State.failed, message="failed; the service's keeper finds the reason in the log")
            except Exception:  # whatever it is, the jobs that wait go on
                log.exception("job %s", entry.job.id)
                job = replace(entry.job, state=State.failed, message="failed; the service's keeper finds the reason in the log")
            shutil.rmtree(entry.order.folder, ignore_errors=True)
            entry.job = job
            try:
                self._on_end(entry.order, job)
            except TbpsError as error:
                log.error("job %s: %s", job.id, error)

    def _next(self) -> _Entry | None:
        with self._changed:
            while True:
                waiting = [entry for entry in self._entries.values() if entry.job.state is State.waiting]
                if self._stopped:
                    return None
                if waiting:
                    waiting[0].job = replace(waiting[0].job, state=State.running)
                    return waiting[0]
                self._changed.wait()

    def _index(self, entry: _Entry) -> IngestReport | None:
        """Adds what can be added; None where nothing could be read."""
        order, began = entry.order, time.monotonic()

        def move(done: int, total: int) -> None:
            if entry.cancelled.is_set():
                raise _CancelledError
            rate = done / max(time.monotonic() - began, 1e-3)
            entry.job = replace(entry.job, done=done, total=total or None, rate=round(rate, 2))

        rules, sources = admission(order.caps), list[Named]()
        for upload in order.files:
            if entry.cancelled.is_set():
                raise _CancelledError
            try:
                kind, suffix = check_kind(upload.file)
            except DataError as error:
                entry.job = replace(entry.job, skipped=(*entry.job.skipped, (upload.name, str(error))))
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
