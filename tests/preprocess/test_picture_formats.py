"""Image formats, values of more than 8 bits, large texts and capture times."""

import io
import struct
import subprocess
import sys
import zlib
from datetime import datetime
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, PngImagePlugin, TiffImagePlugin, UnidentifiedImageError

from tbps.errors import ImageError
from tbps.preprocess.formats import HEIC_NEEDS, OTHER_PICTURES, PICTURES, heif_formats, picture_format
from tbps.preprocess.image import capture_time, check_image, open_image, open_photograph


def _picture(width: int = 48, height: int = 80) -> Image.Image:
    y, x = np.mgrid[0:height, 0:width]
    channels = [x * 255 / width, y * 255 / height, 255 - x * 128 / width - y * 127 / height]
    return Image.fromarray(np.stack(channels, -1).astype(np.uint8))


def _encoded(image: Image.Image, file_format: str, **options: object) -> bytes:
    heif_formats()
    image.save(buffer := io.BytesIO(), file_format, **options)
    return buffer.getvalue()


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


READ = {
    "JPEG": {"quality": 95},
    "PNG": {},
    "WEBP": {"quality": 95},
    "GIF": {},
    "AVIF": {"quality": 95},
    "HEIF": {"quality": 95},
    "TIFF": {},
    "BMP": {},
    "JPEG2000": {},
    "PPM": {},
}


@pytest.mark.parametrize("file_format", READ)
def test_every_format_is_read_by_its_content_and_not_by_its_name(file_format: str, tmp_path: Path) -> None:
    content = _encoded(_picture(), file_format, **READ[file_format])
    assert picture_format(content[:64]) == file_format
    for name in ("a.png", "b.jpg", "c"):
        (tmp_path / name).write_bytes(content)
        opened = open_image(tmp_path / name)
        assert opened.size == (48, 80) == check_image(content)
        assert np.abs(np.asarray(opened, float) - np.asarray(_picture(), float)).mean() < 8


@pytest.mark.parametrize("file_format", READ)
def test_damaged_files_of_every_format_give_a_picture_or_an_image_error(file_format: str) -> None:
    content = _encoded(_picture(), file_format, **READ[file_format])
    rng = np.random.default_rng(1)
    for _ in range(40):
        damaged = bytearray(content)
        for place in rng.integers(0, min(len(damaged), 400), 3):
            damaged[place] = rng.integers(256)
        try:
            assert open_image(bytes(damaged)).mode == "RGB"
        except ImageError:
            continue
    for share in (0.1, 0.5):
        with pytest.raises(ImageError):
            open_image(content[: int(len(content) * share)])


