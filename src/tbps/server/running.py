"""A service on an address, until it is told to stop."""

import signal
import socket
from collections.abc import Callable

import uvicorn

from tbps.errors import SettingsError
from tbps.server.app import make_app
from tbps.server.service import Service
from tbps.server.settings import ServiceSettings


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
    with _listening(settings) as listening:
        config = uvicorn.Config(
            make_app(service),
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=max(1, round(settings.shutdown)),
            lifespan="on",
        )
        server = uvicorn.Server(config)
        # uvicorn hands the signal that ended it to whoever handled it before: it has done its work.
        before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            on_address(address(settings.host, listening.getsockname()[1]))
            service.warm_decoders()
            server.run(sockets=[listening])
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def address(host: str, port: int) -> str:
    """What to type into a browser."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


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
