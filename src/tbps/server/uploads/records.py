"""Job records, which survive a restart of the service: STATE/jobs/ID.json, one file per upload.

A record is written before a commit, with the ids of the rows, and again after it. If the service was killed in between, the next
start counts which of these rows are in the gallery. A final state is written to the record before the audit log, and the record is
marked as told afterwards. If the service was killed in between, the next start looks for the line in the audit log first, so that
each job has exactly one.

Records contain names of uploaded files and of members of archives, which may be personal data, but no pictures. Erasing images does
not remove records; a running service keeps the newest 200 for at most 30 days. While no service runs, the folder can be removed.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import final

from pydantic import TypeAdapter, ValidationError

from tbps.errors import TbpsError
from tbps.server.faults import log
from tbps.server.state.layout import JOBS, is_record, is_unfinished_record
from tbps.storage import make_folder, write_bytes, writing_to

MOST = 200
KEPT_FOR = timedelta(days=30)
STOPPED = "the service stopped before this was done; images added so far stay, and sending the same files again adds the rest"


class State(StrEnum):
    """State of a job; the last three are final."""

    waiting = "waiting"
    running = "running"
    done = "done"
    failed = "failed"
    cancelled = "cancelled"


ENDS = (State.done, State.failed, State.cancelled)


@dataclass(frozen=True, slots=True)
class Job:
    """One upload.

    owner, owner_name: id and name of the key; done, total: number of pictures, or of frames of a video; rate: of these per second;
    added: images added; skipped: name and reason per skipped file; pending: ids of rows that are being committed; told: whether the
    final state is in the audit log.
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
    told: bool = True  # True for records of version 0.1, which wrote a final state to the audit log first

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the end at the present rate; None if unknown."""
        if self.state is not State.running or self.total is None or not self.rate:
            return None
        return round((self.total - self.done) / self.rate, 1)

    @property
    def ended(self) -> bool:
        """Whether the state is final."""
        return self.state in ENDS

    def stopped(self) -> "Job":
        """Copy of the job, failed because the service stopped."""
        return self.final(State.failed, STOPPED)

    def final(self, state: State, message: str) -> "Job":
        """Copy of the job in a final state that is not in the audit log yet."""
        return replace(self, state=state, message=message, told=False)


_JOB = TypeAdapter(Job)


def now() -> str:
    """Current time in UTC as ISO 8601 with microseconds, for `created_at`."""
    return datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")


def outdated(jobs: Sequence[Job], at: str) -> list[Job]:
    """Ended jobs to drop: older than 30 days at the time `at`, or not among the newest 200. jobs: oldest first."""
    oldest = (datetime.fromisoformat(at) - KEPT_FOR).isoformat(timespec="microseconds")
    too_many = max(0, len(jobs) - MOST)
    ended = [job for job in jobs if job.ended]
    return [job for number, job in enumerate(ended) if number < too_many or job.created_at < oldest]


@final
class JobRecords:
    """Files in STATE/jobs, readable by their owner only."""

    def __init__(self, state: Path) -> None:
        self._folder = state / JOBS

    def read(self) -> list[Job]:
        """All jobs, oldest first. Damaged and partly written records are removed; other files stay. Raises StorageError."""
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
        """Write the record of a job, replacing an earlier one. Raises StorageError."""
        write_bytes(self._folder / f"{job.id}.json", _JOB.dump_json(job), mode=0o600)

    def try_keep(self, job: Job) -> None:
        """Write the record of a job like `keep`; an error is only logged."""
        try:
            self.keep(job)
        except TbpsError as error:
            log.error("the record of job %s: %s", job.id, error)

    def drop(self, job: Job) -> None:
        """Remove the record of a job. Raises StorageError."""
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
