"""From a picture file to the pixels a tower sees: decode, orient, resize, normalise. One contract for every use of a model."""

import io
import os
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from PIL import ExifTags, Image
from pydantic import Field

from tbps.config import Settings
from tbps.errors import ImageError

if TYPE_CHECKING:
    import torch

MAX_PIXELS = 64_000_000
MAX_FILE_BYTES = 256 * 2**20
MAX_SCANS = 100  # of a JPEG; programs write 1 to 20
MAX_SCANNED_PIXELS = 24 * MAX_PIXELS
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

_Positive = Annotated[float, Field(gt=0)]

Resize = Literal["bilinear", "bicubic"]

# What Pillow raises on damaged files, as found by feeding it damaged files; all of them mean "this file is broken".
_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    IndexError,
    KeyError,
    EOFError,
    OverflowError,
    MemoryError,
    RuntimeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # of a JPEG; the others stand within a scan
_SCAN, _END, _WITHOUT_LENGTH = 0xDA, 0xD9, (0x01, 0xD8)

# `warnings.catch_warnings` changes the whole process: two threads inside it could leave warnings off for good.
_quiet = threading.Lock()


class ImageSpec(Settings):
    """Input of an image tower: size in pixels, and mean and deviation per RGB channel of pixels in [0, 1]."""

    height: int = Field(default=224, ge=1, le=4096)
    width: int = Field(default=224, ge=1, le=4096)
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[_Positive, _Positive, _Positive] = CLIP_STD


def open_image(source: str | Path | bytes) -> Image.Image:
    """A fully decoded upright RGB picture from a file or from a file's bytes.

    Reads JPEG, PNG, WebP, BMP and TIFF; the first frame of an animation. The EXIF orientation is applied (unreadable EXIF
    counts as upright), 16-bit grey is scaled to 8, transparent pixels lie on white, colour profiles are ignored.

    Raises ImageError that names the source: missing, not a picture, truncated, of unknown value range, or with more than
    MAX_PIXELS pixels (found from the header, before decoding).
    """
    with _open_checked(source) as image:
        return upright_rgb(image, _name(source))


def upright_rgb(image: Image.Image, name: str | None = None) -> Image.Image:
    """A copy of a picture in memory as `open_image` would give it. Raises ImageError, with `name`, when it cannot.

    The copy carries no orientation any more: made upright again, it stays as it is.
    """
    try:
        image.load()
        upright = _to_rgb(_upright(image))
        upright.info = {}
        return upright
    except _BROKEN as error:
        named = name or f"<{image.mode} picture>"
        raise ImageError(f"{named}: cannot be decoded ({_reason(error)}); replace or remove the file") from error


def check_image(source: str | Path | bytes) -> tuple[int, int]:
    """(width, height) as stored, from the header only. Raises ImageError as `open_image` does, but sees no damage to pixels."""
    with _open_checked(source) as image:
        return image.size


def to_array(image: Image.Image, spec: ImageSpec, resize: Resize = "bicubic") -> np.ndarray:
    """(height, width, 3) uint8: the whole picture resized, aspect ratio not kept. A model sees bicubic ones, but for its
    training.
    """
    rgb = image if image.mode == "RGB" else _to_rgb(image)
    resampling = Image.Resampling.BICUBIC if resize == "bicubic" else Image.Resampling.BILINEAR
    return np.array(rgb.resize((spec.width, spec.height), resampling), dtype=np.uint8)


def normalise(images: "torch.Tensor", spec: ImageSpec, *, overwrite: bool = False) -> "torch.Tensor":
    """(N, 3, H, W), uint8 or float in [0, 1], to float32 with `spec.mean` subtracted and divided by `spec.std`.

    `overwrite`: float32 images are not needed any more, and their memory takes the result.
    """
    import torch  # late: a gallery, and whoever only opens pictures, needs none

    from tbps.transfer import send

    unit = images.float() / 255 if images.dtype == torch.uint8 else images.float()
    mean, std = send(torch.tensor([spec.mean, spec.std]), images.device).view(2, 1, 3, 1, 1)
    normalised: torch.Tensor = (unit.sub_(mean) if overwrite else unit - mean).div_(std)
    return normalised


def _name(source: str | Path | bytes) -> str:
    return f"<{len(source)} bytes>" if isinstance(source, bytes) else str(source)


@contextmanager
def _open_checked(source: str | Path | bytes) -> Iterator[Image.Image]:
    """The undecoded picture, once its size is known to be fine."""
    file = io.BytesIO(source) if isinstance(source, bytes) else _open_file(Path(source))
    with file, _open_header(file, _name(source)) as image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise ImageError(f"{_name(source)}: {width} x {height} pixels are more than {MAX_PIXELS:,}; shrink it first")
        if image.format in ("JPEG", "MPO"):
            _check_scans(file, width * height, _name(source))
        yield image


def _check_scans(file: IO[bytes], pixels: int, name: str) -> None:
    """Raises ImageError on a JPEG whose scans would be decoded for minutes: each goes over the whole picture again."""
    place = file.tell()
    file.seek(0)
    found = scans(file.read(), MAX_SCANS)
    file.seek(place)
    if found > MAX_SCANS or found * pixels > MAX_SCANNED_PIXELS:
        many = f"more than {MAX_SCANS}" if found > MAX_SCANS else str(found)
        raise ImageError(f"{name}: is a JPEG of {many} scans, which takes too long to decode; save it again with fewer")


def scans(jpeg: bytes, most: int) -> int:
    """How many scans a JPEG file has, counted no further than `most` + 1: markers are followed as its decoder does."""
    place, found = 2, 0
    while found <= most and (marker := _MARKER.search(jpeg, place)) is not None:
        kind, place = marker[0][-1], marker.end()
        if kind == _END:
            break
        if kind not in _WITHOUT_LENGTH:
            found += kind == _SCAN
            place += max(2, int.from_bytes(jpeg[place : place + 2]))
    return found


def _open_file(path: Path) -> io.BufferedReader:
    if os.path.exists(path) and not os.path.isfile(path):  # these, unlike Path's, never raise: `open` below says why
        raise ImageError(f"{path}: is not a file")
    try:
        return path.open("rb")
    except (OSError, ValueError) as error:
        raise ImageError(f"{path}: cannot be read ({_reason(error)})") from error


def _open_header(file: Any, name: str) -> Image.Image:
    with _quiet, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = Image.open(file, formats=FORMATS)
            if image.format == "TIFF":
                image.getexif()  # decoding a TIFF reads its tags again and would warn outside this block
            return image
        except Image.DecompressionBombError as error:
            raise ImageError(f"{name}: more than {MAX_PIXELS:,} pixels; shrink the picture first") from error
        except _BROKEN as error:
            raise ImageError(f"{name}: is not a readable {', '.join(FORMATS)} picture") from error


def _upright(image: Image.Image) -> Image.Image:
    with _quiet, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        except _BROKEN:
            return image
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        return _from_deep_grey(image)
    if image.has_transparency_data:
        opaque = Image.new("RGBA", image.size, "white")
        opaque.alpha_composite(image.convert("RGBA"))
        image = opaque
    return image.convert("RGB")


def _from_deep_grey(image: Image.Image) -> Image.Image:
    """16-bit grey to RGB by its high byte, as Pillow reads 16-bit colour; its own conversion would clip at 255."""
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise ValueError(f"{image.mode} pixels of unknown range; save it with 8 bits a channel")
    return Image.fromarray((values >> 8).astype(np.uint8), "L").convert("RGB")


def _reason(error: BaseException) -> str:
    return (error.strerror if isinstance(error, OSError) and error.strerror else str(error)) or type(error).__name__
