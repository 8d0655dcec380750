import io
import random
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from tbps.errors import ImageError, SettingsError
from tbps.preprocess.image import ImageSpec, check_image, normalise, open_image, to_array


def picture(width: int = 48, height: int = 80) -> Image.Image:
    """A smooth image whose four corners differ, so that every rotation is visible."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [x * 255 / width, y * 255 / height, 255 - x * 128 / width - y * 127 / height]
    return Image.fromarray(np.stack(channels, -1).astype(np.uint8))


def encode(image: Image.Image, file_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def difference(a: Image.Image, b: Image.Image) -> float:
    assert a.size == b.size
    return float(np.abs(np.asarray(a, dtype=float) - np.asarray(b, dtype=float)).mean())


def png(width: int, height: int, rows: bytes, bits: int = 1, colour: int = 0) -> bytes:
    """Writes a PNG file; `rows`: scan lines with their filter bytes, not compressed."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("file_format", "options"), [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("WEBP", {"lossless": True})])
def test_lossless_formats_are_decoded_exactly(file_format: str, options: dict[str, object], tmp_path: Path) -> None:
    content = encode(picture(), file_format, **options)
    (tmp_path / "p").write_bytes(content)
    for source in (content, tmp_path / "p", str(tmp_path / "p")):
        opened = open_image(source)
        assert opened.mode == "RGB"
        assert difference(opened, picture()) == 0
        assert check_image(source) == (48, 80)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_is_applied(orientation: int, file_format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encode(picture(), file_format, exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB")
    opened = open_image(content)
    assert opened.size == ((80, 48) if orientation >= 5 else (48, 80))
    assert difference(opened, expected) == 0


def test_unreadable_exif_counts_as_upright() -> None:
    content = encode(picture(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12\0\x03\xff")
    assert open_image(content).size == (48, 80)


def test_deep_grey_is_scaled_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 48 * 80).reshape(80, 48).astype(np.uint16)
    expected = ramp // 256
    for file_format in ("PNG", "TIFF"):
        opened = open_image(encode(Image.fromarray(ramp), file_format))
        assert np.array_equal(np.asarray(opened)[..., 0], expected)
    wide = open_image(encode(Image.fromarray(ramp.astype(np.int32)), "TIFF"))
    assert np.array_equal(np.asarray(wide)[..., 2], expected)


def test_deep_colour_agrees_with_deep_grey() -> None:
    value = 0xABCD
    rows = b"".join(b"\0" + struct.pack(">HHH", value, value, value) * 4 for _ in range(4))
    assert np.unique(np.asarray(open_image(png(4, 4, rows, bits=16, colour=2)))).tolist() == [0xAB]


def test_pixels_of_unknown_range_are_refused() -> None:
    for wrong in (-0.5, 70_000.0, np.nan, np.inf):
        with pytest.raises(ImageError, match="save it with 8 bits"):
            open_image(encode(Image.fromarray(np.full((8, 8), wrong, dtype=np.float32)), "TIFF"))
    for far in (-1, 1 << 20):
        with pytest.raises(ImageError, match="save it with 8 bits"):
            open_image(encode(Image.fromarray(np.full((8, 8), far, dtype=np.int32)), "TIFF"))


def test_cmyk_palette_grey_and_bilevel_images() -> None:
    assert difference(open_image(encode(picture().convert("CMYK"), "JPEG", quality=95)), picture()) < 8
    palette = picture().quantize(64)
    assert difference(open_image(encode(palette, "PNG")), palette.convert("RGB")) == 0
    assert difference(open_image(encode(picture().convert("L"), "JPEG", quality=95)), picture().convert("L").convert("RGB")) < 3
    bilevel = picture().convert("1")
    assert difference(open_image(encode(bilevel, "PNG")), bilevel.convert("RGB")) == 0


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_become_white(mode: str) -> None:
    image = Image.new("RGBA", (10, 10), (0, 0, 0, 255))
    image.paste((0, 0, 0, 0), (0, 0, 5, 10))
    if mode == "P":
        palette = Image.new("P", (10, 10), 1)
        palette.putpalette([255, 0, 0, 0, 0, 0])
        palette.paste(0, (0, 0, 5, 10))
        content = encode(palette, "PNG", transparency=0)
    else:
        content = encode(image.convert(mode), "PNG")
    pixels = np.asarray(open_image(content))
    assert (pixels[:, :5] == 255).all()
    assert (pixels[:, 5:] == 0).all()


@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "TIFF"])
def test_animations_give_their_first_frame(file_format: str) -> None:
    first, second = Image.new("RGB", (20, 20), "red"), Image.new("RGB", (20, 20), "blue")
    options = {"lossless": True} if file_format == "WEBP" else {}
    content = encode(first, file_format, save_all=True, append_images=[second], **options)
    assert np.asarray(open_image(content))[10, 10].tolist() == [255, 0, 0]


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("text.jpg", b"hello\n" * 100, "holds text"),
        ("empty.png", b"", "is empty"),
        ("page.html.jpg", b"<html></html>", "holds a web page"),
        ("paper.jpg", b"%PDF-1.7\n%\xe2", "is a PDF document"),
        ("zeros.jpg", bytes(500), "holds zero bytes only"),
        ("film.jpg", b"\0\0\0\x18ftypisom\0\0\0\0isom", "is a video"),
        ("cut.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100), "is damaged"),
        ("drawing.jpg", bytes(range(128, 256)) * 4, "is damaged or of an unknown format"),
    ],
)
def test_files_that_are_not_images_are_refused_by_name(name: str, content: bytes, what: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    for read in (open_image, check_image):
        with pytest.raises(ImageError, match=f"{name}: is not a readable .* picture: it {what}"):
            read(tmp_path / name)


def test_missing_files_folders_and_null_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="cannot be read"):
        open_image(tmp_path / "nobody.jpg")
    with pytest.raises(ImageError, match="is not a file"):
        open_image(tmp_path)
    with pytest.raises(ImageError):
        open_image("a\0b.jpg")
    with pytest.raises(ImageError, match=r"cannot be read .*too long"):
        open_image("x" * 300)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_truncated_files_are_refused(file_format: str, tmp_path: Path) -> None:
    content = encode(picture(), file_format)
    for share in (0.1, 0.5, 0.9):
        (tmp_path / "cut").write_bytes(content[: int(len(content) * share)])
        with pytest.raises(ImageError, match="cut"):
            open_image(tmp_path / "cut")


