"""What a service is told at its start."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from tbps.config import Settings

STATE_SUFFIX = ".service"
LOOPBACK = ("127.0.0.1", "localhost", "::1")

_Positive = Annotated[int, Field(ge=1)]


class ServiceSettings(Settings):
    """allow_hosts: names that requests may call the service by, besides those of the loopback.

    at_once: requests that are worked on; waiting: further ones that may wait, beyond which the answer is 503.
    batch_window: milliseconds that a text waits for others to be encoded with it, 0: none; batch_texts: at most so many at once.
    timeout: seconds of a request, long_timeout: of an upload or erasure, shutdown: that requests have when the service ends.
    searches_per_minute: of one key, 0: any number; failures_per_minute: refused keys of one address that are answered one by one.
    upload_bytes: of one upload, picture_bytes: of one picture, pixels: of one picture; jobs: uploads that may wait for their turn.
    """

    host: str = "127.0.0.1"
    port: int = Field(8400, ge=0, le=65_535)
    allow_hosts: tuple[str, ...] = ()
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

    @property
    def on_loopback(self) -> bool:
        """Whether nobody but this machine can reach the service."""
        return self.host in LOOPBACK


def state_folder(gallery: Path) -> Path:
    """Where keys, audit log and uploads of a gallery's service lie: beside it, never in it."""
    place = gallery.absolute() if gallery.name not in ("", "..") else gallery.resolve()
    return place.with_name(place.name + STATE_SUFFIX)
