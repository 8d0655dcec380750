"""Upload queue: one thread indexes uploads one after another, concurrently with searches.

STATE/spool/jobs/ contains a folder per upload, which is removed when its job ends; STATE/spool/asked/ contains the pictures of
searches that are being answered. Files that a killed service left there are removed at the next start; rows that were committed
before the kill stay in the gallery. The state of a job is kept longer, see `records`. Only one service at a time uses a state
folder, see `state.claims`.
"""

import os
import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, final

from tbps.errors import DataError, MissingDependencyError, RequestError, SettingsError, TbpsError
from tbps.gallery import Gallery
from tbps.server.audit import entries
from tbps.server.callers.gate import Caller
from tbps.server.faults import log
from tbps.server.state.layout import SPOOL, SPOOLED, clear_spool, make_state, remove_order
from tbps.server.uploads.indexing import CancelledError, Indexing, Order, Progress
from tbps.server.uploads.records import ENDS, KEPT_FOR, MOST, Job, JobRecords, State, now, outdated
from tbps.storage import make_folder

DEED = "indexed"  # the action in the audit log that records the final state of a job
_JOBS, _ASKED = SPOOLED
_TIDY_SECONDS = 3600.0
_RETRY_SECONDS = 60.0  # until writing a final state to the audit log is tried again

OnEnd = Callable[[Job], None]


@dataclass(slots=True)
class _Work:
    """Order of a job that has not ended."""

    order: Order
    cancelled: threading.Event = field(default_factory=threading.Event)


