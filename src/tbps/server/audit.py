"""The audit log: one JSON line a deed, each with the hash of the line before, so that a changed, removed or moved line shows.

    {"number": 7, "at": "2024-05-01T08:30:00.123456", "who": "front desk", "key": "1f2e3d4c", "deed": "search", ...,
     "previous": hash of the line before, "hash": SHA-256 of the line without this field}

STATE/audit.jsonl grows only; STATE/audit.head holds number, hash and size of what was acknowledged last. A line is on disk before
whatever it tells of is answered; where it cannot be written, nothing is. Deeds that wait for the disk at the same time are written
together. Several processes may append: they take turns by a lock.

What the chain shows: any line changed, removed, added between others or moved, and lines missing at the end as long as the head is
as it was. What it cannot show: that somebody who may write to the folder has made the whole chain and the head anew. Against that
keep `number:hash` from `tbps audit verify` somewhere else from time to time, and verify with --noted.
"""

import fcntl
import hashlib
import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, final

from tbps.errors import StorageError, TbpsError
from tbps.server.keys import make_state
from tbps.storage import write_text, writing_to

AUDIT_FILE = "audit.jsonl"
HEAD_FILE = "audit.head"
_START = "0" * 64


@dataclass(frozen=True, slots=True)
class Head:
    """The last line: its number and hash, and the size of the log up to its end."""

    number: int = 0
    hash: str = _START
    size: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """lines: right ones from the start; hash: of the last of them; wrong: what is not as it was written, None where all is."""

    lines: int
    hash: str
    wrong: str | None


@dataclass(slots=True)
class _Waiting:
    deed: Mapping[str, Any]
    done: bool = False
    error: TbpsError | None = None


