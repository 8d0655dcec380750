"""Image preprocessing, from the file to the input of the image tower: decode, orient, resize, normalise.

Training, evaluation, indexing and search use the same functions.
"""

import io
import os
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Literal

import numpy as np
from PIL import ExifTags, Image
from pydantic import Field

from tbps.config import Settings
from tbps.errors import ImageError
from tbps.preprocess.deep import dark_deep_colour, grey_to_rgb, is_deep_grey
from tbps.preprocess.exif import Taken, taken
from tbps.preprocess.formats import FORMATS, HEAD, HEIC_NEEDS, HEIF, NAMES, described, heif_formats, picture_format
from tbps.preprocess.png import without_large_texts

if TYPE_CHECKING:
    import torch

MAX_PIXELS = 64_000_000
MAX_FILE_BYTES = 256 * 2**20
MAX_SCANS = 100  # scans of a JPEG; usual encoders write 1 to 20
MAX_SCANNED_PIXELS = 24 * MAX_PIXELS
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

_Positive = Annotated[float, Field(gt=0)]

Resize = Literal["bilinear", "bicubic"]

# Exceptions that Pillow raises for damaged files, determined by experiment.
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

_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # a JPEG marker; other bytes after 0xff occur within a scan
_SCAN, _END, _WITHOUT_LENGTH = 0xDA, 0xD9, (0x01, 0xD8)
_DNG_VERSION, _FURTHER_PICTURES = 50706, 330
_KIND_OF_PICTURE = 254  # tag whose value is odd where the image is a reduced version of another one in the file

# `warnings.catch_warnings` changes process-wide state: two threads inside it could switch warnings off permanently.
_quiet = threading.Lock()


class ImageSpec(Settings):
    """Input of an image tower: size in pixels, and mean and standard deviation per RGB channel of pixels in [0, 1]."""

    height: int = Field(default=224, ge=1, le=4096)
    width: int = Field(default=224, ge=1, le=4096)
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[_Positive, _Positive, _Positive] = CLIP_STD


@dataclass(frozen=True, slots=True)
class Photograph:
    """An image as `open_image` returns it, with remarks on how it was read and its capture time from the EXIF data."""

    image: Image.Image
    remarks: tuple[str, ...] = ()
    taken: Taken = field(default_factory=Taken)


def open_image(source: str | Path | bytes) -> Image.Image:
    """Decodes an image file, or the bytes of one, to an upright RGB image.

    Reads JPEG, PNG, WebP, GIF, AVIF, TIFF, BMP, JPEG 2000 and PPM, recognised by content, not by name, and HEIC where pillow-heif
    is installed. Of an animation or a file with several pages, the first image is read. The EXIF orientation is applied (unreadable
    EXIF counts as upright), transparent pixels become white, colour profiles and large texts are ignored. Values of more than 8
    bits are scaled to 8 by the range that they use (see `tbps.preprocess.deep`).

    Raises ImageError, which names the source, if the file is missing, not an image, truncated, of unknown value range, or has more
    than MAX_PIXELS pixels (checked in the header, before decoding).
    """
    return open_photograph(source).image


def open_photograph(source: str | Path | bytes) -> Photograph:
    """Decodes an image like `open_image`, and returns it with remarks and the capture time. Raises as `open_image`."""
    with _open_checked(source) as image:
        remarks = [] if (several := _several(image)) is None else [several]
        deep = _is_deep_colour(image)
        upright, remark = _decoded(image, _name(source))
        details = _taken(image)
        if deep and int(np.asarray(image)[..., : len(image.getbands()) - ("A" in image.mode)].max()) < 64:
            content = source if isinstance(source, bytes) else Path(source).read_bytes()
            if (anew := dark_deep_colour(content)) is not None:
                upright, remark = _upright(anew[0], image), anew[1]
    return Photograph(upright, (*remarks, *([] if remark is None else [remark])), details)


