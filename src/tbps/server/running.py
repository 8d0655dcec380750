"""Runs a service on a port until SIGTERM or Ctrl-C."""

import logging
import math
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, final

import uvicorn

from tbps.errors import SettingsError
from tbps.server.accepting import Accepting
from tbps.server.app import make_app
from tbps.server.connections import Connection, Connections
from tbps.server.quiet import RepeatLimit
from tbps.server.service import Service
from tbps.server.settings import ServiceSettings

_LOGGERS = ("asyncio", "tbps.server", "uvicorn.error")


def run(service: Service, on_address: Callable[[str], None]) -> None:
    """Serve until SIGTERM or Ctrl-C; requests in progress are completed first.

    on_address: called with the URL once the port is open. Before that, raises SettingsError if the port cannot be opened or another
    service uses the gallery, and StorageError if the state folder cannot be written.
    """
    service.start()
    try:
        _serve(service, on_address)
    finally:
        service.stop()


def _serve(service: Service, on_address: Callable[[str], None]) -> None:
    settings = service.settings
    with _listening(settings) as listening, _limited_logs():
        server = server_on(listening, service)
        # uvicorn re-raises the signal that ended it after restoring earlier handlers; these must not end the process.
        before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            on_address(address(settings.host, listening.getsockname()[1]))
            service.warm_decoders()
            server.run()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def server_on(listening: socket.socket, service: Service) -> uvicorn.Server:
    """Create the uvicorn server of a service on a listening socket, with limits on connections.

    Its `run` also starts the service, if it is not running.
    """
    settings = service.settings
    config = uvicorn.Config(
        make_app(service),
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,  # `outside` reads them, from trusted proxies only
        ws="none",
        timeout_keep_alive=math.ceil(settings.idle_seconds),
        timeout_graceful_shutdown=max(1, round(settings.shutdown)),
        lifespan="on",
    )
    return _Server(config, listening, Connections(settings, service.addresses))


def address(host: str, port: int) -> str:
    """URL of the service."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


@final
class _Server(uvicorn.Server):
    """uvicorn server that accepts connections with `Accepting` and limits them with `Connections`."""

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
def _limited_logs() -> Iterator[None]:
    """Limit repeated log messages, so that malformed requests do not fill the disk."""
    rules = [(logging.getLogger(name), RepeatLimit()) for name in _LOGGERS]
    for logger, rule in rules:
        logger.addFilter(rule)
    try:
        yield
    finally:
        for logger, rule in rules:
            logger.removeFilter(rule)


def _listening(settings: ServiceSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # With IPPROTO_TCP, asyncio disables Nagle's algorithm, which would delay each answer by 40 ms.
    opened = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opened.bind((settings.host, settings.port))
        opened.listen(2048)
    except OSError as error:
        opened.close()
        raise SettingsError(
            f"{settings.host} port {settings.port} cannot be opened ({error.strerror or error}); choose another with --port"
        ) from error
    return opened
