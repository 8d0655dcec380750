"""Connections to the service: how many there are, and how long each may keep the service waiting.

uvicorn waits for the headers of a request for as long as it takes, and asyncio accepts connections until the process has no file
descriptor left, then writes a traceback for each that it could not accept. So the service accepts them itself:

- There is a most of connections, in all and from one address (a trusted proxy counts as none), that leaves the process enough
  descriptors for the gallery, the audit log and uploads.
- When that is reached, the connection that has kept the service waiting for longest ends: after the first second, one whose caller
  is not known before one of a known caller. So whoever sends slowly gives way to whoever asks. Connections whose requests the
  service works on never end that way; where there are only such, a new one is answered 503.
- A connection ends when the headers of a request take too long, when it is idle for too long, and when its client takes nothing of
  an answer for as long as it may be idle.

Times for bodies are kept in `outside`, which knows what a request may take.
"""

import asyncio
import fcntl
import logging
import resource
import socket
import struct
import termios
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from tbps.errors import RequestError
from tbps.server.addresses import Addresses, group_of
from tbps.server.answers import fault_of
from tbps.server.guard import KNOWN
from tbps.server.settings import ServiceSettings

log = logging.getLogger("tbps.server")

_KEPT_FOR_FILES = 128  # descriptors that the rest of the service needs at the same time
_FEWEST = 8
_AT_ONCE = 16  # connections accepted before others have their turn
_LOOK_AGAIN = 0.25
_PAUSE = 0.2
_NEW = 1.0
_HEADERS = 2**16


@dataclass(frozen=True, slots=True)
class Waits:
    """Seconds: until the headers of a request are there, between two requests, and for the rest of what ends."""

    headers: float
    idle: float
    linger: float


@final
class Connections:
    """The connections of a service, and who gives way when there are too many."""

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
        """Whether a new connection may stay, for which another may have to end."""
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

    async def look_after(self) -> None:
        """Ends connections that have kept the service waiting for too long, until it is cancelled."""
        while True:
            now = time.monotonic()
            for connection in list(self._open):
                connection.end_if_late(now)
            await asyncio.sleep(_LOOK_AGAIN)

    def end_one(self) -> None:
        """Ends the connection that gives way first, where there is one."""
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
        """What connections of a peer are counted by; None for a proxy, which brings those of many."""
        return None if self._addresses.believes(peer) else group_of(peer)


def _rank(connection: "Connection", waited: float) -> int:
    """Lower ones give way first: whoever has just come does so last, since nearly all that are not slow on purpose ask at once."""
    return 2 if waited < _NEW else int(connection.is_known)