@final
class Audit:
    """The log of a state folder; safe from several threads and processes."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._waiting: list[_Waiting] = []
        self._adding, self._writing = threading.Lock(), threading.Lock()

    def write(self, who: str, key: str, deed: str, **facts: Any) -> None:
        """Appends one line and returns when it is on disk. Raises StorageError where it cannot be, or the log was tampered with."""
        at = datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")
        mine = _Waiting({"at": at, "who": who, "key": key, "deed": deed, **facts})
        with self._adding:
            self._waiting.append(mine)
        with self._writing:
            if not mine.done:
                with self._adding:
                    batch, self._waiting = self._waiting, []
                self._append(batch)
        if mine.error is not None:
            raise mine.error

    def check(self) -> None:
        """Raises StorageError where nothing could be written, or the log was tampered with."""
        with _locked(self._state) as file:
            _taken_up(file, self._state)

    def _append(self, batch: Sequence[_Waiting]) -> None:
        error: TbpsError | None = None
        try:
            with _locked(self._state) as file:
                head = _taken_up(file, self._state)
                lines = []
                for each in batch:
                    line = _line(head, each.deed)
                    head = Head(head.number + 1, json.loads(line)["hash"], head.size + len(line))
                    lines.append(line)
                file.write(b"".join(lines))
                file.flush()
                os.fsync(file.fileno())
                _write_head(self._state, head)
        except TbpsError as refused:
            error = refused
        for each in batch:
            each.done, each.error = True, error


def verify(state: Path, noted: str | None = None) -> Verdict:
    """Goes through the whole log. noted: `number:hash` of an earlier verification."""
    number, last, size = 0, _START, 0
    expected = None if noted is None else noted.partition(":")
    wrong = None
    for number, line in enumerate(_lines(state), start=1):
        wrong = _wrong(line, number, last)
        if wrong is not None:
            return Verdict(number - 1, last, f"line {number}: {wrong}")
        last, size = json.loads(line)["hash"], size + len(line)
        if expected is not None and expected[0] == str(number) and expected[2] != last:
            return Verdict(number - 1, last, f"line {number}: is not the one that was noted; the log was written anew")
    head = _read_head(state)
    if expected is not None and expected[0].isdigit() and int(expected[0]) > number:
        wrong = f"line {expected[0]}: was noted and is missing; the log was cut off after line {number}"
    elif head is None and number:
        wrong = f"{HEAD_FILE} is missing or damaged; whether lines are missing after line {number} cannot be told"
    elif head is not None and head.number > number:
        wrong = f"line {number + 1}: is missing; {head.number - number:,} lines were cut off at the end"
    elif head is not None and (head.number, head.hash) != (number, last) and not _before(state, head):
        wrong = f"line {head.number}: is not the one that {HEAD_FILE} names"
    return Verdict(number, last, wrong)


def entries(state: Path) -> Iterator[dict[str, Any]]:
    """Every line that is JSON, in order; verifies nothing."""
    for line in _lines(state):
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict):
            yield found


def _before(state: Path, head: Head) -> bool:
    """Whether a line of the log is what the head names: its process was killed after writing more lines, before the head."""
    lines = _lines(state)
    return any(number == head.number and json.loads(line)["hash"] == head.hash for number, line in enumerate(lines, start=1))


def _lines(state: Path) -> Iterator[bytes]:
    try:
        with (state / AUDIT_FILE).open("rb") as file:
            yield from file
    except FileNotFoundError:
        return
    except OSError as error:
        raise StorageError(f"{state / AUDIT_FILE} cannot be read ({error.strerror})") from error


def _wrong(line: bytes, number: int, previous: str) -> str | None:
    """What is wrong with a line, None where nothing is."""
    if not line.endswith(b"\n"):
        return "ends early"
    try:
        found = json.loads(line)
        written = found.pop("hash")
        if found["number"] != number:
            return f"bears the number {found['number']}; lines were removed, added or moved"
        if found["previous"] != previous:
            return "does not follow the line before; one of the two was changed"
        if _hash(found) != written or line != _dumped({**found, "hash": written}):
            return "was changed"
    except (ValueError, KeyError, TypeError, AttributeError):
        return "is no line of an audit log"
    return None


def _line(head: Head, deed: Mapping[str, Any]) -> bytes:
    content = {"number": head.number + 1, **deed, "previous": head.hash}
    return _dumped({**content, "hash": _hash(content)})


def _hash(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(_dumped(content)).hexdigest()


def _dumped(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, separators=(",", ":"), allow_nan=False) + "\n").encode()


@contextmanager
def _locked(state: Path) -> Iterator[BinaryIO]:
    """The log, held by one process at a time."""
    make_state(state)
    with writing_to(state), (state / AUDIT_FILE).open("ab+") as file:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX)
        yield file


def _taken_up(file: BinaryIO, state: Path) -> Head:
    """Where the log ends. What a killed process wrote behind the head is kept where it is whole lines, else cut off.

    Nobody was told that it was written.
    """
    size = os.fstat(file.fileno()).st_size
    if size == 0 and not (state / HEAD_FILE).exists():
        _write_head(state, Head())  # before the first line: a log without a head has lost it
    head = _read_head(state)
    if head is None or size < head.size:
        raise StorageError(
            f"the audit log in {state} was shortened or its head is gone; see tbps audit verify, then move both away to begin anew"
        )
    if size == head.size:
        return head
    file.seek(head.size)
    for line in file.readlines():
        if _wrong(line, head.number + 1, head.hash) is not None:
            os.ftruncate(file.fileno(), head.size)
            break
        head = Head(head.number + 1, json.loads(line)["hash"], head.size + len(line))
    return head


def _read_head(state: Path) -> Head | None:
    try:
        found = json.loads((state / HEAD_FILE).read_text(encoding="utf-8"))
        return Head(int(found["number"]), str(found["hash"]), int(found["size"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_head(state: Path, head: Head) -> None:
    write_text(state / HEAD_FILE, json.dumps({"number": head.number, "hash": head.hash, "size": head.size}) + "\n")
