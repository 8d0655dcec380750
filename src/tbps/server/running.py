"""A service on an address, until it is told to stop."""

import logging
import math
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, final

import uvicorn

from tbps.errors import SettingsError
from tbps.server.app import make_app
from tbps.server.connections import Accepting, Connection, Connections
from tbps.server.quiet import Seldom
from tbps.server.service import Service
from tbps.server.settings import ServiceSettings

_LOGGERS = ("asyncio", "tbps.server", "uvicorn.error")


def run(service: Service, on_address: Callable[[str], None]) -> None:
    """Serves until SIGTERM or Ctrl-C; requests under way are answered first. `on_address` is told where, once it can be reached.

    Raises SettingsError where the address cannot be had or the gallery is served already, and StorageError where the state folder
    cannot be written, before `on_address` is called.
    """
    service.start()
    try:
        _serve(service, on_address)
    finally:
        service.stop()


def _serve(service: Service, on_address: Callable[[str], None]) -> None:
    settings = service.settings
    with _listening(settings) as listening, _seldom():
        config = uvicorn.Config(
            make_app(service),
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,  # `outside` does that, for the proxies that are named
            ws="none",
            timeout_keep_alive=math.ceil(settings.idle_seconds),
            timeout_graceful_shutdown=max(1, round(settings.shutdown)),
            lifespan="on",
        )
        server = _Server(config, listening, Connections(settings, service.addresses))
        # uvicorn hands the signal that ended it to whoever handled it before: it has done its work.
        before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            on_address(address(settings.host, listening.getsockname()[1]))
            service.warm_decoders()
            server.run()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def address(host: str, port: int) -> str:
    """What to type into a browser."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


@final
class _Server(uvicorn.Server):
    """uvicorn's server with connections that are accepted and ended by `connections`."""

    def __init__(self, config: uvicorn.Config, listening: socket.socket, connections: Connections) -> None:
        super().__init__(config)
        self._listening, self._connections = listening, connections
        self._accepting: Accepting | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=[])
        self._accepting = Accepting(self._listening, self._connections, self._made)
        self._accepting.start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        assert self._accepting is not None
        self._accepting.stop()
        self._listening.close()
        await super().shutdown(sockets)
        self._accepting.cancel()

    def _made(self, opened: socket.socket) -> Connection:
        parts: dict[str, Any] = {"config": self.config, "server_state": self.server_state, "app_state": self.lifespan.state}
        return Connection(self._connections, opened, **parts)


@contextmanager
def _seldom() -> Iterator[None]:
    """Whoever sends nonsense may fill no disk with what is said about it."""
    rules = [(logging.getLogger(name), Seldom()) for name in _LOGGERS]
    for logger, rule in rules:
        logger.addFilter(rule)
    try:
        yield
    finally:
        for logger, rule in rules:
            logger.removeFilter(rule)


def _listening(settings: ServiceSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # asyncio switches Nagle's algorithm off for sockets that name their protocol only; it costs 40 ms an answer.
    opened = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opened.bind((settings.host, settings.port))
        opened.listen(2048)
    except OSError as error:
        opened.close()
        raise SettingsError(
            f"{settings.host} port {settings.port} cannot be had ({error.strerror or error}); choose another with --port"
        ) from error
    return opened
