"""Decoding in worker processes: pixels equal those decoded in this process; exceeding a limit affects one picture only."""

import fcntl
import io
import os
import signal
import sys
import termios
import threading

import numpy as np
import pytest
from PIL import Image

from tbps.errors import ImageError, StorageError
from tbps.preprocess.image import MAX_SCANS, ImageSpec, open_image, scans, to_array
from tbps.server.uploads.decoding import Decoders, DecodingLimits
from tbps.server.uploads.pictures import PictureCaps
from tests.support.colour_encoder import ColourEncoder
from tests.support.hostile import bomb, many_scans, picture
from tests.support.served import ended, make_gallery, send, service_of, serving

CAPS = PictureCaps(10_000_000, 50_000_000)


def large(side: int = 3000, mode: str = "RGB") -> bytes:
    """A PNG with few bytes and many pixels."""
    Image.new(mode, (side, side), "white").save(buffer := io.BytesIO(), "PNG")
    return buffer.getvalue()


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image)


@pytest.fixture
def decoders():  # type: ignore[no-untyped-def]
    made = Decoders(CAPS)
    yield made
    made.stop()


def test_a_worker_decodes_the_same_pixels_as_this_process(decoders: Decoders) -> None:
    spec = ImageSpec(height=48, width=20)
    turned = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(io.BytesIO(picture("JPEG", (40, 90), 3))).save(turned, "JPEG", exif=exif)
    for content in (
        picture("JPEG", (30, 70), 1),
        picture("PNG", seed=2),
        picture("WEBP", seed=3),
        turned.getvalue(),
        large(1200, "RGBA"),
    ):
        here, there = open_image(content), decoders.open(content)
        assert there.mode == "RGB" and there.size == here.size and np.array_equal(pixels(there), pixels(here))
        assert np.array_equal(pixels(decoders.fitted(content, spec)), to_array(here, spec))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"hello", "not a JPEG, PNG or WebP"),
        (picture("BMP"), "not a JPEG, PNG or WebP"),
        (bomb(), "more than 64,000,000 pixels"),
        (picture(size=(200, 300))[:-500], "cannot be decoded .*truncated"),
        (bytes(CAPS.bytes + 1), "bytes are more than"),
        (b"\xff\xd8\xff" + bytes(50), "is not a readable"),
    ],
)
def test_refused_pictures_have_a_reason(decoders: Decoders, content: bytes, why: str) -> None:
    with pytest.raises(ImageError, match=why):
        decoders.open(content)
    assert decoders.open(picture()).size == (16, 32), "the worker still runs"


def test_limits_end_one_picture_only() -> None:
    """After exceeded time or memory, or the death of a worker, the next picture is decoded by a new process."""
    for limits, why in (
        (DecodingLimits(seconds=1e-6), "takes too long"),
        (DecodingLimits(memory_bytes=300 * 2**20), "memory"),
    ):
        decoders = Decoders(CAPS, limits)
        with pytest.raises(ImageError, match=why):
            decoders.open(large(7000, "RGBA"))
        if limits.memory_bytes:
            assert decoders.open(picture()).size == (16, 32)
        decoders.stop()
    decoders = Decoders(CAPS, DecodingLimits(workers=1))
    assert decoders.open(picture()).size == (16, 32)
    (worker,) = decoders._all
    os.kill(worker.pid, signal.SIGKILL)
    worker._process.wait()
    assert decoders.open(picture()).size == (16, 32), "a worker that died while idle is replaced"
    (worker,) = decoders._all
    os.kill(worker.pid, signal.SIGSTOP)
    failed: list[str] = []

    def ask() -> None:
        with pytest.raises(ImageError) as refused:
            decoders.open(picture())
        failed.append(str(refused.value))

    asking = threading.Thread(target=ask)
    asking.start()
    waiting = bytearray(4)
    while not int.from_bytes(waiting, "little"):  # until the request is sent
        fcntl.ioctl(worker._requests.fileno(), termios.FIONREAD, waiting)
    os.kill(worker.pid, signal.SIGKILL)
    asking.join()
    assert "its decoder failed, or was ended" in failed[0]
    assert decoders.open(picture()).size == (16, 32)
    decoders.stop()
    assert not decoders._all


