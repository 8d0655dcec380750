"""Audit log: one JSON line per action, each with the hash of the line before it, so that tampering is detected.

    {"number": 7, "at": "2024-05-01T08:30:00.123456", "who": "front desk", "key": "1f2e3d4c", "deed": "search", ...,
     "previous": hash of the line before, "hash": SHA-256 of the line without this field}

STATE/audit.jsonl is append-only; STATE/audit.head contains the number and hash of the last acknowledged line and the size of the
log up to its end. A line is on disk before the request that it records is answered; if it cannot be written, the request fails.
Actions that wait for the disk at the same time are written as one batch: if writing fails, all of them fail, and a partly written
batch is removed. Several processes may append; they take turns with the lock of the state folder.

Verification detects any line that was changed, removed, inserted or moved, and lines missing at the end while the head is
unchanged. It does not detect that somebody with write access to the folder has rewritten the whole log and its head. To detect
that, regularly copy the `number:hash` that `tbps audit verify` prints to another place, and verify with --noted.
"""

import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, final

from tbps.errors import SettingsError, StorageError, TbpsError
from tbps.gallery import lock
from tbps.server.state.layout import make_state
from tbps.storage import write_text, writing_to

AUDIT_FILE = "audit.jsonl"
HEAD_FILE = "audit.head"
_START = "0" * 64
_NOTE = re.compile(r"(0|[1-9][0-9]{0,17}):([0-9a-fA-F]{64})")
_HASH = re.compile(r"[0-9a-f]{64}")
_RESERVED = ("number", "previous", "hash")
_BLOCK = 2**16


@dataclass(frozen=True, slots=True)
class Head:
    """Number and hash of the last line, and the size of the log in bytes up to its end."""

    number: int = 0
    hash: str = _START
    size: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """Result of a verification.

    lines: number of intact lines from the start; hash: hash of the last of them; wrong: first problem, or None.
    """

    lines: int
    hash: str
    wrong: str | None


@dataclass(slots=True, eq=False)
class _Waiting:
    """An action that waits to be written. written: whether its line is on disk."""

    deed: Mapping[str, Any]
    written: bool = False
    error: TbpsError | None = None


@final
class Audit:
    """Audit log of a state folder; safe from several threads and processes."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._waiting: list[_Waiting] = []
        self._adding, self._writing = threading.Lock(), threading.Lock()

    def write(self, who: str, key: str, deed: str, **facts: Any) -> None:
        """Append one line; returns when it is on disk. deed: kind of action, such as "search"; facts: further fields of the line.

        Raises StorageError if writing fails, if the log was tampered with, or if `facts` cannot be represented as JSON. In the last
        case, lines of other threads are written nevertheless.
        """
        at = datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")
        mine = _Waiting(_plain({"at": at, "who": who, "key": key, "deed": deed, **facts}))
        with self._adding:
            self._waiting.append(mine)
        with self._writing:
            if not mine.written and mine.error is None:
                with self._adding:
                    batch, self._waiting = self._waiting, []
                self._write_together(batch)
        if not mine.written:
            raise mine.error or _not_written(self._state)

    def check(self) -> None:
        """Raise StorageError if the log cannot be written or was tampered with."""
        with _locked(self._state) as file:
            _end_of_log(file, self._state)

    def _write_together(self, batch: Sequence[_Waiting]) -> None:
        """Write either all lines of a batch or, after any exception, none."""
        error: TbpsError = _not_written(self._state)
        done = False
        try:
            _append(self._state, [each.deed for each in batch])
            done = True
        except TbpsError as refused:
            error = refused
        except Exception as unexpected:
            error = _not_written(self._state, unexpected)
            error.__cause__ = unexpected
        finally:  # also for exceptions that are not an `Exception`, such as KeyboardInterrupt
            for each in batch:
                each.written, each.error = done, None if done else error


def _append(state: Path, deeds: Sequence[Mapping[str, Any]]) -> None:
    with _locked(state) as file:
        head = before = _end_of_log(file, state)
        lines = []
        for deed in deeds:
            line = _line(head, deed)
            head = Head(head.number + 1, json.loads(line)["hash"], head.size + len(line))
            lines.append(line)
        try:
            _write_whole(file, b"".join(lines))
            os.fsync(file)
            _write_head(state, head)
        except BaseException:
            with suppress(OSError):  # the next writer keeps or truncates a remaining part
                os.ftruncate(file, before.size)
            raise


def _write_whole(file: int, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[os.write(file, left) :]


def _plain(deed: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of an action after a round trip through JSON. Raises StorageError if JSON cannot represent a value."""
    if reserved := [name for name in _RESERVED if name in deed]:
        raise StorageError(f"a line for the audit log has a field {reserved[0]!r}, which is reserved for the log itself")
    try:
        content: dict[str, Any] = json.loads(_dumped(deed))
        same = _dumped(content) == _dumped(deed)
    except (ValueError, TypeError, RecursionError) as error:
        raise StorageError(f"an action cannot be written to the audit log ({error})") from error
    if not same:
        raise StorageError("an action cannot be written to the audit log (it contains a key twice)")
    return content


