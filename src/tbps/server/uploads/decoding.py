"""Decodes untrusted pictures in worker processes with limits on time and memory.

A picture that exceeds a limit or crashes its worker does not affect others; the next one gets a new worker. Workers are started as
separate programs (see `decoder`), since forking a process that has torch threads is not safe.
"""

import contextlib
import json
import os
import queue
import select
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from typing import IO, Any, final

from PIL import Image

from tbps.errors import ImageError, RequestError, StorageError
from tbps.preprocess.image import ImageSpec
from tbps.server.callers.limits import ticket
from tbps.server.uploads.pictures import PictureCaps

_BLOCK = 2**20
_START_SECONDS = 120.0
_FIXED_MEMORY = 640 * 2**20  # interpreter and libraries
_BYTES_PER_PIXEL = 28  # while a transparent picture is composited on white


@dataclass(frozen=True, slots=True)
class DecodingLimits:
    """Limits per picture: wall-clock and processor time, and memory. workers: number of processes."""

    seconds: float = 60.0
    cpu_seconds: int = 15
    workers: int = 2
    memory_bytes: int | None = None  # None: enough for the largest number of pixels allowed


@final
class Decoders:
    """Pool of worker processes that decode pictures. Thread-safe."""

    def __init__(self, caps: PictureCaps, limits: DecodingLimits | None = None) -> None:
        self.caps = caps
        self._limits = limits or DecodingLimits()
        self._idle: queue.LifoQueue[_Worker | None] = queue.LifoQueue()
        self._all: set[_Worker] = set()
        self._stopped = False
        self._lock = threading.Lock()
        for _ in range(self._limits.workers):
            self._idle.put(None)  # None: a worker that is started on demand

    def open(self, content: bytes) -> Image.Image:
        """Decode a picture and apply its EXIF orientation.

        Raises ImageError if the picture cannot be decoded or exceeds a limit, RequestError (503) if no worker becomes free in time,
        StorageError if no worker can be started.
        """
        return self._decoded(content, None)

    def fitted(self, content: bytes, spec: ImageSpec) -> Image.Image:
        """Decode a picture and resize it to the input size of a model. Raises as `open`."""
        return self._decoded(content, spec)

    def warm_up(self) -> None:
        """Start a worker, so that the first picture need not wait for it."""
        worker = self._idle.get()
        try:
            worker = worker or self._new()
        finally:
            self._idle.put(worker)

    def stop(self) -> None:
        """Kill all workers, also those that are starting or decoding. Their threads see the end of the pipes and close them."""
        with self._lock:
            self._stopped = True
            for worker in self._all:
                worker.end()
        idle = []
        with contextlib.suppress(queue.Empty):
            while True:
                idle.append(self._idle.get_nowait())
        for unused in idle:
            if unused is not None:
                self._drop(unused)
            self._idle.put(None)

    def _decoded(self, content: bytes, spec: ImageSpec | None) -> Image.Image:
        if len(content) > self.caps.bytes:
            raise ImageError(f"{len(content):,} bytes are more than {self.caps.bytes:,}; shrink the picture first")
        mine = ticket.get()
        asked = {
            "length": len(content),
            "bytes": self.caps.bytes,
            "pixels": self.caps.pixels,
            "cpu_seconds": self._limits.cpu_seconds,
            "fit": None if spec is None else [spec.height, spec.width],
        }
        try:
            worker = self._idle.get(timeout=None if mine is None else mine.left())
        except queue.Empty:
            raise RequestError(503, "busy", "too many pictures wait to be decoded; try again in a moment", 2) from None
        try:
            if worker is not None and not worker.alive():  # the process has ended since its last picture
                self._drop(worker)
                worker = None
            worker = worker or self._new()
            seconds = self._limits.seconds if mine is None else min(self._limits.seconds, mine.left())
            told, pixels = worker.ask(json.dumps(asked).encode() + b"\n", content, time.monotonic() + seconds)
        except BaseException as error:
            if worker is not None:
                self._drop(worker)
            worker = None
            if isinstance(error, TimeoutError):
                raise ImageError("takes too long to be decoded; save it again as an ordinary JPEG or PNG") from error
            if isinstance(error, EOFError | OSError):
                raise ImageError("cannot be decoded: its decoder failed, or was ended by the limits on time and memory") from error
            raise
        finally:
            self._idle.put(worker)
        if "refused" in told:
            raise ImageError(str(told["refused"]))
        return Image.frombuffer("RGB", tuple(told["size"]), pixels, "raw", "RGB", 0, 1)

    def _new(self) -> "_Worker":
        memory = self._limits.memory_bytes or _FIXED_MEMORY + 4 * self.caps.bytes + _BYTES_PER_PIXEL * self.caps.pixels
        worker = _Worker(memory)
        with self._lock:
            if self._stopped:
                worker.kill()
                raise ImageError("was not decoded: the service is shutting down")
            self._all.add(worker)
        try:
            worker.wait_until_ready()
        except (EOFError, OSError, TimeoutError) as error:
            self._drop(worker)
            raise StorageError(f"a process that decodes pictures cannot be started ({str(error) or 'it ended at once'})") from error
        return worker

    def _drop(self, worker: "_Worker") -> None:
        with self._lock:
            self._all.discard(worker)
        worker.kill()


