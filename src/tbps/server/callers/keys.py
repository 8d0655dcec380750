"""Keys of a service with their roles and cameras, in STATE/keys.json.

The file contains the SHA-256 hash of each key. A slow password hash is not needed, since a key has 256 random bits and cannot be
guessed. With a fast hash every request can be checked, so that a removed key is refused at once.
"""

import hashlib
import hmac
import json
import re
import secrets
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import final

from pydantic import Field

from tbps.config import Settings
from tbps.errors import SettingsError, StorageError
from tbps.gallery import canonical_name, lock
from tbps.server.state.layout import KEYS_FILE, make_state
from tbps.storage import write_text

PREFIX = "tbps_"
_NAME = re.compile(r"[\w.@ -]{1,64}")


class Role(StrEnum):
    """Role of a key. Viewers search and see images; curators also upload; administrators also erase and read the metrics."""

    viewer = "viewer"
    curator = "curator"
    administrator = "administrator"

    @property
    def level(self) -> int:
        """Rank of the role; a role has all rights of lower ranks."""
        return list(Role).index(self)


class Key(Settings):
    """One key.

    id: identifies the key in the audit log; cameras: cameras that its holder may see, None for all; hash: SHA-256 of the secret.
    """

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
    """Keys of a state folder; changes by other processes take effect at the next call."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._file = state / KEYS_FILE
        self._seen: tuple[int, int, int] | None = None
        self._keys: tuple[Key, ...] = ()

    def all(self) -> tuple[Key, ...]:
        """All keys, oldest first. Raises StorageError if the file is damaged."""
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
        """Key with this secret, or None. Compares in constant time."""
        hashed, found = _hashed(secret), None
        for key in self.all():
            if hmac.compare_digest(key.hash, hashed):
                found = key
        return found

    def add(self, name: str, role: Role, cameras: tuple[str, ...] | None = None) -> tuple[str, Key]:
        """Create a key. Returns its secret, which is not stored, and the stored entry.

        Camera names are normalised as in galleries. Raises SettingsError if the name is invalid or in use, or if an administrator
        is restricted to cameras.
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
        """Remove the key with this name. Raises SettingsError if there is none."""
        with lock(make_state(self._state)):
            found = [key for key in self.all() if key.name == name]
            if not found:
                known = ", ".join(repr(key.name) for key in self.all()) or "none"
                raise SettingsError(f"there is no key {name!r}; there are: {known}")
            self._write(tuple(key for key in self.all() if key is not found[0]))
        return found[0]

    def _write(self, keys: tuple[Key, ...]) -> None:
        write_text(self._file, _File(entries=keys).model_dump_json(indent=1) + "\n")


def _hashed(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()