def _not_written(state: Path, error: Exception | None = None) -> StorageError:
    reason = "" if error is None else f" ({type(error).__name__}: {error})"
    return StorageError(f"the audit log in {state} could not be written{reason}")


def verify(state: Path, noted: str | None = None) -> Verdict:
    """Verify the whole log. noted: `number:hash` of an earlier verification. Raises SettingsError if that is malformed."""
    number, last, size = 0, _START, 0
    note = None if noted is None else _note(noted)
    for number, line in enumerate(_lines(state), start=1):
        if (wrong := _wrong(line, number, last)) is not None:
            return Verdict(number - 1, last, f"line {number}: {wrong}")
        last, size = json.loads(line)["hash"], size + len(line)
        if note is not None and note.number == number and note.hash != last:
            return Verdict(number - 1, last, f"line {number}: is not the one that was noted; the log was rewritten")
    if note is not None and note.number > number:
        return Verdict(number, last, f"line {note.number}: was noted and is missing; the log was cut off after line {number}")
    return Verdict(number, last, _wrong_head(state, Head(number, last, size)))


def _note(noted: str) -> Head:
    """Parse `number:hash` of an earlier verification. Raises SettingsError."""
    found = _NOTE.fullmatch(noted)
    if found is None or (found[1] == "0" and found[2] != _START):
        raise SettingsError(
            f"{noted[:100]!r} is not a result of an earlier verification; give the last line that tbps audit verify "
            f"printed, unchanged: the number of a line, a colon and 64 hexadecimal digits, such as 12:{'0123456789abcdef' * 4}"
        )
    return Head(int(found[1]), found[2].lower())


def _wrong_head(state: Path, end: Head) -> str | None:
    """Problem with the head of a log whose lines are intact up to `end`, or None."""
    head, number = _read_head(state), end.number
    if head is None:
        return f"{HEAD_FILE} is missing or damaged; it is unknown whether lines are missing after line {number}" if number else None
    if head.number > number:
        return f"line {number + 1}: is missing; {head.number - number:,} lines were cut off at the end"
    if head != end and not _before(state, head):
        return f"line {head.number}: is not the one that {HEAD_FILE} names"
    return None


def entries(state: Path) -> Iterator[dict[str, Any]]:
    """All lines that are JSON objects, in order, without verification."""
    for line in _lines(state):
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict):
            yield found


def _before(state: Path, head: Head) -> bool:
    """Whether the head matches a line of the log. Lines follow it if a process was killed before it replaced the head."""
    at = Head()
    for number, line in enumerate(_lines(state), start=1):
        if at.number == head.number:
            break
        at = Head(number, json.loads(line)["hash"], at.size + len(line))
    return at == head


def _lines(state: Path) -> Iterator[bytes]:
    try:
        with (state / AUDIT_FILE).open("rb") as file:
            yield from file
    except FileNotFoundError:
        return
    except OSError as error:
        raise StorageError(f"{state / AUDIT_FILE} cannot be read ({error.strerror})") from error


