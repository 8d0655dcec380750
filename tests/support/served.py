"""Galleries whose images have cameras, and services of them in this process."""

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from tbps.gallery.gallery import Gallery
from tbps.server.app import make_app
from tbps.server.callers.keys import Keys, Role
from tbps.server.running import server_on
from tbps.server.service import Service
from tbps.server.settings import ServiceSettings, state_folder
from tests.support.colour_encoder import ColourEncoder, write_pictures

CAMERAS = ("lobby", "yard", "roof")
COUNT = 24
CHANGES = {"X-Tbps": "1"}
ADDRESS = "http://127.0.0.1:8400"
ENDS = ("done", "failed", "cancelled")
PATIENCE = 3000.0  # seconds for requests, however busy the machine is


def columns(number: int) -> dict[str, Any]:
    """Metadata of image `number`. Every camera has images; every tracklet and identity has images of several cameras."""
    return {
        "camera": CAMERAS[number % 3],
        "captured_at": f"2024-05-{1 + number:02d}T08:00:00",
        "identity": f"person {number % 5}",
        "tracklet": f"t{number % 4}",
        "age": number,
        "box_x": number,
        "box_y": 2,
        "box_width": 16,
        "box_height": 32,
        "frame": 100 - number,
    }


def make_gallery(folder: Path, numbers: Sequence[int] = range(COUNT)) -> Path:
    """Creates a gallery of the images with these numbers."""
    pictures = write_pictures(folder / "photos", COUNT)
    Gallery.open(folder / "gallery", ColourEncoder()).add([pictures[n] for n in numbers], [columns(number) for number in numbers])
    return folder / "gallery"


@contextmanager
def serving(gallery: Path, **settings: Any) -> Iterator[TestClient]:
    """Runs a service of the gallery in this process; yields a test client."""
    service = Service(gallery, ColourEncoder(), ServiceSettings.parse({"batch_window": 0, "timeout": PATIENCE, **settings}))
    with TestClient(make_app(service), base_url=ADDRESS, headers=CHANGES) as client:
        yield client


@contextmanager
def listening(service: Service) -> Iterator[str]:
    """Runs a service in a thread of this process as `tbps serve` does; yields its URL."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as opened:
        opened.bind(("127.0.0.1", 0))
        opened.listen(2048)
        address = f"http://127.0.0.1:{opened.getsockname()[1]}"
        server = server_on(opened, service)
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            yield address
        finally:
            server.should_exit = True
            thread.join(300)


def bearer(gallery: Path, role: str, cameras: tuple[str, ...] | None = None) -> dict[str, str]:
    """Creates a key and returns request headers that contain it."""
    name = f"{role} of {'all' if cameras is None else ' '.join(cameras)}"
    secret, _ = Keys(state_folder(gallery)).add(name, Role(role), cameras)
    return {"Authorization": f"Bearer {secret}"}


def service_of(client: TestClient) -> Service:
    """The service of a client."""
    service: Service = client.app.state.service  # type: ignore[attr-defined]
    return service


def send(client: TestClient, *files: tuple[str, bytes], headers: dict[str, str] | None = None, **data: str) -> Any:
    """Sends an upload and returns the answer."""
    return client.post("/v1/index", files=[("files", file) for file in files], data=data, headers=headers)


def ended(client: TestClient, answer: Any, headers: dict[str, str] | None = None) -> Any:
    """Waits for the end of the job in an answer and returns the job."""
    assert answer.status_code == 202, answer.text
    until = time.monotonic() + 3000
    while (job := client.get(f"/v1/index/{answer.json()['job']['id']}", headers=headers).json())["state"] not in ENDS:
        assert time.monotonic() < until, job
        time.sleep(0.01)
    return job