@pytest.mark.parametrize("file_format", ["AVIF", "HEIF", "JPEG", "WEBP", "PNG", "TIFF"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_orientation_is_applied_once_in_every_format(file_format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    turn = {1: 0, 3: 180, 6: 270, 8: 90}[orientation]
    expected = np.asarray(_picture().rotate(turn, expand=True), float)
    opened = np.asarray(open_image(_encoded(_picture(), file_format, exif=exif.tobytes(), **READ[file_format])), float)
    assert opened.shape == expected.shape and np.abs(opened - expected).mean() < 8


@pytest.mark.parametrize(
    ("file_format", "remark"),
    [
        ("GIF", "is animated; its first frame is taken"),
        ("WEBP", "is animated; its first frame is taken"),
        ("AVIF", "is animated; its first frame is taken"),
        ("PNG", "is animated; its first frame is taken"),
        ("TIFF", "has several pages; the first is taken"),
        ("MPO", "holds several pictures; the first is taken"),
    ],
)
def test_the_first_of_several_images_is_read_with_a_remark(file_format: str, remark: str) -> None:
    first, second = Image.new("RGB", (20, 20), "red"), Image.new("RGB", (20, 20), "blue")
    found = open_photograph(_encoded(first, file_format, save_all=True, append_images=[second]))
    assert found.remarks == (remark,)
    red, green, blue = np.asarray(found.image)[10, 10].tolist()
    assert red > 240 and green < 15 and blue < 15
    alone = "JPEG" if file_format == "MPO" else file_format
    assert open_photograph(_encoded(first, alone)).remarks == ()


def test_heic_without_its_package_names_the_installation_command() -> None:
    program = (
        "import sys; sys.modules['pillow_heif'] = None\n"
        "from tbps.preprocess.image import open_image\n"
        "try: open_image(sys.stdin.buffer.read())\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    content = _encoded(_picture(), "HEIF")
    found = subprocess.run([sys.executable, "-c", program], input=content, capture_output=True, check=True).stdout.decode()
    assert found.strip() == f"ImageError <{len(content)} bytes>: {HEIC_NEEDS}" and "pip install 'tbps[heic]'" in found


def test_the_preview_of_a_raw_photograph_is_not_read() -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[50706] = b"\1\4\0\0"
    with pytest.raises(ImageError, match="is a raw photograph, which is not read; export it as JPEG"):
        open_image(_encoded(_picture(), "TIFF", tiffinfo=tags))
    preview = TiffImagePlugin.ImageFileDirectory_v2()
    preview[254], preview[330] = 1, 8  # as in NEF and ARW: a reduced image, and an offset to the other images
    with pytest.raises(ImageError, match="is a raw photograph, which is not read; export it as JPEG"):
        open_image(_encoded(_picture(), "TIFF", tiffinfo=preview))


def test_known_suffixes_are_disjoint() -> None:
    assert not PICTURES & OTHER_PICTURES
    assert {".jpe", ".jfif", ".avif", ".gif", ".heic", ".mpo"} <= PICTURES and {".dng", ".nef", ".psd", ".pdf"} <= OTHER_PICTURES


GREY = np.linspace(2, 233, 48 * 80).reshape(80, 48).astype(np.uint16)


def _deep(values: np.ndarray, kind: str) -> bytes:
    if kind == "PNG":
        return _encoded(Image.fromarray(values), "PNG")
    if kind == "TIFF big-endian":
        image = Image.frombytes("I;16B", values.shape[::-1], values.astype(">u2").tobytes())
        return _encoded(image, "TIFF")
    return _encoded(
        Image.fromarray(values.astype({"TIFF": np.uint16, "TIFF 32": np.int32, "TIFF float": np.float32}[kind])), "TIFF"
    )


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "TIFF big-endian", "TIFF 32", "TIFF float"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_values_of_fewer_than_16_bits_are_scaled_to_8(kind: str, bits: int) -> None:
    found = open_photograph(_deep(GREY << (bits - 8), kind))
    assert np.array_equal(np.asarray(found.image)[..., 1], GREY)
    expected = () if bits == 16 else (f"{bits}-bit values in a 16-bit file were scaled to the whole range",)
    assert found.remarks == expected


def test_a_dark_picture_of_16_bits_stays_dark() -> None:
    dark = np.random.default_rng(0).integers(0, 3000, (80, 48)).astype(np.uint16)
    dark[0, 0] = 60_000  # one bright pixel
    assert np.asarray(open_image(_encoded(Image.fromarray(dark), "PNG")))[1:].max() <= 3000 >> 8
    for factor in (256, 257):  # 8-bit values scaled to 16 bits
        faint = (np.random.default_rng(0).integers(0, 12, (80, 48)) * factor).astype(np.uint16)
        found = open_photograph(_encoded(Image.fromarray(faint), "PNG"))
        assert np.asarray(found.image).max() <= 11 and found.remarks == ()


def test_floating_point_values_up_to_1_are_fractions_of_white() -> None:
    found = open_photograph(_encoded(Image.fromarray((GREY / 255).astype(np.float32)), "TIFF"))
    assert np.array_equal(np.asarray(found.image)[..., 0], GREY) and found.remarks == ()


def _deep_png(values: np.ndarray, colour: int) -> bytes:
    """Writes a PNG file with 16 bits per channel; `colour`: PNG colour type."""
    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_colour_of_fewer_than_16_bits_is_scaled_to_8(bits: int) -> None:
    picture = np.asarray(_picture()).astype(np.uint16)
    found = open_photograph(_deep_png(picture << (bits - 8), 2))
    assert np.array_equal(np.asarray(found.image), picture) and len(found.remarks) == (bits < 16)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("opaque", [12, 16])
def test_transparency_of_deep_images_becomes_white(channels: int, opaque: int) -> None:
    picture = np.asarray(_picture())[..., :channels].astype(np.uint16)
    alpha = np.full((80, 48, 1), (1 << opaque) - 1, np.uint16)
    alpha[:20] = 0
    found = open_photograph(_deep_png(np.concatenate([picture << 4, alpha], -1), 6 if channels == 3 else 4))
    assert (np.asarray(found.image)[:20] == 255).all() and len(found.remarks) == 1
    assert np.array_equal(np.asarray(found.image)[20:], np.broadcast_to(picture[20:], (60, 48, 3)))


@pytest.mark.parametrize("kind", ["zTXt", "iTXt", "tEXt", "behind the pixels", "colour profile", "many small ones"])
def test_large_texts_in_a_png_are_ignored(kind: str) -> None:
    texts, large = PngImagePlugin.PngInfo(), "x" * (70 * 2**20 if kind == "tEXt" else 3 * 2**20)
    if kind in ("zTXt", "tEXt"):
        texts.add_text("workflow", large, zip=kind == "zTXt")
    elif kind == "iTXt":
        texts.add_itxt("workflow", large, zip=True)
    elif kind == "behind the pixels":
        texts.add(b"zTXt", b"a\0\0" + zlib.compress(large.encode()), after_idat=True)
    elif kind == "many small ones":
        for number in range(90):
            texts.add_text(f"t{number}", "x" * 2**20, zip=True)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    profile = {"icc_profile": bytes(3 * 2**20)} if kind == "colour profile" else {}
    content = _encoded(_picture(), "PNG", pnginfo=texts, exif=exif, **profile)
    assert check_image(content) == (48, 80)
    assert np.array_equal(np.asarray(open_image(content)), np.asarray(_picture().rotate(270, expand=True)))


def test_a_damaged_text_is_ignored() -> None:
    content = _encoded(_picture(), "PNG")
    text = _chunk(b"zTXt", b"a\0\0" + b"no zlib data")
    at = content.index(b"IDAT") - 4
    assert np.array_equal(np.asarray(open_image(content[:at] + text + content[at:])), np.asarray(_picture()))


def _exif(details: dict[int, object], place: dict[int, object] | None = None) -> Image.Exif:
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif).update(details)
    if place:
        exif.get_ifd(ExifTags.IFD.GPSInfo).update(place)
    exif[ExifTags.Base.DateTime] = "2030:01:01 00:00:00"  # the time of the last change, which must not be used
    return exif


TIME, FRACTION, ZONE = ExifTags.Base.DateTimeOriginal, ExifTags.Base.SubsecTimeOriginal, ExifTags.Base.OffsetTimeOriginal
GPS = {ExifTags.GPS.GPSDateStamp: "2024:05:01", ExifTags.GPS.GPSTimeStamp: (Fraction(8), Fraction(30), Fraction(15, 2))}


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
def test_the_capture_time_is_read_from_every_format(file_format: str) -> None:
    exif = _exif({TIME: "2024:05:01 10:00:00", FRACTION: "25", ZONE: "+02:00"})
    content = _encoded(_picture(), file_format, exif=exif.tobytes())
    for found in (open_photograph(content).taken, capture_time(content)):
        assert found.at is not None and found.unread is None
        assert datetime.fromisoformat(found.at) == datetime.fromisoformat("2024-05-01T08:00:00.25+00:00")
    assert capture_time(_encoded(_picture(), file_format)).at is None


@pytest.mark.parametrize(
    ("details", "place", "at", "unread"),
    [
        ({TIME: "2024:05:01 10:00:00"}, None, "2024-05-01T10:00:00", None),
        ({TIME: "2024:05:01 10:00:00", ZONE: "Z"}, None, "2024-05-01T10:00:00+00:00", None),
        ({TIME: "2024:05:01 10:00:00", ZONE: "-09:30"}, None, "2024-05-01T10:00:00-09:30", None),
        ({TIME: "2024:05:01 10:00:00", ZONE: "   :  "}, None, "2024-05-01T10:00:00", None),
        ({TIME: "2024:05:01 10:00:00", ZONE: "+99:00"}, None, "2024-05-01T10:00:00", None),
        ({TIME: "2024-05-01T10:00:00"}, None, "2024-05-01T10:00:00", None),
        ({TIME: "2024:05:01 10:00:00\0\0"}, None, "2024-05-01T10:00:00", None),
        ({TIME: "0000:00:00 00:00:00"}, None, None, "0000:00:00 00:00:00"),
        ({TIME: "2024:02:30 10:00:00"}, None, None, "2024:02:30 10:00:00"),
        ({TIME: "yesterday"}, None, None, "yesterday"),
        ({TIME: "    :  :     :  :  "}, None, None, None),
        ({TIME: "0000:00:00 00:00:00", ExifTags.Base.DateTimeDigitized: "2024:05:01 10:00:00"}, None, "2024-05-01T10:00:00", None),
        ({TIME: "0000:00:00 00:00:00"}, GPS, "2024-05-01T08:30:07.500000+00:00", "0000:00:00 00:00:00"),
        ({}, GPS, "2024-05-01T08:30:07.500000+00:00", None),
        ({TIME: "2024:05:01 10:00:00"}, GPS, "2024-05-01T10:00:00", None),
        (
            {},
            {ExifTags.GPS.GPSDateStamp: "2024:05:01", ExifTags.GPS.GPSTimeStamp: (Fraction(25), Fraction(0), Fraction(0))},
            None,
            None,
        ),
        ({}, {ExifTags.GPS.GPSDateStamp: "2024:05:01"}, None, None),
    ],
)
def test_capture_times(details: dict[int, object], place: dict[int, object] | None, at: str | None, unread: str | None) -> None:
    found = capture_time(_encoded(_picture(), "JPEG", exif=_exif(details, place)))
    assert found.at == at
    if at is None or place:
        assert found.unread == unread


def test_damaged_exif_gives_no_time() -> None:
    content = _encoded(_picture(), "JPEG", exif=_exif({TIME: "2024:05:01 10:00:00"}).tobytes())
    rng = np.random.default_rng(0)
    for _ in range(200):
        damaged = bytearray(content)
        damaged[rng.integers(20, 160)] = rng.integers(256)
        capture_time(bytes(damaged))
    assert capture_time(b"").at is None and capture_time(b"text" * 100).at is None


@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt", b"iTXt", b"iCCP"])
def test_a_text_with_a_wrong_checksum_is_ignored(kind: bytes) -> None:
    plain = _encoded(_picture(), "PNG")
    chunk = _chunk(kind, b"key\0\0" + zlib.compress(b"value"))
    broken = plain[:33] + chunk[:-1] + bytes([chunk[-1] ^ 1]) + plain[33:]
    with pytest.raises(UnidentifiedImageError):
        Image.open(io.BytesIO(broken)).load()
    np.testing.assert_array_equal(np.asarray(open_image(broken)), np.asarray(_picture()))
