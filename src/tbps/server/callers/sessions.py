"""Browser sessions, kept in memory. A session ends with the service, with its key, or after some hours."""

import hashlib
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import final

from cachetools import TTLCache

from tbps.server.callers.keys import Key, Keys
from tbps.server.state.layout import ID_FILE, make_state
from tbps.storage import write_text

MOST_PER_KEY = 50


@final
class Sessions:
    """Sessions by key, at most 50 per key. A further one replaces the least recently used session of the same key.

    The holder of one key can therefore not end sessions of other keys. Sessions belong to the hash of a key, so that a new key with
    the same id does not continue them. Thread-safe.
    """

    def __init__(self, keys: Keys, hours: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._keys, self._seconds, self._clock = keys, hours * 3600, clock
        self._by_key: dict[str, TTLCache[str, bool]] = {}  # hash of a key -> hashes of its tokens
        self._lock = threading.Lock()

    def begin(self, key: Key) -> str:
        """Start a session and return its token."""
        token = secrets.token_urlsafe(32)
        with self._lock:
            hashes = {each.hash for each in self._keys.all()}
            self._by_key = {each: tokens for each, tokens in self._by_key.items() if each in hashes}
            tokens = self._by_key.setdefault(key.hash, TTLCache(MOST_PER_KEY, self._seconds, timer=self._clock))
            tokens[_digest(token)] = True
        return token

    def key_of(self, token: str) -> Key | None:
        """Current key of a session; None if the session has ended or the key was removed."""
        digest = _digest(token)
        with self._lock:
            for key in self._keys.all():
                tokens = self._by_key.get(key.hash)
                if tokens is not None and tokens.get(digest):  # `get` also marks the session as used
                    return key
        return None

    def end(self, token: str) -> None:
        """End a session."""
        with self._lock:
            for tokens in self._by_key.values():
                tokens.pop(_digest(token), None)

    def __len__(self) -> int:
        return sum(map(len, self._by_key.values()))


def cookie_name(state: Path) -> str:
    """Name of a service's session cookie: contains the random number in STATE/service.id, so that it survives restarts.

    Browsers send the cookies of a host to all of its ports. With equal names, two services on a host would sign out each other's
    users. Raises StorageError.
    """
    file = make_state(state) / ID_FILE
    try:
        found = file.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        found = ""
    if len(found) != 16 or not all(digit in "0123456789abcdef" for digit in found):
        found = secrets.token_hex(8)
        write_text(file, found + "\n")
    return f"tbps_session_{found}"


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