@final
class Jobs:
    """Queue of uploads to be indexed.

    on_end: writes the final state of a job to the audit log. It is called once per job, at the next start if the service ended
    first, and again later if it raises TbpsError.
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
        """Clear the spool, complete job records that a killed service left, and start the thread. Raises StorageError."""
        make_state(self._state)
        self._started = True
        if left := clear_spool(self._state):
            log.warning(
                "%s contains %d entries that were not created by the service, such as %r; they are left in place",
                self._spool,
                len(left),
                left[0],
            )
        make_folder(self._spool / _JOBS)
        make_folder(self._spool / _ASKED)
        known = self._records.read()
        logged = _logged(self._state) if any(not (job.ended and job.told) for job in known) else {}
        for job in known:
            self._jobs[job.id] = job if job.ended and job.told else self._completed(job, logged)
        self._thread.start()

    def stop(self) -> bool:
        """End the running job; committed rows stay. Returns whether the state folder is no longer in use by this queue."""
        started, self._started = self._started, False
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout=30)
        if not started or self._thread.is_alive():
            return not self._thread.is_alive()  # never started, or the job's thread still reads the spool; the next start clears it
        for job_id in list(self._work):
            self._finish(self._jobs[job_id].stopped())
        try:
            clear_spool(self._state)
        except TbpsError as error:
            log.error("waiting uploads stay on disk until the next start: %s", error)
        return True

    def folder(self) -> Path:
        """Create a folder for the files of one upload.

        Raises RequestError (503) if too many uploads are unfinished, or if the gallery is read-only.
        """
        if not os.access(self._gallery.path, os.W_OK):
            raise RequestError(503, "read_only", "the gallery of this service is read-only; nothing can be added or erased")
        if sum(1 for _ in (self._spool / _JOBS).iterdir()) >= self._most:
            raise self._full()
        return make_folder(self._spool / _JOBS / secrets.token_hex(12))

    def asked_folder(self) -> Path:
        """Create a folder for the pictures of one search."""
        return make_folder(self._spool / _ASKED / secrets.token_hex(12))

    def unfinished(self) -> int:
        """Number of jobs that wait or run."""
        return len(self._work)

    def submit(self, order: Order) -> Job:
        """Append an order to the queue. Raises RequestError (503) if too many uploads are unfinished, StorageError."""
        with self._changed:
            if self._stopped or self.unfinished() >= self._most:
                raise self._full()
            job = Job(secrets.token_hex(12), order.caller.id, State.waiting, now(), owner_name=order.caller.name)
            self._records.keep(job)
            self._jobs[job.id], self._work[job.id] = job, _Work(order)
            self._changed.notify_all()
        return job

    def visible_to(self, caller: Caller) -> list[Job]:
        """Jobs that a caller may see, newest first: all jobs, or only its own if the key is restricted to cameras."""
        return [job for job in reversed(list(self._jobs.values())) if _may_see(caller, job)]

    def one(self, caller: Caller, job_id: str) -> Job:
        """A job by its id. Raises RequestError (404)."""
        job = self._jobs.get(job_id)
        if job is None or not _may_see(caller, job):
            raise RequestError(404, "unknown_job", f"there is no such job; the last {MOST} of {KEPT_FOR.days} days are kept")
        return job

    def cancel(self, caller: Caller, job_id: str) -> Job:
        """Cancel a job: a waiting one at once, a running one as soon as possible. Raises RequestError (404)."""
        self.one(caller, job_id)
        with self._changed:
            if (work := self._work.get(job_id)) is None:
                return self._jobs[job_id]
            work.cancelled.set()
            if self._jobs[job_id].state is not State.waiting:
                return self._jobs[job_id]
            del self._work[job_id]
        _remove(work.order.folder)
        return self._finish(self._jobs[job_id].final(State.cancelled, "cancelled before it began"))

    def _full(self) -> RequestError:
        return RequestError(503, "busy", f"{self._most} uploads are not finished yet; send this one later", 60)

    def _run(self) -> None:
        while (job_id := self._next()) is not None:
            self._do(job_id)

    def _do(self, job_id: str) -> None:
        """Run one job to its end.

        This is a separate method so that file names in the job's report are freed when it ends rather than at the next job.
        """
        work = self._work[job_id]
        progress = Progress(self._records, self._show, lambda: self._stopped or work.cancelled.is_set())
        indexing = Indexing(self._gallery, work.order, self._jobs[job_id], progress)
        self._records.try_keep(indexing.job)
        try:
            message = indexing.run()
            job = indexing.job.final(State.done, message)
        except CancelledError:
            job = indexing.job.stopped()
            if work.cancelled.is_set():
                job = job.final(State.cancelled, "cancelled; what was added so far stays")
        except (DataError, SettingsError, MissingDependencyError) as error:
            job = indexing.job.final(State.failed, _without(str(error), self._spool))
        except Exception as error:  # waiting jobs must still run
            if isinstance(error, TbpsError):
                log.error("job %s: %s: %s", job_id, type(error).__name__, error)
            else:
                log.exception("job %s", job_id)
            job = indexing.job.final(State.failed, "failed; the operator of the service can find the reason in the log")
        _remove(work.order.folder)
        self._finish(self._counted(job))

    def _show(self, job: Job) -> None:
        self._jobs[job.id] = job

    def _next(self) -> str | None:
        """Wait for the next job. Returns its id, or None when the service stops. Drops old jobs while waiting."""
        with self._changed:
            while True:
                self._tidy()
                if self._stopped:
                    return None
                for job_id in self._work:
                    self._jobs[job_id] = replace(self._jobs[job_id], state=State.running)
                    return job_id
                unlogged = any(job.ended and not job.told for job in self._jobs.values())
                self._changed.wait(_RETRY_SECONDS if unlogged else _TIDY_SECONDS)

    def _finish(self, job: Job) -> Job:
        """Publish a final state: first on disk, then in the audit log, then to callers."""
        self._records.try_keep(job)
        job = self._log_end(job)
        with self._changed:
            self._jobs[job.id] = job
            self._work.pop(job.id, None)
        return job

    def _log_end(self, job: Job) -> Job:
        """Write the final state of a job to the audit log. Returns the job, with `told` set if that succeeded."""
        try:
            self._on_end(job)
        except TbpsError as error:
            log.error("job %s: %s", job.id, error)
            return job
        told = replace(job, told=True)
        self._records.try_keep(told)
        return told

    def _completed(self, job: Job, logged: Mapping[str, Mapping[str, Any]]) -> Job:
        """Complete a job of an earlier run of the service, so that its final state is in its record and in the audit log.

        logged: lines of the audit log about final states, by job.
        """
        if (line := logged.get(job.id)) is None:
            job = self._counted(job) if job.ended else self._counted(job.stopped())
            self._records.try_keep(job)
            return self._log_end(job)
        if not job.ended:  # version 0.1 wrote the line before the record
            state = State(line["state"]) if line.get("state") in ENDS else State.failed
            job = replace(job.stopped(), state=state, added=int(line.get("added", job.added)))
        job = replace(job, told=True, pending=())
        self._records.try_keep(job)
        return job

    def _counted(self, job: Job) -> Job:
        """Add the pending rows that are in the gallery to `added`."""
        if not job.pending:
            return job
        try:
            return replace(job, added=job.added + len(self._gallery.present(job.pending)), pending=())
        except TbpsError as error:
            log.error("job %s: its last commit cannot be counted: %s", job.id, error)
            return replace(job, pending=())

    def _tidy(self) -> None:
        """Drop old jobs, and retry to log final states that could not be logged."""
        if unlogged := [job for job in self._jobs.values() if job.ended and not job.told and job.id not in self._work]:
            logged = _logged(self._state)
            for job in unlogged:
                self._jobs[job.id] = self._completed(job, logged)
        for job in outdated(list(self._jobs.values()), now()):
            del self._jobs[job.id]
            try:
                self._records.drop(job)
            except TbpsError as error:
                log.error("the record of job %s: %s", job.id, error)


def _logged(state: Path) -> dict[str, Mapping[str, Any]]:
    """Lines of the audit log about final states of jobs, by job id."""
    return {str(line["job"]): line for line in entries(state) if line.get("deed") == DEED and "job" in line}


def _remove(folder: Path) -> None:
    try:
        remove_order(folder)
    except TbpsError as error:
        log.error("an indexed upload stays on disk until the next start: %s", error)


def _may_see(caller: Caller, job: Job) -> bool:
    return caller.cameras is None or job.owner == caller.id


def _without(text: str, folder: Path) -> str:
    return text.replace(f"{folder}/", "").replace(str(folder), "")
