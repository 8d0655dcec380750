"""Limits on the number of connections, and time limits on slow and idle clients.

uvicorn waits for the headers of a request without a time limit, and asyncio accepts connections until no file descriptor is left.

- The number of connections is limited, in total and per address (except trusted proxies), so that enough file descriptors remain
  for the gallery, the audit log and uploads.
- At the limit, the connection that has kept the service waiting for longest is closed in favour of a new one. Connections of
  identified callers, and those younger than a second, are closed last. A connection whose request is being processed is never
  closed; if there is no other, the new connection is answered with 503 (see `accepting`).
- A connection is closed if the headers of a request take too long, if it is idle for too long, or if its client reads nothing of an
  answer for as long as a connection may be idle.

Time limits for bodies are in `outside`, where the kind of request is known.
"""

import asyncio
import fcntl
import resource
import socket
import struct
import termios
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from tbps.server.callers.addresses import Addresses, group_of
from tbps.server.guard import IDENTIFIED
from tbps.server.settings import ServiceSettings

_OTHER_FILES = 128  # file descriptors that the rest of the service needs
_FEWEST = 8
_CHECK_SECONDS = 0.25
_NEW_SECONDS = 1.0
_HEADER_BYTES = 2**16


@dataclass(frozen=True, slots=True)
class Waits:
    """Time limits in seconds.

    headers: until the headers of a request are complete; idle: between two requests; linger: for receiving the rest of a refused
    request.
    """

    headers: float
    idle: float
    linger: float


@final
class Connections:
    """Open connections of a service; closes one of them when there are too many."""

    def __init__(self, settings: ServiceSettings, addresses: Addresses) -> None:
        self.waits = Waits(settings.header_seconds, settings.idle_seconds, settings.linger_seconds)
        self.most = most_connections(settings.connections)
        self.most_of_one = max(1, self.most // 2)
        self._addresses = addresses
        self._open: set[Connection] = set()
        self._by_address: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._open)

    def admit(self, peer: str) -> bool:
        """Whether there is room for a connection from a peer; closes another one for it if needed."""
        address = self._address(peer)
        if address is not None and self._by_address[address] >= self.most_of_one and not self._end_one(address):
            return False
        return len(self._open) < self.most or self._end_one(None)

    def add(self, connection: "Connection", peer: str) -> None:
        connection.address = self._address(peer)
        self._open.add(connection)
        if connection.address is not None:
            self._by_address[connection.address] += 1

    def remove(self, connection: "Connection") -> None:
        if connection not in self._open:
            return
        self._open.discard(connection)
        if connection.address is not None:
            self._by_address[connection.address] -= 1
            if not self._by_address[connection.address]:
                del self._by_address[connection.address]

    async def enforce_limits(self) -> None:
        """Close connections that have kept the service waiting for too long; runs until it is cancelled."""
        while True:
            now = time.monotonic()
            for connection in list(self._open):
                connection.end_if_late(now)
            await asyncio.sleep(_CHECK_SECONDS)

    def end_one(self) -> None:
        """Close the connection that has kept the service waiting for longest, if there is one."""
        self._end_one(None)

    def _end_one(self, address: str | None) -> bool:
        now = time.monotonic()
        waiting = [
            (_rank(connection, now - since), since, connection)
            for connection in self._open
            if (address is None or connection.address == address) and (since := connection.keeps_waiting_since()) is not None
        ]
        for _, _, connection in sorted(waiting, key=lambda each: each[:2]):
            if not connection.has_request_unread():
                self.remove(connection)
                connection.abort()
                return True
        return False

    def _address(self, peer: str) -> str | None:
        """Address group that a peer's connections are counted for; None for a trusted proxy, which has many clients."""
        return None if self._addresses.trusts(peer) else group_of(peer)


def _rank(connection: "Connection", waited: float) -> int:
    """Order of closing, lowest first. New connections are closed last, since an ordinary client sends its request at once."""
    return 2 if waited < _NEW_SECONDS else int(connection.is_identified)


