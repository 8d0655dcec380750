"""Sessions of browsers, in memory only: they end with the service, with their key, and after some hours."""

import hashlib
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import final

from tbps.server.keys import Key, Keys, make_state
from tbps.server.state_layout import ID_FILE
from tbps.storage import write_text

MOST_PER_KEY = 50


@dataclass(frozen=True, slots=True)
class _Session:
    """key: the hash of the key that it was begun with, so that another key of the same id does not go on with it."""

    key: str
    until: float


@final
class Sessions:
    """A key has a number of sessions of its own: with one more, the one of the same key that was idle for longest ends.

    So nobody can take places from the holders of other keys.
    """

    def __init__(self, keys: Keys, hours: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._keys, self._seconds, self._clock = keys, hours * 3600, clock
        self._sessions: OrderedDict[str, _Session] = OrderedDict()  # the one that was used last at the end
        self._lock = threading.Lock()

    def begin(self, key: Key) -> str:
        """The token of a new session."""
        token = secrets.token_urlsafe(32)
        with self._lock:
            self._drop_ended()
            mine = [name for name, session in self._sessions.items() if session.key == key.hash]
            for name in mine[: max(0, len(mine) + 1 - MOST_PER_KEY)]:
                del self._sessions[name]
            self._sessions[_digest(token)] = _Session(key.hash, self._clock() + self._seconds)
        return token

    def key_of(self, token: str) -> Key | None:
        """The key that a session was begun with, as it is now; None where session or key have ended."""
        name = _digest(token)
        with self._lock:
            session = self._sessions.get(name)
            if session is None:
                return None
            key = next((key for key in self._keys.all() if key.hash == session.key), None)
            if key is None or session.until <= self._clock():
                del self._sessions[name]
                return None
            self._sessions.move_to_end(name)
            return key

    def end(self, token: str) -> None:
        """Forgets a session."""
        with self._lock:
            self._sessions.pop(_digest(token), None)

    def __len__(self) -> int:
        return len(self._sessions)

    def _drop_ended(self) -> None:
        now, keys = self._clock(), {key.hash for key in self._keys.all()}
        for name in [name for name, session in self._sessions.items() if session.until <= now or session.key not in keys]:
            del self._sessions[name]


def cookie_name(state: Path) -> str:
    """The name of a service's cookie, its own and the same after a restart.

    Browsers keep the cookies of a host whatever the port: by one name, two services of one host would sign each other's users out.
    The name is made of a random number in STATE/service.id. Raises StorageError.
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
