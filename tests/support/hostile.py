"""Malicious and malformed files and forms."""

import io
import struct
import tarfile
import zipfile
import zlib

import numpy as np
from PIL import Image


def picture(kind: str = "JPEG", size: tuple[int, int] = (16, 32), seed: int = 0) -> bytes:
    blocks = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 4, 3), np.uint8))
    buffer = io.BytesIO()
    blocks.resize(size).save(buffer, kind)
    return buffer.getvalue()


def bomb() -> bytes:
    """A PNG of 30,000 x 30,000 pixels in a few bytes."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(30_000))) + chunk(b"IEND", b"")


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(info: tarfile.TarInfo, content: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def link(target: str) -> bytes:
    info = tarfile.TarInfo("a.jpg")
    info.type, info.linkname = tarfile.SYMTYPE, target
    return tarred(info)


# Files of formats that are not allowed: the upload is refused before anything is decoded.
FOREIGN: dict[str, bytes] = {
    "empty": b"",
    "text": b"hello",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "html": b"<script>alert(1)</script>",
    "gif": picture("GIF"),
    "bmp": picture("BMP"),
    "tiff": picture("TIFF"),
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file\n",
    "pdf": b"%PDF-1.7\n",
    "playlist": b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
    "concat": b"ffconcat version 1.0\nfile /etc/passwd\n",
    "pickle": b"\x80\x04\x95\x1a\x00\x00\x00cos\nsystem\n(S'id'\ntR.",
    "heic": b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic",
    "wave": b"RIFF\x24\x00\x00\x00WAVEfmt ",
    "elf": b"\x7fELF\x02\x01\x01",
}
# Files that begin like an allowed format but are malformed: the job reports them as skipped and adds nothing.
BROKEN: dict[str, bytes] = {
    "bomb.png": bomb(),
    "cut.jpg": picture()[:200],
    "head only.jpg": b"\xff\xd8\xff\xe0",
    "html after head.jpg": b"\xff\xd8\xff<script>alert(1)</script>",
    "cut.png": picture("PNG")[:60],
    "cut.webp": picture("WEBP")[:40],
    "no.zip": b"PK\x03\x04" + bytes(100),
    "empty.zip": zipped(),
    "climbing.zip": zipped(**{"../../climbed.jpg": picture()}),
    "absolute.zip": zipped(**{"/tmp/climbed.jpg": picture()}),
    "zip bomb.zip": zipped(**{"a.jpg": bytes(80 * 2**20)}),
    "nested.zip": zipped(**{"a.zip": zipped(**{"a.jpg": picture()})}),
    "link.tar": link("/etc/passwd"),
    "device.tar": tarred(tarfile.TarInfo("a.jpg")),
    "no.tar.gz": b"\x1f\x8b" + bytes(50),
    "no.mp4": b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isomiso2" + bytes(500),
    "no.mkv": b"\x1a\x45\xdf\xa3" + bytes(300),
    "no.avi": b"RIFF\x24\x00\x00\x00AVI LIST" + bytes(300),
    "playlist in a video.mp4": b"\x00\x00\x00\x18ftypisom#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
}
# Malformed forms: content type and body.
_START, _END = b"--x\r\nContent-Disposition: ", b"\r\n\r\nab\r\n--x--\r\n"
_FORM = "multipart/form-data; boundary=x"
FORMS: dict[str, tuple[str, bytes]] = {
    "no form": ("application/json", b"{}"),
    "no boundary": ("multipart/form-data", b"--x--"),
    "endless boundary": ("multipart/form-data; boundary=" + "x" * 5000, b"--x--"),
    "nothing": (_FORM, b""),
    "ends early": (_FORM, _START + b'form-data; name="files"; filename="a"\r\n\r\nab'),
    "no name": (_FORM, b"--x\r\nContent-Type: a/b" + _END),
    "long header": (_FORM, _START + b"a" * 100_000 + _END),
    "other field": (_FORM, _START + b'form-data; name="other"; filename="a"' + _END),
}
NAMES = (
    "../../etc/cron.d/x.jpg",
    "/etc/passwd",
    "..\\..\\x.jpg",
    ".hidden.jpg",
    "a\x00b.jpg",
    "x" * 500 + ".jpg",
    "-rf.jpg",
    "<b>.jpg",
)


def many_scans(progressive: bytes, count: int) -> bytes:
    """A progressive JPEG whose last scan is repeated `count` times. Decoding a scan takes a pass over the whole picture."""
    last = progressive.rindex(b"\xff\xda")
    return progressive[:-2] + progressive[last:-2] * count + progressive[-2:]
