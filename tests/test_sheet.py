import numpy as np
from PIL import Image

from tbps.sheet import SheetRow, Tile, contact_sheet

GREEN = (22, 150, 70)


def crop(colour: str, size: tuple[int, int] = (64, 160)) -> Image.Image:
    return Image.new("RGB", size, colour)


def count(sheet: Image.Image, colour: tuple[int, int, int]) -> int:
    return int((np.asarray(sheet) == colour).all(-1).sum())


def test_correct_tiles_have_a_green_frame_of_four_pixels() -> None:
    tiles = [Tile(crop("navy")) for _ in range(3)]
    plain = contact_sheet([SheetRow("a man", tuple(tiles))], thumb=(96, 224))
    one = contact_sheet([SheetRow("a man", (Tile(crop("navy"), right=True), *tiles[1:]))], thumb=(96, 224))
    width, height = 96 + 8, 224 + 8
    frame = width * height - (width - 8) * (height - 8)
    assert count(plain, GREEN) == 0
    assert count(one, GREEN) == frame


def test_crops_keep_their_aspect_ratio_inside_the_box() -> None:
    for size in ((64, 160), (300, 100), (10, 1000)):
        sheet = contact_sheet([SheetRow("x", (Tile(crop("red", size)),))], thumb=(96, 224))
        rows, columns = np.nonzero((np.asarray(sheet) == (255, 0, 0)).all(-1))
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        scale = min(96 / size[0], 224 / size[1])
        assert (width, height) == (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))


def test_long_captions_are_wrapped_completely() -> None:
    tiles = (Tile(crop("teal"), "1  0.83"),) * 4
    short = contact_sheet([SheetRow("a man", tiles)])
    long = contact_sheet([SheetRow("a woman in a long coat " * 30, tiles)])
    unbroken = contact_sheet([SheetRow("x" * 600, tiles)])
    assert short.width == long.width == unbroken.width
    assert long.height > short.height
    assert unbroken.height > short.height
    for sheet in (short, long, unbroken):
        pixels = np.asarray(sheet)
        for border in (pixels[:8], pixels[-8:], pixels[:, :8], pixels[:, -8:]):
            assert (border == 255).all()


def test_rows_of_any_length_and_images_of_any_mode() -> None:
    sheet = contact_sheet(
        [SheetRow("gap", ()), SheetRow("one", (Tile(crop("red").convert("L")),)), SheetRow("", (Tile(crop("red")),) * 12)],
        title="A title that is much longer than the sheet is wide " * 5,
    )
    assert sheet.mode == "RGB"
    assert sheet.width > 12 * 96
    assert contact_sheet([]).size[0] >= 640
