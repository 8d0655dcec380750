"""Keys: who may ask what.

STATE/keys.json holds a SHA-256 of each. A slow password hash would add nothing: a key is 256 random bits, not a word that somebody
could guess, and a fast one lets every request be checked anew, so that a key taken away ends at once.
"""

import hashlib
import hmac
import json
import re
import secrets
import stat
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import final

from pydantic import Field

from tbps.config import Settings
from tbps.errors import SettingsError, StorageError
from tbps.gallery import canonical_name, lock
from tbps.server.state_layout import KEYS_FILE, MARK_FILE, stranger
from tbps.storage import make_folder, write_text, writing_to

PREFIX = "tbps_"
_NAME = re.compile(r"[\w.@ -]{1,64}")


class Role(StrEnum):
    """A viewer searches and looks; a curator also uploads; an administrator also erases and reads the metrics."""

    viewer = "viewer"
    curator = "curator"
    administrator = "administrator"

    @property
    def level(self) -> int:
        """Higher ones may do what lower ones may."""
        return list(Role).index(self)


class Key(Settings):
    """id: opaque, for the audit log; cameras: all there is for its holder, None: everything; hash: SHA-256 of the key."""

    id: str
    name: str
    role: Role
    cameras: tuple[str, ...] | None = None
    hash: str = Field(pattern="^[0-9a-f]{64}$")
    created: str


class _File(Settings):
    format: str = "tbps-keys"
    version: int = 1
    entries: tuple[Key, ...] = ()


@final
class Keys:
    """The keys of a state folder; changes by other processes are seen at the next question."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._file = state / KEYS_FILE
        self._seen: tuple[int, int, int] | None = None
        self._keys: tuple[Key, ...] = ()

    def all(self) -> tuple[Key, ...]:
        """Every key, oldest first. Raises StorageError where the file is damaged."""
        try:
            facts = self._file.stat()
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise StorageError(f"{self._file} cannot be read ({error.strerror}); look at its permissions") from error
        seen = facts.st_ino, facts.st_mtime_ns, facts.st_size
        if seen != self._seen:
            try:
                self._keys = _File.parse(json.loads(self._file.read_text(encoding="utf-8"))).entries
            except (OSError, ValueError, SettingsError) as error:
                raise StorageError(f"{self._file} cannot be read ({error}); restore it, or remove it and add keys again") from error
            self._seen = seen
        return self._keys

    def find(self, secret: str) -> Key | None:
        """The key that a secret is, in time that does not depend on which."""
        hashed, found = _hashed(secret), None
        for key in self.all():
            if hmac.compare_digest(key.hash, hashed):
                found = key
        return found

    def by_id(self, name: str) -> Key | None:
        """The key with an id, unless it was taken away."""
        return next((key for key in self.all() if key.id == name), None)

    def add(self, name: str, role: Role, cameras: tuple[str, ...] | None = None) -> tuple[str, Key]:
        """A new key: its secret, which is kept nowhere, and what is kept, with the cameras' names as galleries store them.

        Raises SettingsError on a name that is taken or odd.
        """
        if not _NAME.fullmatch(name):
            raise SettingsError(f"key name {name!r}: use 1 to 64 letters, digits, spaces, dots, dashes, underscores and @")
        if cameras is not None and role is Role.administrator:
            raise SettingsError("an administrator sees every camera; leave out --camera, or choose another role")
        if cameras is not None:
            cameras = tuple(dict.fromkeys(map(canonical_name, cameras)))
        secret = PREFIX + secrets.token_urlsafe(32)
        created = datetime.now(UTC).isoformat(timespec="seconds")
        key = Key(id=secrets.token_hex(4), name=name, role=role, cameras=cameras, hash=_hashed(secret), created=created)
        with lock(make_state(self._state)):
            if any(other.name == name for other in self.all()):
                raise SettingsError(f"there is a key {name!r} already; take another name, or remove that one first")
            self._write((*self.all(), key))
        return secret, key

    def remove(self, name: str) -> Key:
        """Takes a key away by its name. Raises SettingsError where there is none."""
        with lock(make_state(self._state)):
            found = [key for key in self.all() if key.name == name]
            if not found:
                known = ", ".join(repr(key.name) for key in self.all()) or "none"
                raise SettingsError(f"there is no key {name!r}; there are: {known}")
            self._write(tuple(key for key in self.all() if key is not found[0]))
        return found[0]

    def _write(self, keys: tuple[Key, ...]) -> None:
        write_text(self._file, _File(entries=keys).model_dump_json(indent=1) + "\n")


def make_state(folder: Path) -> Path:
    """The state folder, made where it is not there, for its owner only. Raises SettingsError where it holds other files."""
    if not (folder / MARK_FILE).exists() and (name := stranger(folder)) is not None:
        raise SettingsError(f"{folder} is no state folder: it holds {name!r}; nothing was touched; give a new or empty folder")
    make_folder(folder)
    with writing_to(folder):
        if stat.S_IMODE(folder.stat().st_mode) != 0o700:
            folder.chmod(0o700)
    return folder


def _hashed(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()
