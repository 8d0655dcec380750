"""What became of uploads, over restarts of the service: STATE/jobs/ID.json, one file per job.

A record is written before rows are committed, with the ids of these rows, and after: a service that was killed in between counts
at its next start which of them are in the gallery. A final state is recorded before its line is written to the audit log and marked
as told after it: killed in between, the next start looks for the line in the log first, so that every job has exactly one.

They hold names of uploaded files and of members of archives, which may tell of people, and no pictures. Erasing images leaves them:
the 200 newest are kept, 30 days at most, as long as a service runs. Without one the folder can be removed: nothing depends on it.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import final

from pydantic import TypeAdapter, ValidationError

from tbps.server.answers import log
from tbps.server.state_layout import JOBS, is_record, is_unfinished_record
from tbps.storage import make_folder, write_bytes, writing_to

MOST = 200
KEPT_FOR = timedelta(days=30)
STOPPED = "the service stopped before this was done; what was added so far stays, and sending the same again adds the rest"


class State(StrEnum):
    """Of a job; the last three are its end."""

    waiting = "waiting"
    running = "running"
    done = "done"
    failed = "failed"
    cancelled = "cancelled"


ENDS = (State.done, State.failed, State.cancelled)


@dataclass(frozen=True, slots=True)
class Job:
    """One upload. owner, owner_name: of the key; done, total: pictures, or frames of a video; skipped: name and reason.

    pending: ids of the rows that are being committed; told: the audit log has the line of the final state.
    """

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
    owner_name: str = ""
    pending: tuple[str, ...] = ()
    told: bool = True  # version 0.1 recorded a final state after its line

    @property
    def seconds_left(self) -> float | None:
        """At the present rate."""
        if self.state is not State.running or self.total is None or not self.rate:
            return None
        return round((self.total - self.done) / self.rate, 1)

    @property
    def ended(self) -> bool:
        """Whether nothing more becomes of it."""
        return self.state in ENDS

    def stopped(self) -> "Job":
        """As it is when the service stops before its end."""
        return self.final(State.failed, STOPPED)

    def final(self, state: State, message: str) -> "Job":
        """As it is at its end, which the audit log does not have yet."""
        return replace(self, state=state, message=message, told=False)


_JOB = TypeAdapter(Job)


def now() -> str:
    """For `created_at`: fine enough to tell the order of jobs."""
    return datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")


def outdated(jobs: Sequence[Job], at: str) -> list[Job]:
    """The ended ones of some jobs, oldest first, that are no longer to be kept at a time."""
    oldest = (datetime.fromisoformat(at) - KEPT_FOR).isoformat(timespec="microseconds")
    too_many = max(0, len(jobs) - MOST)
    ended = [job for job in jobs if job.ended]
    return [job for number, job in enumerate(ended) if number < too_many or job.created_at < oldest]


@final
class JobRecords:
    """The files of a state folder's jobs, for its owner only."""

    def __init__(self, state: Path) -> None:
        self._folder = state / JOBS

    def read(self) -> list[Job]:
        """Every job, oldest first. Damaged and half-written records are removed; files that are no records stay.

        Raises StorageError.
        """
        make_folder(self._folder)
        jobs = []
        with writing_to(self._folder):
            self._folder.chmod(0o700)
            for file in sorted(self._folder.iterdir()):
                if file.is_symlink() or not file.is_file():
                    continue
                if is_unfinished_record(file.name):
                    file.unlink()
                elif is_record(file.name):
                    if (job := _read(file)) is None:
                        file.unlink()
                    else:
                        jobs.append(job)
        return sorted(jobs, key=lambda job: job.created_at)

    def keep(self, job: Job) -> None:
        """What is known of a job now, in place of what was. Raises StorageError."""
        write_bytes(self._folder / f"{job.id}.json", _JOB.dump_json(job), mode=0o600)

    def drop(self, job: Job) -> None:
        """Raises StorageError."""
        with writing_to(self._folder), suppress(FileNotFoundError):
            (self._folder / f"{job.id}.json").unlink()


def _read(file: Path) -> Job | None:
    try:
        job = _JOB.validate_json(file.read_bytes())
        datetime.fromisoformat(job.created_at)
    except (ValidationError, ValueError) as error:
        log.error("the record of job %s is damaged and was removed: %s", file.stem, error)
        return None
    if job.id != file.stem:
        log.error("the record of job %s is of job %s and was removed", file.stem, job.id)
        return None
    return job
