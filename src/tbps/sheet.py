"""Contact sheets: captions, each above a row of its ranked crops; correct crops have a green frame."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

_TEXT = (33, 33, 33)
_FAINT = (110, 110, 110)
_PLATE = (244, 244, 244)
_RULE = (226, 226, 226)
_RIGHT = (22, 150, 70)
_WRONG = (200, 200, 200)

_MARGIN = 24
_GAP = 14
_FRAME = 4
_TITLE, _CAPTION, _LABEL = 26, 19, 15
_MIN_WIDTH = 640

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True, slots=True)
class Tile:
    """One crop. `label` (rank and score) is written below it. `right`: True green frame, False thin grey frame, None no frame."""

    image: Image.Image
    label: str = ""
    right: bool | None = None


@dataclass(frozen=True, slots=True)
class SheetRow:
    """One query caption and its crops in ranked order."""

    caption: str
    tiles: tuple[Tile, ...]


def contact_sheet(rows: Sequence[SheetRow], *, thumb: tuple[int, int] = (96, 224), title: str = "") -> Image.Image:
    """Draws a contact sheet on white, with captions wrapped to its width. `thumb`: (width, height) of the box that each crop fits
    into.
    """
    longest = max((len(row.tiles) for row in rows), default=0)
    width = max(_MIN_WIDTH, 2 * _MARGIN + longest * (thumb[0] + 2 * _FRAME + _GAP) - _GAP)
    drawn = [_draw_row(row, width, thumb) for row in rows]
    title_font = ImageFont.load_default(size=_TITLE)
    title_lines = _wrap(title, title_font, width - 2 * _MARGIN) if title else []
    top = _MARGIN + len(title_lines) * _line_height(title_font) + (_GAP if title_lines else 0)
    height = top + sum(image.height for image in drawn) + 2 * _GAP * max(len(drawn) - 1, 0) + _MARGIN

    sheet = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(sheet)
    _write(pen, (_MARGIN, _MARGIN), title_lines, title_font)
    for number, image in enumerate(drawn):
        if number:
            pen.line([(_MARGIN, top + _GAP - 1), (width - _MARGIN, top + _GAP - 1)], fill=_RULE)
            top += 2 * _GAP
        sheet.paste(image, (0, top))
        top += image.height
    return sheet


def _draw_row(row: SheetRow, width: int, thumb: tuple[int, int]) -> Image.Image:
    caption_font, label_font = ImageFont.load_default(size=_CAPTION), ImageFont.load_default(size=_LABEL)
    lines = _wrap(row.caption, caption_font, width - 2 * _MARGIN)
    box = (thumb[0] + 2 * _FRAME, thumb[1] + 2 * _FRAME)
    top = len(lines) * _line_height(caption_font) + _GAP
    label_lines = max((len(tile.label.splitlines()) for tile in row.tiles), default=0)
    height = top + (box[1] if row.tiles else 0) + label_lines * _line_height(label_font)

    image = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(image)
    _write(pen, (_MARGIN, 0), lines, caption_font)
    for column, tile in enumerate(row.tiles):
        left = _MARGIN + column * (box[0] + _GAP)
        _draw_tile(image, tile, (left, top, left + box[0], top + box[1]))
        for number, line in enumerate(tile.label.splitlines()):
            centre = (left + box[0] / 2, top + box[1] + 3 + number * _line_height(label_font))
            pen.text(centre, line, font=label_font, fill=_RIGHT if tile.right else _FAINT, anchor="ma")
    return image


def _draw_tile(image: Image.Image, tile: Tile, box: tuple[int, int, int, int]) -> None:
    left, top, right, bottom = box
    pen = ImageDraw.Draw(image)
    pen.rectangle([left, top, right - 1, bottom - 1], fill=_PLATE)
    room = (right - left - 2 * _FRAME, bottom - top - 2 * _FRAME)
    scale = min(room[0] / tile.image.width, room[1] / tile.image.height)
    size = (max(1, round(tile.image.width * scale)), max(1, round(tile.image.height * scale)))
    crop = tile.image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    image.paste(crop, (left + _FRAME + (room[0] - size[0]) // 2, top + _FRAME + (room[1] - size[1]) // 2))
    if tile.right is not None:
        outline, thickness = (_RIGHT, _FRAME) if tile.right else (_WRONG, 1)
        pen.rectangle([left, top, right - 1, bottom - 1], outline=outline, width=thickness)


def _write(pen: ImageDraw.ImageDraw, at: tuple[int, int], lines: Sequence[str], font: _Font) -> None:
    for number, line in enumerate(lines):
        pen.text((at[0], at[1] + number * _line_height(font)), line, font=font, fill=_TEXT)


def _line_height(font: _Font) -> int:
    _, top, _, bottom = font.getbbox("Ágp")
    return round((bottom - top) * 1.25)


def _wrap(text: str, font: _Font, width: int) -> list[str]:
    """Wraps text to lines of at most `width` pixels; a word that is wider is broken."""
    lines: list[str] = []
    line = ""
    for word in text.split():
        if font.getlength(f"{line} {word}".strip()) <= width:
            line = f"{line} {word}".strip()
            continue
        if line:
            lines.append(line)
        line = ""
        for character in word:
            if line and font.getlength(line + character) > width:
                lines.append(line)
                line = ""
            line += character
    return [*lines, line] if line else lines
