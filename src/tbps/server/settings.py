"""What a service is told at its start."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from tbps.config import Settings
from tbps.server.addresses import LOOPBACK, Addresses

STATE_SUFFIX = ".service"

_Positive = Annotated[int, Field(ge=1)]


class ServiceSettings(Settings):
    """allow_hosts: names that requests may call the service by, besides those of the loopback; trusted_proxies: addresses and
    networks of proxies whose X-Forwarded-For and X-Forwarded-Proto are believed; for both see `addresses`.

    at_once: requests that are worked on; waiting: further ones that may wait, beyond which the answer is 503.
    batch_window: milliseconds that a text waits for others to be encoded with it, 0: none; batch_texts: at most so many at once.
    timeout: seconds of a request, long_timeout: of an upload or erasure, shutdown: that requests have when the service ends.
    searches_per_minute: of one key, 0: any number; failures_per_minute: refused keys of one address that are answered one by one.
    upload_bytes: of one upload, picture_bytes: of one picture, pixels: of one picture; jobs: uploads that may wait for their turn;
    body_bytes: of a body of JSON, where its kind (see `asked`) has no smaller limit.
    header_seconds: until the headers of a request are there; idle_seconds: between two requests of a connection; body_seconds:
    until a body of JSON is there, and of uploads, which get one more second for every `upload_rate` bytes; stall_seconds: without a
    byte; linger_seconds: for the rest of what was refused. connections: at the same time, fewer where the process may open few
    files (see `connections`).
    """

    host: str = "127.0.0.1"
    port: int = Field(8400, ge=0, le=65_535)
    allow_hosts: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    blur_faces: bool = False
    at_once: _Positive = 32
    waiting: int = Field(64, ge=0)
    batch_window: float = Field(2.0, ge=0, le=50)
    batch_texts: _Positive = 64
    timeout: float = Field(30.0, gt=0)
    long_timeout: float = Field(3600.0, gt=0)
    shutdown: float = Field(10.0, gt=0)
    searches_per_minute: int = Field(600, ge=0)
    failures_per_minute: _Positive = 10
    session_hours: float = Field(12.0, gt=0)
    upload_bytes: _Positive = 4 * 2**30
    upload_files: _Positive = 1000
    picture_bytes: _Positive = 32 * 2**20
    pixels: _Positive = 50_000_000
    body_bytes: _Positive = 2**20
    jobs: _Positive = 16
    header_seconds: float = Field(10.0, gt=0)
    idle_seconds: float = Field(15.0, gt=0)
    body_seconds: float = Field(10.0, gt=0)
    upload_rate: _Positive = 4096
    stall_seconds: float = Field(30.0, gt=0)
    linger_seconds: float = Field(2.0, gt=0)
    connections: _Positive = 1000

    @property
    def on_loopback(self) -> bool:
        """Whether nobody but this machine can reach the service."""
        return self.host in LOOPBACK

    def addresses(self) -> Addresses:
        """The names of the service and its proxies. Raises SettingsError on what is none."""
        return Addresses(self.allow_hosts, self.trusted_proxies, any_name=not self.on_loopback and not self.allow_hosts)


def state_folder(gallery: Path) -> Path:
    """Where keys, audit log and uploads of a gallery's service lie: beside it, never in it."""
    place = gallery.absolute() if gallery.name not in ("", "..") else gallery.resolve()
    return place.with_name(place.name + STATE_SUFFIX)