def capture_time(content: bytes) -> Taken:
    """Returns the capture time of an image without decoding it; an empty `Taken()` if it cannot be read."""
    if picture_format(content[:HEAD]) == "PNG" and not any(word in content for word in (b"eXIf", b"Raw profile type exif")):
        return Taken()  # Pillow would decode the whole image to look for EXIF data behind the pixels
    try:
        with _open_checked(content) as image:
            return _taken(image)
    except (ImageError, *_BROKEN):
        return Taken()


def upright_rgb(image: Image.Image, name: str | None = None) -> Image.Image:
    """Returns a copy of an image in memory, as `open_image` would return it. Raises ImageError, with `name`, where it cannot be
    decoded.

    The copy has no orientation tag, so applying the function again changes nothing.
    """
    return _decoded(image, name)[0]


def check_image(source: str | Path | bytes) -> tuple[int, int]:
    """Returns (width, height) as stored, from the header only. Raises ImageError as `open_image`, except for damaged pixels."""
    with _open_checked(source) as image:
        return image.size


def to_array(image: Image.Image, spec: ImageSpec, resize: Resize = "bicubic") -> np.ndarray:
    """Resizes the whole image to (height, width, 3) uint8 without keeping the aspect ratio.

    Evaluation and search always use bicubic interpolation; training may use bilinear.
    """
    rgb = image if image.mode == "RGB" else _to_rgb(image)[0]
    resampling = Image.Resampling.BICUBIC if resize == "bicubic" else Image.Resampling.BILINEAR
    return np.array(rgb.resize((spec.width, spec.height), resampling), dtype=np.uint8)


def normalise(images: "torch.Tensor", spec: ImageSpec, *, overwrite: bool = False) -> "torch.Tensor":
    """Normalises (N, 3, H, W) images, uint8 or float in [0, 1], to float32: subtracts `spec.mean` and divides by `spec.std`.

    `overwrite`: whether float32 images may be overwritten by the result.
    """
    import torch  # imported here, since searching a gallery and opening images need no torch

    from tbps.transfer import send

    unit = images.float() / 255 if images.dtype == torch.uint8 else images.float()
    mean, std = send(torch.tensor([spec.mean, spec.std]), images.device).view(2, 1, 3, 1, 1)
    normalised: torch.Tensor = (unit.sub_(mean) if overwrite else unit - mean).div_(std)
    return normalised


def _name(source: str | Path | bytes) -> str:
    return f"<{len(source)} bytes>" if isinstance(source, bytes) else str(source)


@contextmanager
def _open_checked(source: str | Path | bytes) -> Iterator[Image.Image]:
    """Yields the image before decoding, after its size has been checked."""
    name = _name(source)
    file: BinaryIO = io.BytesIO(source) if isinstance(source, bytes) else _open_file(Path(source))
    with file:
        head = file.read(HEAD)
        file.seek(0)
        slim = without_large_texts(file) if picture_format(head) == "PNG" else None
        with _open_header(file if slim is None else slim, head, name) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise ImageError(f"{name}: {width} x {height} pixels are more than {MAX_PIXELS:,}; shrink it first")
            if image.format in ("JPEG", "MPO"):
                _check_scans(file, width * height, name)
            if _is_raw(image):
                raise ImageError(f"{name}: is a raw photograph, which is not read; export it as JPEG")
            yield image


def _check_scans(file: BinaryIO, pixels: int, name: str) -> None:
    """Raises ImageError for a JPEG with so many scans that decoding would take minutes; each scan covers the whole image."""
    place = file.tell()
    file.seek(0)
    found = scans(file.read(), MAX_SCANS)
    file.seek(place)
    if found > MAX_SCANS or found * pixels > MAX_SCANNED_PIXELS:
        many = f"more than {MAX_SCANS}" if found > MAX_SCANS else str(found)
        raise ImageError(f"{name}: is a JPEG of {many} scans, which takes too long to decode; save it again with fewer")


