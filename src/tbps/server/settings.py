"""Settings of the service."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from tbps.config import Settings
from tbps.server.callers.addresses import LOOPBACK, Addresses

STATE_SUFFIX = ".service"

_Positive = Annotated[int, Field(ge=1)]


class ServiceSettings(Settings):
    """Settings of one service.

    Addresses (see `callers.addresses`)
        allow_hosts: names of the service besides those of the loopback; trusted_proxies: addresses and networks of proxies whose
        X-Forwarded-For and X-Forwarded-Proto headers are trusted
    Requests
        at_once: number of requests processed at the same time; waiting: number of further requests that may wait, above which the
        answer is 503; timeout: seconds per request; long_timeout: seconds per upload or erasure; shutdown: seconds that requests in
        progress get when the service stops
    Encoding of descriptions (see `batching`)
        batch_window: milliseconds that a text waits for others, 0 for none; batch_texts: most texts per pass
    Callers
        searches_per_minute: limit per key, 0 for no limit; failures_per_minute: wrong keys per address and minute, above which the
        answer is 429; session_hours: duration of a session
    Sizes
        upload_bytes, upload_files: limits per upload; picture_bytes, pixels: limits per picture; jobs: most unfinished uploads;
        body_bytes: limit on a JSON body, unless its kind has a smaller one (see `bodies.requests`)
    Connections (see `connections`)
        header_seconds: time limit for the headers of a request; idle_seconds: time limit between two requests; body_seconds: time
        limit for a JSON body; upload_rate: bytes of an upload that extend its time limit by one second; stall_seconds: longest
        pause within a body; linger_seconds: time limit for receiving the rest of a refused request; connections: largest number of
        connections, reduced if the process may open few files
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
        """Whether only this machine can reach the service directly."""
        return self.host in LOOPBACK

    def addresses(self) -> Addresses:
        """Accepted host names and trusted proxies. Raises SettingsError if one of them is invalid."""
        return Addresses(self.allow_hosts, self.trusted_proxies, any_name=not self.on_loopback and not self.allow_hosts)


def state_folder(gallery: Path) -> Path:
    """Default state folder of a gallery's service, beside the gallery: GALLERY.service."""
    place = gallery.absolute() if gallery.name not in ("", "..") else gallery.resolve()
    return place.with_name(place.name + STATE_SUFFIX)
