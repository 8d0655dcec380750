"""Services in separate processes, and requests to them."""

import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.hostile import picture
from tests.support.served import CHANGES

ROOT = Path(__file__).parents[2]
PROGRAM = """
import json, sys, time
from pathlib import Path
from tests.support.colour_encoder import ColourEncoder
from tbps.server.running import run
from tbps.server.service import Service
from tbps.server.settings import ServiceSettings

class Slow(ColourEncoder):
    def encode_texts(self, texts, batch_size=256):
        Path(f"{sys.argv[1]}.begun").touch()
        time.sleep(float(sys.argv[2]))
        return super().encode_texts(texts, batch_size)

    def encode_images(self, images, batch_size=64):
        time.sleep(float(sys.argv[4]))
        return super().encode_images(images, batch_size)

settings = ServiceSettings.parse({"port": 0, "timeout": 3000, **json.loads(sys.argv[3])})
run(Service(Path(sys.argv[1]), Slow(), settings), lambda address: print(address, flush=True))
"""


def environment() -> dict[str, str]:
    """Environment of a process that finds `tbps` and the modules of tests/support."""
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    return os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


@contextmanager
def served(
    gallery: Path, seconds: float = 0.0, image_seconds: float = 0.0, **settings: Any
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Runs a service in a separate process; yields its URL and the process.

    seconds, image_seconds: duration of a pass over texts and over images.
    """
    with started("-c", PROGRAM, str(gallery), str(seconds), json.dumps(settings), str(image_seconds)) as running:
        yield running


@contextmanager
def started(*arguments: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Starts a Python process that prints a URL first; yields the URL and the process."""
    process = subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment()
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert found is not None, line + process.stdout.read()
        yield found[0], process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def ask(
    address: str, path: str, body: Any = None, headers: dict[str, str] | None = None, method: str | None = None
) -> tuple[int, Any, dict[str, str]]:
    content = None if body is None else json.dumps(body).encode()
    given = {**CHANGES, "Content-Type": "application/json", **(headers or {})}
    request = urllib.request.Request(address + path, content, given, method=method)
    try:
        with urllib.request.urlopen(request, timeout=3000) as answer:
            return answer.status, json.loads(answer.read()), dict(answer.headers)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read()), dict(error.headers)


def search(address: str, text: str = "a man") -> tuple[int, Any, dict[str, str]]:
    return ask(address, "/v1/search", {"texts": [{"text": text}], "k": 3})


def begun(gallery: Path) -> Path:
    """File that a service creates when it begins to encode texts."""
    return Path(f"{gallery}.begun")


def metric(address: str, name: str) -> float:
    with urllib.request.urlopen(f"{address}/metrics", timeout=3000) as answer:
        return float(re.search(rf"^{name} (\S+)$", answer.read().decode(), re.MULTILINE)[1])  # type: ignore[index]


def ready(address: str) -> None:
    until = time.monotonic() + 3000
    while ask(address, "/healthz")[1]["status"] != "ready":
        assert time.monotonic() < until
        time.sleep(0.02)


def form(pictures: int, seed: int) -> tuple[bytes, dict[str, str]]:
    """Body and headers of an upload with some pictures."""
    parts = [
        f'--x\r\nContent-Disposition: form-data; name="files"; filename="{n}.png"\r\n\r\n'.encode() + picture("PNG", seed=seed + n)
        for n in range(pictures)
    ]
    return b"\r\n".join([*parts, b"--x--\r\n"]), {**CHANGES, "Content-Type": "multipart/form-data; boundary=x"}


def upload(address: str, body: bytes, headers: dict[str, str]) -> str:
    """Sends an upload and returns the id of its job."""
    with urllib.request.urlopen(urllib.request.Request(f"{address}/v1/index", body, headers), timeout=3000) as answer:
        assert answer.status == 202
        return str(json.loads(answer.read())["job"]["id"])


def job_when(address: str, name: str, fits: Callable[[Any], bool]) -> Any:
    """Waits until a job satisfies `fits` and returns it. name: id of the job."""
    until = time.monotonic() + 3000
    while not fits(job := ask(address, f"/v1/index/{name}")[1]):
        assert time.monotonic() < until, job
        time.sleep(0.02)
    return job