def scans(jpeg: bytes, most: int) -> int:
    """Counts the scans of a JPEG file up to `most` + 1, following its markers as a decoder does."""
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
    # Unlike Path.exists, os.path.exists never raises: `open` below then gives the reason.
    if os.path.exists(path) and not os.path.isfile(path):
        raise ImageError(f"{path}: is not a file")
    try:
        return path.open("rb")
    except (OSError, ValueError) as error:
        raise ImageError(f"{path}: cannot be read ({_reason(error)})") from error


def _open_header(file: Any, head: bytes, name: str) -> Image.Image:
    formats = FORMATS
    if picture_format(head) == HEIF and not (formats := heif_formats()):
        raise ImageError(f"{name}: {HEIC_NEEDS}")
    with _quiet, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = Image.open(file, formats=formats)
            # Read the tags of a TIFF here, so that decoding, which reads them again, emits no warnings outside of this block.
            if image.format == "TIFF":
                for directory in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
                    image.getexif().get_ifd(directory)
            return image
        except Image.DecompressionBombError as error:
            raise ImageError(f"{name}: more than {MAX_PIXELS:,} pixels; shrink the picture first") from error
        except _BROKEN as error:
            raise ImageError(f"{name}: is not a readable {NAMES} picture: it {described(head)}") from error


def _is_raw(image: Image.Image) -> bool:
    """Returns whether a TIFF is a raw photograph (DNG, NEF, ARW, ...), of which Pillow would return the small preview."""
    tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    kind = tags.get(_KIND_OF_PICTURE, 0)
    return _DNG_VERSION in tags or (_FURTHER_PICTURES in tags and isinstance(kind, int) and kind & 1 == 1)


def _several(image: Image.Image) -> str | None:
    """Returns the remark on a file that holds several images."""
    try:
        if image.format == "TIFF":
            return "has several pages; the first is taken" if getattr(image, "tag_v2").next else None  # noqa: B009
        if not getattr(image, "is_animated", False):
            return None
    except _BROKEN:
        return None
    return (
        "holds several pictures; the first is taken" if image.format in ("MPO", HEIF) else "is animated; its first frame is taken"
    )


def _is_deep_colour(image: Image.Image) -> bool:
    """Returns whether an image that is not yet decoded has 16 bits per colour value. Pillow keeps only the upper 8 of them."""
    return image.mode in ("RGB", "RGBA", "LA") and any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))


def _decoded(image: Image.Image, name: str | None) -> tuple[Image.Image, str | None]:
    """Returns the upright RGB copy, and a remark where its values were scaled. Raises ImageError as `upright_rgb`."""
    try:
        image.load()
        rgb, remark = _to_rgb(image)
        upright = _upright(rgb, image)
        upright.info = {}
        return upright, remark
    except _BROKEN as error:
        named = name or f"<{image.mode} picture>"
        raise ImageError(f"{named}: cannot be decoded ({_reason(error)}); replace or remove the file") from error


def _upright(pixels: Image.Image, image: Image.Image) -> Image.Image:
    """Applies the EXIF orientation of `image` to `pixels`."""
    with _quiet, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        except _BROKEN:
            return pixels
    return pixels.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else pixels


def _taken(image: Image.Image) -> Taken:
    with _quiet, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            exif = image.getexif()
            if not len(exif):
                return Taken()
            return taken(exif.get_ifd(ExifTags.IFD.Exif), exif.get_ifd(ExifTags.IFD.GPSInfo))
        except (*_BROKEN, AttributeError):
            return Taken()


def _to_rgb(image: Image.Image) -> tuple[Image.Image, str | None]:
    if is_deep_grey(image):
        return grey_to_rgb(image)
    if image.has_transparency_data:
        opaque = Image.new("RGBA", image.size, "white")
        opaque.alpha_composite(image.convert("RGBA"))
        image = opaque
    return image.convert("RGB"), None


def _reason(error: BaseException) -> str:
    return (error.strerror if isinstance(error, OSError) and error.strerror else str(error)) or type(error).__name__