@final
class _Worker:
    """One worker process; used by one thread at a time."""

    def __init__(self, memory: int) -> None:
        threads = {
            f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")
        }  # memory is limited, and each thread reserves some
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "tbps.server.uploads.decoder", str(memory)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                process_group=0,  # Ctrl-C in a terminal ends the service only, which answers first what it has begun
                env=os.environ | threads | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            )
        except OSError as error:
            raise StorageError(f"a process that decodes pictures cannot be started ({error.strerror})") from error
        assert self._process.stdin is not None and self._process.stdout is not None
        self._requests: IO[bytes] = self._process.stdin
        self._answers: IO[bytes] = self._process.stdout
        for pipe in (self._requests, self._answers):
            os.set_blocking(pipe.fileno(), False)

    @property
    def pid(self) -> int:
        return self._process.pid

    def alive(self) -> bool:
        return self._process.poll() is None

    def wait_until_ready(self) -> None:
        self._line(time.monotonic() + _START_SECONDS, bytearray())

    def ask(self, head: bytes, content: bytes, until: float) -> tuple[dict[str, Any], bytes]:
        """Send a request and read the answer. Raises TimeoutError, EOFError if the process has ended, OSError."""
        for part in (head, content):
            self._send(memoryview(part), until)
        found = bytearray()
        told = self._line(until, found)
        if "size" in told:
            width, height = told["size"]
            while len(found) < 3 * width * height:
                self._receive(found, until)
        return told, bytes(found)

    def end(self) -> None:
        """Kill the process. The pipes stay open for the thread that uses the worker."""
        self._process.kill()
        self._process.wait()

    def kill(self) -> None:
        """Kill the process and close the pipes; only for the thread that uses the worker."""
        self.end()
        for pipe in (self._requests, self._answers):
            with contextlib.suppress(OSError):
                pipe.close()

    def _send(self, part: memoryview, until: float) -> None:
        while part:
            self._wait([], [self._requests], until)
            part = part[os.write(self._requests.fileno(), part[:_BLOCK]) :]

    def _line(self, until: float, found: bytearray) -> dict[str, Any]:
        """Read the next line of the answer; bytes after it stay in `found`."""
        while b"\n" not in found:
            self._receive(found, until)
        line, _, rest = bytes(found).partition(b"\n")
        found[:] = rest
        told: dict[str, Any] = json.loads(line)
        return told

    def _receive(self, found: bytearray, until: float) -> None:
        self._wait([self._answers], [], until)
        block = os.read(self._answers.fileno(), _BLOCK)
        if not block:
            raise EOFError
        found += block

    @staticmethod
    def _wait(reading: list[IO[bytes]], writing: list[IO[bytes]], until: float) -> None:
        if (left := until - time.monotonic()) <= 0:
            raise TimeoutError
        poller = select.poll()
        for pipe in reading:
            poller.register(pipe.fileno(), select.POLLIN)
        for pipe in writing:
            poller.register(pipe.fileno(), select.POLLOUT)
        if not poller.poll(left * 1000):
            raise TimeoutError
