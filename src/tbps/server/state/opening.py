"""Opening of a state folder: checks that it belongs to the gallery, and marks or refuses it.

A missing or empty folder is created and marked. A folder of version 0.1 has no mark; it is recognised by its contents (files of a
service and nothing else) and marked. Every other folder is refused and left unchanged.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from tbps.config import Settings
from tbps.errors import SettingsError, StorageError
from tbps.gallery import MANIFEST_FILE, Manifest, lock, read_manifest
from tbps.server.state.layout import MARK_FILE, contents, linked, make_state, shows_a_service, stranger
from tbps.storage import write_bytes

_WAY_OUT = "give a new or empty folder with --state"
_Place = tuple[int, int]


class Mark(Settings):
    """Content of STATE/tbps-state.json.

    gallery: resolved path of the gallery; created: creation time from the gallery's manifest.
    """

    format: Literal["tbps-state"] = "tbps-state"
    version: Literal[1] = 1
    gallery: str
    created: str


def open_state(folder: Path, gallery: Path, manifest: Manifest) -> tuple[str, ...]:
    """Check the state folder of a gallery, and create and mark it if needed. Returns messages for the log.

    Raises SettingsError, before anything is changed, if the folder contains other files, belongs to another gallery, lies inside
    the gallery or contains it; StorageError if it cannot be written.
    """
    mark = _checked(folder, gallery, manifest)
    is_old = mark is None and bool(contents(folder))
    wanted = Mark(gallery=os.path.realpath(gallery), created=manifest.created)
    make_state(folder)
    if mark == wanted:
        return ()
    with lock(folder):
        _checked(folder, gallery, manifest)
        write_bytes(folder / MARK_FILE, (wanted.model_dump_json(indent=1) + "\n").encode(), mode=0o600)
    if is_old:
        return (f"{folder} is a state folder of version 0.1; it was marked with {MARK_FILE} and stays in use",)
    if mark is None:
        return ()
    if mark.gallery != wanted.gallery:
        return (f"{folder} was the state folder of this gallery when the gallery was at {mark.gallery}; it stays in use",)
    return (f"gallery {gallery} was re-created since {folder} was last used; the keys and the audit log there stay in use",)


def known_state(folder: Path, gallery: Path) -> Path:
    """Check the state folder of a gallery like `open_state`, without creating anything; the folder may be missing."""
    _checked(folder, gallery, read_manifest(gallery))
    return folder


def _checked(folder: Path, gallery: Path, manifest: Manifest | None) -> Mark | None:
    """Check a folder and return its mark; None if it is empty, missing or of version 0.1. Raises as `open_state`."""
    if os.path.lexists(folder) and not folder.is_dir():
        raise SettingsError(f"the state folder {folder} is a file or a broken link; {_WAY_OUT}")
    _check_apart(folder, gallery)
    try:
        mark = _read_mark(folder)
        if mark is None and contents(folder):
            if (name := stranger(folder)) is not None:
                raise SettingsError(f"{folder} is not a state folder: it contains {name!r}; nothing was changed; {_WAY_OUT}")
            if not shows_a_service(folder):
                raise SettingsError(f"{folder} is not a state folder: it contains only {contents(folder)[0]!r}; {_WAY_OUT}")
    except OSError as error:
        raise StorageError(f"the state folder {folder} cannot be read ({error.strerror or error}); {_WAY_OUT}") from error
    if (name := linked(folder)) is not None:
        raise SettingsError(
            f"{name!r} in the state folder {folder} is a link, or a file instead of a folder or vice versa; move it away; "
            "nothing was changed"
        )
    if mark is not None and manifest is not None:
        _check_gallery(folder, gallery, manifest, mark)
    return mark


def _check_gallery(folder: Path, gallery: Path, manifest: Manifest, mark: Mark) -> None:
    if _same(Path(mark.gallery), gallery):
        return
    if mark.created == manifest.created and not os.path.lexists(os.path.join(mark.gallery, MANIFEST_FILE)):
        return  # the gallery was moved
    raise SettingsError(
        f"{folder} is the state folder of another gallery, {mark.gallery}; {_WAY_OUT}. To give it to {gallery}, with its keys and "
        f"audit log, remove {folder / MARK_FILE} first"
    )


def _read_mark(folder: Path) -> Mark | None:
    file = folder / MARK_FILE
    try:
        return Mark.parse(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError, TypeError, SettingsError) as error:
        raise SettingsError(f"{file} cannot be used ({error}); it is damaged or of a later version; restore it") from error


def _check_apart(folder: Path, gallery: Path) -> None:
    """Raise SettingsError if one of the folders lies inside the other. They are compared by device and inode, not by path."""
    state, own = _ancestors(folder), _ancestors(gallery)
    if not own or not os.path.isdir(gallery):
        return
    if own[0] in state or not set(state).isdisjoint(_below(gallery)):
        raise SettingsError(f"the state folder {folder} lies in the gallery {gallery}; choose one beside it with --state")
    if not os.path.isdir(folder):
        return
    if state[0] in own or (os.path.lexists(folder / MARK_FILE) and not set(own).isdisjoint(_below(folder))):
        raise SettingsError(f"the gallery {gallery} lies in the state folder {folder}; choose one beside it with --state")


def _ancestors(path: Path) -> list[_Place]:
    """Device and inode of a folder and of each of its parents that exists."""
    real = Path(os.path.realpath(path))
    return [place for each in (real, *real.parents) if (place := _place(each)) is not None]


def _below(folder: Path) -> Iterator[_Place]:
    for parent, names, _ in os.walk(folder):
        yield from (place for name in names if (place := _place(Path(parent, name))) is not None)


def _place(path: Path) -> _Place | None:
    try:
        facts = os.lstat(path)
    except OSError:
        return None
    return facts.st_dev, facts.st_ino


def _same(one: Path, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False