class Connection(H11Protocol):
    """uvicorn's HTTP/1.1, told apart by what it waits for. uvicorn offers no other place for a time limit on headers."""

    def __init__(self, connections: Connections, opened: socket.socket, **more: Any) -> None:
        super().__init__(**more)
        self._connections, self._opened = connections, opened
        self._made = self._aborted = False
        self.address: str | None = None
        self._since = time.monotonic()  # of the wait for a request, or for more of a body
        self._begun = True  # the client owes headers: it has just connected, or sent some
        self._ending_since: float | None = None
        self._untaken: tuple[int, float] | None = None  # bytes that the client had not taken, and since when they are so many

    @property
    def is_known(self) -> bool:
        """Whether the caller of the request that is under way has proved a right to ask it."""
        return self._asks() and bool(self.scope.get(KNOWN))

    def keeps_waiting_since(self) -> float | None:
        """Since when the service waits for the client; None while it works for it."""
        if self._ending_since is not None:
            return self._ending_since
        if self._asks() and not self.cycle.more_body and not self.flow.write_paused:
            return None
        return self._since

    def has_request_unread(self) -> bool:
        """Whether the headers of a request have come that the service had no time yet to look at."""
        if self._asks() or self._ending_since is not None:
            return False
        try:
            return b"\r\n\r\n" in self._opened.recv(_HEADERS, socket.MSG_PEEK)
        except OSError:  # nothing has come, or it is gone
            return False

    def end_if_late(self, now: float) -> None:
        """Ends the connection where its client has taken too long."""
        waits = self._connections.waits
        if not self._made:
            return
        if self._ending_since is None and self.transport.is_closing():
            self._ending_since = now
        if self._ending_since is not None:
            if now - self._ending_since > waits.linger:
                self.abort()
        elif self._takes_nothing(now):
            self.abort()
        elif not self._asks() and now - self._since > (waits.headers if self._begun else waits.idle):
            self._ending_since = now
            self.transport.close()

    def _takes_nothing(self, now: float) -> bool:
        """Whether more of an answer waits than may, and the client has taken none of it for too long.

        An answer whose request has timed out may wait there for ever: uvicorn sends nothing more before there is room.
        """
        left = _unsent(self._opened) if self.flow.write_paused else None
        if left is None:
            self._untaken = None
            return False
        left += self.transport.get_write_buffer_size()
        if self._untaken is None or self._untaken[0] != left:
            self._untaken = left, now
        return now - self._untaken[1] > self._connections.waits.idle

    def abort(self) -> None:
        """Ends it at once."""
        self._aborted = True
        if self._made:
            self.transport.abort()

    # What asyncio tells a protocol.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        super().connection_made(_Lingering(transport, self))
        self._made = True
        if self._aborted:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.remove(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._ending_since is not None:  # the rest of what was refused
            return
        if self._asks():
            self._since = time.monotonic()
        elif not self._begun:
            self._begun, self._since = True, time.monotonic()
        super().data_received(data)

    # What uvicorn's own parts call.

    def on_response_complete(self) -> None:
        self._begun, self._since = False, time.monotonic()
        super().on_response_complete()

    def shutdown(self) -> None:
        if self._ending_since is not None:
            self.abort()
        else:
            super().shutdown()

    def linger(self) -> bool:
        """Whether the client has more to send, which is to be taken and thrown away: else it may never read its answer."""
        self._ending_since = self._ending_since or time.monotonic()
        return self.conn.their_state is h11.SEND_BODY

    def _asks(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete


class _Lingering(asyncio.Transport):
    """A transport whose `close` lets the client read the answer: a closed socket with unread bytes would take it away."""

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


@final
class Accepting:
    """Takes connections from a listening socket. `made`: the protocol of a new connection."""

    def __init__(self, listening: socket.socket, connections: Connections, made: Callable[[socket.socket], Connection]) -> None:
        self._listening, self._connections, self._made = listening, connections, made
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._resuming: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begins, with connections that wait already."""
        self._listening.setblocking(False)
        self._loop.add_reader(self._listening.fileno(), self._accept)
        self._keep(self._loop.create_task(self._connections.look_after()))

    def stop(self) -> None:
        """Takes no more; connections that are there stay."""
        if self._resuming is not None:
            self._resuming.cancel()
        self._loop.remove_reader(self._listening.fileno())

    def cancel(self) -> None:
        """Ends looking after connections."""
        for task in self._tasks:
            task.cancel()

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                opened, peer = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # no descriptor is left, also for other reasons than connections
                log.error("a connection cannot be accepted (%s); trying again", error.strerror)
                self._connections.end_one()
                self._loop.remove_reader(self._listening.fileno())
                self._resuming = self._loop.call_later(_PAUSE, self._resume)
                return
            address = str(peer[0])
            if self._connections.admit(address):
                opened.setblocking(False)
                connection = self._made(opened)
                self._connections.add(connection, address)
                self._keep(self._loop.create_task(self._serve(opened, connection)))
            else:
                refuse(opened)

    def _resume(self) -> None:
        self._resuming = None
        self._loop.add_reader(self._listening.fileno(), self._accept)

    async def _serve(self, opened: socket.socket, connection: Connection) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: connection, opened)
        except OSError:  # it is gone already
            self._connections.remove(connection)
            opened.close()

    def _keep(self, task: asyncio.Task[Any]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _unsent(opened: socket.socket) -> int | None:
    """How many bytes the system keeps that the other side has not acknowledged; None where the connection is gone."""
    try:
        (left,) = struct.unpack("i", fcntl.ioctl(opened, termios.TIOCOUTQ, bytes(4)))
    except (OSError, ValueError):
        return None
    return int(left)


def refuse(opened: socket.socket) -> None:
    """Answers 503 to a connection that there is no room for, as far as that goes without waiting, and closes it."""
    body = fault_of(RequestError(503, "busy", "too many connections; ask again in a moment", 1)).answer().body
    head = (
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\nconnection: close\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    with opened, suppress(OSError):
        opened.setblocking(False)
        opened.send(head.encode() + bytes(body))
        opened.shutdown(socket.SHUT_WR)
        opened.recv(2**16)  # what was sent by now: left unread, it would take the answer away


def most_connections(wished: int) -> int:
    """How many connections there may be, by the wish and by the files that this process may have open."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return wished
    return max(_FEWEST, min(wished, files - _KEPT_FOR_FILES))