def test_a_jpeg_without_its_last_bytes_is_refused() -> None:
    with pytest.raises(ImageError, match="cannot be decoded"):
        open_image(encode(picture(), "JPEG")[:-2])


@pytest.mark.parametrize("side", [8_001, 12_000, 30_000])
def test_huge_pictures_are_refused_before_decoding(side: int) -> None:
    """Pillow itself warns at 12,000 x 12,000 pixels and raises its own error at 30,000 x 30,000.

    The file holds only the first row of pixels, so decoding it would raise another error.
    """
    content = png(side, side, b"\0" * (1 + (side + 7) // 8))
    for read in (open_image, check_image):
        with pytest.raises(ImageError, match="more than 64,000,000"):
            read(content)


def test_a_real_decompression_bomb_is_refused() -> None:
    row = b"\0" * (1 + 30_000 // 8)
    content = png(30_000, 30_000, row * 30_000)
    assert len(content) < 200_000
    with pytest.raises(ImageError, match="pixels"):
        open_image(content)


def test_damaged_files_give_a_picture_or_an_image_error() -> None:
    rng = random.Random(3)
    files = [encode(picture(), f) for f in ("JPEG", "PNG", "WEBP", "BMP")]
    files.append(encode(picture().quantize(16), "PNG"))
    refused = 0
    for content in files:
        for _ in range(60):
            damaged = bytearray(content)
            for _ in range(rng.choice([1, 4])):
                damaged[rng.randrange(min(len(damaged), 300))] = rng.randrange(256)
            try:
                assert open_image(bytes(damaged)).mode == "RGB"
            except ImageError:
                refused += 1
    assert refused > 50


def test_threads_do_not_change_the_warning_filters() -> None:
    import warnings

    before = list(warnings.filters)
    content = encode(picture(), "PNG")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(open_image, [content] * 200))
    assert list(warnings.filters) == before


def test_to_array_is_pillows_bicubic_and_takes_any_mode() -> None:
    spec = ImageSpec(height=40, width=32)
    expected = np.asarray(picture().resize((32, 40), Image.Resampling.BICUBIC))
    array = to_array(picture(), spec)
    assert array.dtype == np.uint8
    assert np.array_equal(array, expected)
    assert array.flags.writeable
    clear = Image.new("RGBA", (5, 5), (0, 0, 0, 0))
    assert (to_array(clear, spec) == 255).all()


def test_normalise() -> None:
    spec = ImageSpec(height=2, width=2, mean=(0.5, 0.4, 0.3), std=(0.1, 0.2, 0.4))
    pixels = torch.full((1, 3, 2, 2), 51, dtype=torch.uint8)
    expected = torch.tensor([(0.2 - 0.5) / 0.1, (0.2 - 0.4) / 0.2, (0.2 - 0.3) / 0.4])
    for images in (pixels, pixels.float() / 255, pixels.double() / 255):
        result = normalise(images, spec)
        assert result.dtype == torch.float32
        assert torch.allclose(result[0, :, 1, 1], expected, atol=1e-6)
    kept, spent = torch.rand(2, 3, 2, 2), torch.rand(2, 3, 2, 2)
    before = kept.clone()
    assert torch.equal(normalise(spent, spec, overwrite=True), spent), "the result overwrites the images"
    assert torch.equal(normalise(kept.clone(), spec, overwrite=True), normalise(kept, spec)) and torch.equal(kept, before)


def test_invalid_specs_are_refused() -> None:
    for wrong in ({"height": 0}, {"std": (0.1, 0.0, 0.1)}, {"hight": 3}):
        with pytest.raises(SettingsError):
            ImageSpec.parse(wrong)