def _wrong(line: bytes, number: int, previous: str) -> str | None:
    """Problem with a line, or None."""
    if not line.endswith(b"\n"):
        return "ends early"
    try:
        found = json.loads(line)
        written = found.pop("hash")
        if not isinstance(found["number"], int) or isinstance(found["number"], bool):
            raise TypeError
        if found["number"] != number:
            return f"has the number {found['number']}; lines were removed, added or moved"
        if found["previous"] != previous:
            return "does not follow the line before; one of the two was changed"
        if _hash(found) != written or line != _dumped({**found, "hash": written}):
            return "was changed"
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "is not a line of an audit log"
    return None


def _line(head: Head, deed: Mapping[str, Any]) -> bytes:
    content = {"number": head.number + 1, **deed, "previous": head.hash}
    return _dumped({**content, "hash": _hash(content)})


def _hash(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(_dumped(content)).hexdigest()


def _dumped(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, separators=(",", ":"), allow_nan=False) + "\n").encode()


@contextmanager
def _locked(state: Path) -> Iterator[int]:
    """Open the log under the lock of the state folder; yields its descriptor."""
    with lock(make_state(state)), writing_to(state), (state / AUDIT_FILE).open("ab+", buffering=0) as file:
        yield file.fileno()


def _end_of_log(file: int, state: Path) -> Head:
    """Head of the log, to which the next line is appended.

    Lines that a killed process wrote after the head, which were never acknowledged, are kept if complete and truncated otherwise.
    Raises StorageError if the head is missing or damaged, or if the log is shorter than the head states or has another line there.
    """
    size = os.fstat(file).st_size
    if size == 0 and not (state / HEAD_FILE).exists():
        _write_head(state, Head())  # written before the first line, so that a missing head shows tampering
    head = _read_head(state)
    if head is None or size < head.size:
        raise StorageError(
            f"the audit log in {state} was shortened, or {HEAD_FILE} is missing or damaged; see tbps audit verify, "
            "then move both files away to start a new log"
        )
    if not _ends_at(file, head):
        raise StorageError(
            f"the audit log in {state} does not end with the line that {HEAD_FILE} names; see tbps audit verify, then move both "
            "files away to start a new log"
        )
    if size == head.size:
        return head
    for line in _read(file, head.size, size).splitlines(keepends=True):
        if _wrong(line, head.number + 1, head.hash) is not None:
            os.ftruncate(file, head.size)
            break
        head = Head(head.number + 1, json.loads(line)["hash"], head.size + len(line))
    return head


def _ends_at(file: int, head: Head) -> bool:
    """Whether the line that ends at `head.size` is the one that the head names."""
    if head.number == 0 or head.size == 0:
        return head == Head()
    block, content = _BLOCK, b""
    while b"\n" not in content[:-1] and len(content) < head.size:
        content = _read(file, max(0, head.size - block), head.size)
        block *= 4
    try:
        line = json.loads(content.removesuffix(b"\n").rpartition(b"\n")[2])
        return content.endswith(b"\n") and (line["number"], line["hash"]) == (head.number, head.hash)
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def _read(file: int, start: int, end: int) -> bytes:
    parts = []
    while start < end and (part := os.pread(file, end - start, start)):
        parts.append(part)
        start += len(part)
    return b"".join(parts)


def _read_head(state: Path) -> Head | None:
    """Head of the log, or None if it is missing or damaged."""
    try:
        found = json.loads((state / HEAD_FILE).read_text(encoding="utf-8"))
        number, last, size = found["number"], found["hash"], found["size"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    if any(type(each) is not int or each < 0 for each in (number, size)):
        return None
    return Head(number, last, size) if isinstance(last, str) and _HASH.fullmatch(last) else None


def _write_head(state: Path, head: Head) -> None:
    write_text(state / HEAD_FILE, json.dumps({"number": head.number, "hash": head.hash, "size": head.size}) + "\n")
