"""Names of everything that a service keeps in its state folder, and removal of exactly these files.

STATE/tbps-state.json    the mark (see `state`)
STATE/service.json       process id and host of the service that runs, or ran last (see `claims`)
STATE/service.id         see `sessions.cookie_name`
STATE/keys.json          see `keys`
STATE/audit.jsonl, audit.head      see `audit`
STATE/jobs/ID.json       see `job_records`
STATE/spool/jobs/ID/0000 files of an upload that waits; STATE/spool/asked/ID/0000: pictures of a search, for its moment
STATE/.lock              held while keys are changed; STATE/.service.lock: see `claims`

Nothing else is ever removed, and symbolic links are never followed.
"""

import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from tbps.storage import writing_to

MARK_FILE = "tbps-state.json"
INFO_FILE = "service.json"
ID_FILE = "service.id"
KEYS_FILE = "keys.json"
JOBS = "jobs"
SPOOL = "spool"
SPOOLED = ("jobs", "asked")
SERVICE_LOCK = ".service.lock"
_LOG, _HEAD, _LOCK = "audit.jsonl", "audit.head", ".lock"
_FILES = (MARK_FILE, INFO_FILE, ID_FILE, KEYS_FILE, _LOG, _HEAD, _LOCK, SERVICE_LOCK)
_PART = re.compile(rf"\.({'|'.join(map(re.escape, _FILES))})\.[^/]*\.part")
_RECORD = re.compile(r"[0-9a-f]{24}\.json")
_RECORD_PART = re.compile(r"\.[0-9a-f]{24}\.json\.[^/]*\.part")
_ORDER = re.compile(r"[0-9a-f]{24}")
_UPLOAD = re.compile(r"\d{4}(\.[a-z0-9]{1,8}){0,2}")
_FIRST_LINE = 2**20


def is_record(name: str) -> bool:
    """Whether a file in STATE/jobs is named as the record of a job."""
    return _RECORD.fullmatch(name) is not None


def is_unfinished_record(name: str) -> bool:
    """Whether a file in STATE/jobs is named as a record that a killed process had begun to write."""
    return _RECORD_PART.fullmatch(name) is not None


def contents(folder: Path) -> list[str]:
    """Names of the entries of a folder; none where it is missing. `lost+found` of a file system's root does not count."""
    try:
        return sorted(name for name in os.listdir(folder) if name != "lost+found")
    except FileNotFoundError:
        return []


def stranger(folder: Path) -> str | None:
    """The first entry, relative to `folder`, that no service makes, of this version or 0.1; None where there is none."""
    for name in contents(folder):
        place = folder / name
        if name in (JOBS, SPOOL):
            found = name if not _is_folder(place) else next(_strangers(place, name), None)
            if found is not None:
                return found
        elif not _is_file(place) or not (name in _FILES or _PART.fullmatch(name)) or not _has_format(place):
            return name
    return None


def linked(folder: Path) -> str | None:
    """The first entry that is written to or removed from, but is a link or not of the kind that it has to be."""
    folders = (JOBS, SPOOL, *(f"{SPOOL}/{name}" for name in SPOOLED))
    for name in (*folders, _LOG, _HEAD):
        place = folder / name
        if os.path.lexists(place) and not (_is_folder(place) if name in folders else _is_file(place)):
            return name
    return None


def shows_a_service(folder: Path) -> bool:
    """Whether the files of a folder without a mark show that version 0.1 made it, and not only their names.

    A service of version 0.1 that was asked nothing leaves empty folders, which only its user may enter.
    """
    names = contents(folder)
    if any(name in (KEYS_FILE, _LOG, _HEAD) and (folder / name).stat().st_size for name in names):
        return True
    if any(_is_json_object(folder / JOBS / name, "state") for name in contents(folder / JOBS) if is_record(name)):
        return True
    empty = not contents(folder / JOBS)
    return empty and stat.S_IMODE(folder.stat().st_mode) == 0o700


def clear_spool(state: Path) -> list[str]:
    """Removes every upload that waits and every picture of a search; what else was found in the spool stays and is named."""
    spool, left = state / SPOOL, list[str]()
    for part in SPOOLED:
        for name in contents(spool / part):
            if not _ORDER.fullmatch(name) or not remove_order(spool / part / name):
                left.append(f"{SPOOL}/{part}/{name}")
        _remove_if_empty(spool / part)
    left += [f"{SPOOL}/{name}" for name in contents(spool) if name not in SPOOLED]
    _remove_if_empty(spool)
    return left


def remove_order(folder: Path) -> bool:
    """Removes the folder of one upload with its files; whether nothing else lay in it."""
    if not _is_folder(folder):
        return False
    with writing_to(folder):
        for name in contents(folder):
            if _UPLOAD.fullmatch(name) and _is_file(folder / name):
                with suppress(FileNotFoundError):
                    (folder / name).unlink()
    return _remove_if_empty(folder)


def _remove_if_empty(folder: Path) -> bool:
    if os.path.islink(folder):
        return False
    with suppress(OSError):
        folder.rmdir()
    return not os.path.lexists(folder)


def _strangers(folder: Path, name: str) -> Iterator[str]:
    """What does not belong into STATE/jobs or STATE/spool."""
    if name == JOBS:
        for each in contents(folder):
            if not (is_record(each) or is_unfinished_record(each)) or not _is_file(folder / each):
                yield f"{name}/{each}"
        return
    for part in contents(folder):
        if part not in SPOOLED or not _is_folder(folder / part):
            yield f"{name}/{part}"
            continue
        for order in contents(folder / part):
            if not _ORDER.fullmatch(order) or not _is_folder(folder / part / order):
                yield f"{name}/{part}/{order}"
                continue
            for upload in contents(folder / part / order):
                if not _UPLOAD.fullmatch(upload) or not _is_file(folder / part / order / upload):
                    yield f"{name}/{part}/{order}/{upload}"


def _has_format(file: Path) -> bool:
    """Whether keys and audit log of a folder without a mark are files of a service."""
    if file.name == KEYS_FILE:
        return _is_json_object(file, "format", "tbps-keys")
    if file.name in (_HEAD, _LOG):  # one of the two may be damaged
        head, log = file.with_name(_HEAD), file.with_name(_LOG)
        if file == log and not file.stat().st_size:  # the disk was full at its first line
            return True
        return _is_json_object(head, "hash") or _is_json_object(log, "previous", first_line=True)
    return True


def _is_json_object(file: Path, key: str, value: Any = None, first_line: bool = False) -> bool:
    try:
        with file.open("rb") as opened:
            found = json.loads(opened.readline(_FIRST_LINE) if first_line else opened.read())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and key in found and (value is None or found[key] == value)


def _is_folder(place: Path) -> bool:
    with suppress(OSError):
        return stat.S_ISDIR(os.lstat(place).st_mode)
    return False


def _is_file(place: Path) -> bool:
    with suppress(OSError):
        return stat.S_ISREG(os.lstat(place).st_mode)
    return False
