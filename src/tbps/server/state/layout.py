"""Files and folders in a service's state folder: names, detection and removal.

    STATE/tbps-state.json           marks the folder as a state folder (see `opening`)
    STATE/service.json              process id and host of the running or last service (see `claims`)
    STATE/service.id                random part of the session cookie's name (see `sessions.cookie_name`)
    STATE/keys.json                 see `keys`
    STATE/audit.jsonl, audit.head   see `audit`
    STATE/jobs/ID.json              one record per upload (see `uploads.records`)
    STATE/spool/jobs/ID/0000        files of an upload that is waiting or being indexed
    STATE/spool/asked/ID/0000       pictures of a search that is being answered
    STATE/.lock                     locked while keys or the audit log are written
    STATE/.service.lock             see `claims`

Only these files are ever removed, and symbolic links are never followed.
"""

import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from tbps.errors import SettingsError
from tbps.storage import make_folder, writing_to

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


def make_state(folder: Path) -> Path:
    """Create the state folder if it is missing, readable by its owner only. Raises SettingsError if it contains other files."""
    if not (folder / MARK_FILE).exists() and (name := stranger(folder)) is not None:
        raise SettingsError(
            f"{folder} is not a state folder: it contains {name!r}; nothing was changed; give a new or empty folder"
        )
    make_folder(folder)
    with writing_to(folder):
        if stat.S_IMODE(folder.stat().st_mode) != 0o700:
            folder.chmod(0o700)
    return folder


def is_record(name: str) -> bool:
    """Whether `name` is the file name of a job record in STATE/jobs."""
    return _RECORD.fullmatch(name) is not None


def is_unfinished_record(name: str) -> bool:
    """Whether `name` is the temporary file name of a job record, which a killed process leaves in STATE/jobs."""
    return _RECORD_PART.fullmatch(name) is not None


def contents(folder: Path) -> list[str]:
    """Sorted names of a folder's entries, without `lost+found`; empty if the folder is missing."""
    try:
        return sorted(name for name in os.listdir(folder) if name != "lost+found")
    except FileNotFoundError:
        return []


def stranger(folder: Path) -> str | None:
    """First entry, relative to `folder`, that neither this version nor version 0.1 creates, or None."""
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
    """First entry that the service would write to but that is a link, or a file instead of a folder or vice versa."""
    folders = (JOBS, SPOOL, *(f"{SPOOL}/{name}" for name in SPOOLED))
    for name in (*folders, _LOG, _HEAD):
        place = folder / name
        if os.path.lexists(place) and not (_is_folder(place) if name in folders else _is_file(place)):
            return name
    return None


def shows_a_service(folder: Path) -> bool:
    """Whether the contents of a folder without a mark show that version 0.1 created it; names alone are not sufficient.

    A service of version 0.1 that never received a request left empty folders with mode 0700.
    """
    names = contents(folder)
    if any(name in (KEYS_FILE, _LOG, _HEAD) and (folder / name).stat().st_size for name in names):
        return True
    if any(_is_json_object(folder / JOBS / name, "state") for name in contents(folder / JOBS) if is_record(name)):
        return True
    empty = not contents(folder / JOBS)
    return empty and stat.S_IMODE(folder.stat().st_mode) == 0o700


def clear_spool(state: Path) -> list[str]:
    """Remove all uploads and pictures of searches from the spool. Returns the names of other entries, which are left in place."""
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
    """Remove the folder of one upload with its files. Returns False if the folder contains other entries and therefore stays."""
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
    """Entries that do not belong in STATE/jobs or STATE/spool."""
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
    """Whether a keys file or audit log in a folder without a mark has the format that a service writes."""
    if file.name == KEYS_FILE:
        return _is_json_object(file, "format", "tbps-keys")
    if file.name in (_HEAD, _LOG):  # one of the two may be damaged
        head, log = file.with_name(_HEAD), file.with_name(_LOG)
        if file == log and not file.stat().st_size:  # empty if the disk was full at its first line
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
