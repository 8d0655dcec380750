"""Accepts connections from a listening socket and hands them to uvicorn; answers 503 above the limit on connections.

asyncio would accept connections until the process has no file descriptor left, and then log a traceback for each further one.
"""

import asyncio
import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any, final

from tbps.errors import RequestError
from tbps.server.connections import Connection, Connections
from tbps.server.faults import fault_of

log = logging.getLogger("tbps.server")

_PER_TURN = 16  # connections accepted per iteration of the event loop
_PAUSE = 0.2  # seconds without accepting after no file descriptor was left


@final
class Accepting:
    """Accepts connections from a listening socket. make: creates the protocol of a new connection."""

    def __init__(self, listening: socket.socket, connections: Connections, make: Callable[[socket.socket], Connection]) -> None:
        self._listening, self._connections, self._make = listening, connections, make
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._resuming: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Start to accept connections, including those that are already waiting."""
        self._listening.setblocking(False)
        self._loop.add_reader(self._listening.fileno(), self._accept)
        self._keep(self._loop.create_task(self._connections.enforce_limits()))

    def stop(self) -> None:
        """Stop accepting connections; open ones stay open."""
        if self._resuming is not None:
            self._resuming.cancel()
        self._loop.remove_reader(self._listening.fileno())

    def cancel(self) -> None:
        """Stop enforcing the time limits of connections."""
        for task in self._tasks:
            task.cancel()

    def _accept(self) -> None:
        for _ in range(_PER_TURN):
            try:
                opened, peer = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # no file descriptor is left, possibly because of other open files
                log.error("a connection cannot be accepted (%s); trying again", error.strerror)
                self._connections.end_one()
                self._loop.remove_reader(self._listening.fileno())
                self._resuming = self._loop.call_later(_PAUSE, self._resume)
                return
            address = str(peer[0])
            if self._connections.admit(address):
                opened.setblocking(False)
                connection = self._make(opened)
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
        except OSError:  # the client has closed it already
            self._connections.remove(connection)
            opened.close()

    def _keep(self, task: asyncio.Task[Any]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def refuse(opened: socket.socket) -> None:
    """Answer 503 without waiting for the client, and close the connection."""
    body = fault_of(RequestError(503, "busy", "too many connections; try again in a moment", 1)).answer().body
    head = (
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\nconnection: close\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    with opened, suppress(OSError):
        opened.setblocking(False)
        opened.send(head.encode() + bytes(body))
        opened.shutdown(socket.SHUT_WR)
        opened.recv(2**16)  # closing a socket with unread bytes resets the connection, and the client would lose the answer