class Connection(H11Protocol):
    """HTTP/1.1 protocol of uvicorn with time limits on headers, idle time and reading, which uvicorn does not offer."""

    def __init__(self, connections: Connections, opened: socket.socket, **more: Any) -> None:
        super().__init__(**more)
        self._connections, self._opened = connections, opened
        self._made = self._aborted = False
        self.address: str | None = None
        self._since = time.monotonic()  # start of the wait for a request, or for more of a body
        self._begun = True  # waiting for headers: the client has just connected or has sent a part of them
        self._ending_since: float | None = None
        self._unread: tuple[int, float] | None = None  # bytes that the client has not read, and time of their last change

    @property
    def is_identified(self) -> bool:
        """Whether the guard has accepted the caller of the request in progress."""
        return self._in_request() and bool(self.scope.get(IDENTIFIED))

    def keeps_waiting_since(self) -> float | None:
        """Time since which the service waits for the client; None while a request is being processed."""
        if self._ending_since is not None:
            return self._ending_since
        if self._in_request() and not self.cycle.more_body and not self.flow.write_paused:
            return None
        return self._since

    def has_request_unread(self) -> bool:
        """Whether the headers of a request are in the socket and the service has not read them yet."""
        if self._in_request() or self._ending_since is not None:
            return False
        try:
            return b"\r\n\r\n" in self._opened.recv(_HEADER_BYTES, socket.MSG_PEEK)
        except OSError:  # nothing has arrived, or the connection is closed
            return False

    def end_if_late(self, now: float) -> None:
        """Close the connection if its client has taken too long."""
        waits = self._connections.waits
        if not self._made:
            return
        if self._ending_since is None and self.transport.is_closing():
            self._ending_since = now
        if self._ending_since is not None:
            if now - self._ending_since > waits.linger:
                self.abort()
        elif self._reads_nothing(now):
            self.abort()
        elif not self._in_request() and now - self._since > (waits.headers if self._begun else waits.idle):
            self._ending_since = now
            self.transport.close()

    def _reads_nothing(self, now: float) -> bool:
        """Whether the send buffer is full and the client has read nothing for too long.

        Without this check, the rest of an answer would wait forever, since uvicorn sends no more until the buffer has room.
        """
        left = _unsent(self._opened) if self.flow.write_paused else None
        if left is None:
            self._unread = None
            return False
        left += self.transport.get_write_buffer_size()
        if self._unread is None or self._unread[0] != left:
            self._unread = left, now
        return now - self._unread[1] > self._connections.waits.idle

    def abort(self) -> None:
        """Close the connection at once."""
        self._aborted = True
        if self._made:
            self.transport.abort()

    # Called by asyncio.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        super().connection_made(_Lingering(transport, self))
        self._made = True
        if self._aborted:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.remove(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._ending_since is not None:  # rest of a refused request
            return
        if self._in_request():
            self._since = time.monotonic()
        elif not self._begun:
            self._begun, self._since = True, time.monotonic()
        super().data_received(data)

    # Called by uvicorn.

    def on_response_complete(self) -> None:
        self._begun, self._since = False, time.monotonic()
        super().on_response_complete()

    def shutdown(self) -> None:
        if self._ending_since is not None:
            self.abort()
        else:
            super().shutdown()

    def linger(self) -> bool:
        """Start to close the connection. Returns whether the client is still sending a body.

        The rest of such a body is read and dropped, since the client may not read its answer before it has sent everything.
        """
        self._ending_since = self._ending_since or time.monotonic()
        return self.conn.their_state is h11.SEND_BODY

    def _in_request(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete


class _Lingering(asyncio.Transport):
    """Transport whose `close` keeps reading for a while.

    Closing a socket with unread bytes resets the connection, and the client would lose the answer.
    """

    def __init__(self, transport: asyncio.Transport, connection: Connection) -> None:
        super().__init__()
        self._transport, self._connection, self._closed = transport, connection, False

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._connection.linger() and not self._transport.is_closing():
            with suppress(OSError, RuntimeError):
                self._transport.resume_reading()
                self._transport.write_eof()
                return
        self._transport.close()

    def is_closing(self) -> bool:
        return self._closed or self._transport.is_closing()

    def abort(self) -> None:
        self._closed = True
        self._transport.abort()

    def write(self, data: Any) -> None:
        self._transport.write(data)

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def get_write_buffer_size(self) -> int:
        return self._transport.get_write_buffer_size()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._transport.get_protocol()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._transport.set_protocol(protocol)


def _unsent(opened: socket.socket) -> int | None:
    """Bytes in the send buffer that the client has not acknowledged; None if the connection is closed."""
    try:
        (left,) = struct.unpack("i", fcntl.ioctl(opened, termios.TIOCOUTQ, bytes(4)))
    except (OSError, ValueError):
        return None
    return int(left)


def most_connections(wished: int) -> int:
    """Limit on connections: `wished`, or fewer if the process's limit on open files is low."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return wished
    return max(_FEWEST, min(wished, files - _OTHER_FILES))