def test_processor_time_is_bounded() -> None:
    """40 passes over 36 million pixels need more than a second of processor time on any machine."""
    Image.new("RGB", (6000, 6000)).save(buffer := io.BytesIO(), "JPEG", progressive=True)
    content = many_scans(buffer.getvalue(), 30)
    decoders = Decoders(PictureCaps(10**9, 10**9), DecodingLimits(cpu_seconds=0))
    with pytest.raises(ImageError, match="its decoder failed, or was ended"):
        decoders.open(content)
    decoders.stop()


def test_only_scans_that_the_decoder_reads_are_counted() -> None:
    """Markers in other segments, after the end or inside a scan do not count; a picture of too many scans is not decoded."""
    Image.effect_noise((64, 96), 80).convert("RGB").save(buffer := io.BytesIO(), "JPEG", progressive=True, quality=95)
    progressive = buffer.getvalue()
    assert (scans(progressive, MAX_SCANS), scans(picture(size=(64, 96)), MAX_SCANS)) == (10, 1)
    comment = b"\xff\xfe" + (2 + 4000).to_bytes(2, "big") + b"\xff\xda" * 2000
    hidden = progressive[:2] + comment + progressive[2:] + b"\xff\xda\x00\x02" * 500
    assert scans(hidden, MAX_SCANS) == 10
    assert np.array_equal(pixels(open_image(hidden)), pixels(open_image(progressive)))
    slow = many_scans(progressive, 1500)
    assert scans(slow, MAX_SCANS) == MAX_SCANS + 1 and scans(slow, 10_000) == 1510
    with pytest.raises(ImageError, match="scans"):
        open_image(slow)
    assert open_image(many_scans(progressive, 80)).size == (64, 96)


def test_a_picture_of_many_scans_is_refused_by_the_service(tmp_path) -> None:  # type: ignore[no-untyped-def]
    Image.new("RGB", (64, 96), "red").save(buffer := io.BytesIO(), "JPEG", progressive=True)
    content = many_scans(buffer.getvalue(), 1500)
    with serving(make_gallery(tmp_path, [0])) as client:
        answer = client.post("/v1/similar", files={"image": ("a.jpg", content)})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "image") and "scans" in answer.text
        job = ended(client, send(client, ("a.jpg", content), ("b.jpg", picture(seed=4))))
        assert (
            job["added"] == 1 and [each["name"] for each in job["skipped"]] == ["a.jpg"] and "scans" in job["skipped"][0]["reason"]
        )
        assert service_of(client).asked_pictures._all and service_of(client).sent_pictures._all
        workers = [worker.pid for worker in service_of(client).asked_pictures._all]
    for pid in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_nothing_is_decoded_in_the_process_of_the_service(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    from PIL import ImageFile

    decoded: list[tuple[int, int]] = []
    load = ImageFile.ImageFile.load
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: decoded.append(self.size) or load(self))
    with serving(make_gallery(tmp_path, [0])) as client:
        decoded.clear()
        assert client.post("/v1/similar", files={"image": ("a.png", picture("PNG", (33, 44)))}).status_code == 200
        assert ended(client, send(client, ("a.png", picture("PNG", (35, 46)))))["added"] == 1
        assert not {(33, 44), (35, 46)} & set(decoded)
    assert ColourEncoder().dim


def test_stopping_leaves_the_pipes_of_a_busy_worker_to_its_thread() -> None:
    """Otherwise the thread would read from a closed file, or from whatever was opened under the same number."""
    decoders = Decoders(CAPS, DecodingLimits(workers=1))
    decoders.warm_up()
    worker = decoders._idle.get()  # as a thread that is decoding has taken it
    assert worker is not None
    assert os.getpgid(worker.pid) != os.getpgid(0), "Ctrl-C in a terminal does not reach it"
    decoders.stop()
    assert not worker.alive()
    with pytest.raises((EOFError, OSError)):
        worker.wait_until_ready()
    worker.kill()


def test_stopping_while_a_worker_starts_is_reported_as_an_error_of_ours(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    never_ready = tmp_path / "python"
    never_ready.write_text("#!/bin/sh\nexec sleep 600\n")
    never_ready.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(never_ready))
    decoders = Decoders(CAPS, DecodingLimits(workers=1))
    refused: list[BaseException] = []

    def warm_up() -> None:
        try:
            decoders.warm_up()
        except BaseException as error:
            refused.append(error)

    warming = threading.Thread(target=warm_up)
    warming.start()
    while warming.is_alive() and not decoders._all:
        warming.join(0.01)
    decoders.stop()
    warming.join()
    assert [type(error) for error in refused] == [StorageError]
    assert not decoders._all
