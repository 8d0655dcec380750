"""An explanation as a picture: the crop, the crop lit where its regions carried the score, and the words, underlined by theirs."""

import io

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tbps.search.explain import Explanation, Word

_HEIGHT, _MARGIN, _GAP, _TEXT = 448, 24, 20, 20
_WORDS_WIDTH = 360
_DARK = 0.22  # what is left of a region that carried nothing
_FOR, _AGAINST, _PALE = (34, 120, 74), (178, 52, 44), 232


def draw(explanation: Explanation, thumbnail: bytes) -> Image.Image:
    """`thumbnail`: the JPEG of the image that was explained."""
    crop = Image.open(io.BytesIO(thumbnail)).convert("RGB")
    crop = crop.resize((max(1, round(crop.width * _HEIGHT / crop.height)), _HEIGHT), Image.Resampling.LANCZOS)
    lit = _lit(crop, explanation.regions)
    sheet = Image.new("RGB", (2 * _MARGIN + 2 * crop.width + 2 * _GAP + _WORDS_WIDTH, _HEIGHT + 2 * _MARGIN), "white")
    sheet.paste(crop, (_MARGIN, _MARGIN))
    sheet.paste(lit, (_MARGIN + crop.width + _GAP, _MARGIN))
    _write(ImageDraw.Draw(sheet), explanation, _MARGIN + 2 * (crop.width + _GAP))
    return sheet


def _lit(crop: Image.Image, regions: np.ndarray) -> Image.Image:
    grid = Image.fromarray((255 * regions).astype(np.uint8)).resize(crop.size, Image.Resampling.BICUBIC)
    light = _DARK + (1 - _DARK) * np.asarray(grid, np.float32)[:, :, None] / 255
    return Image.fromarray((np.asarray(crop) * light).astype(np.uint8))


def _write(pen: ImageDraw.ImageDraw, explanation: Explanation, left: int) -> None:
    font, small = ImageFont.load_default(size=_TEXT), ImageFont.load_default(size=13)
    pen.text((left, _MARGIN), f"score {explanation.score:.3f}", font=small, fill=(90, 90, 90))
    strongest = max((abs(word.weight) for word in explanation.words), default=0.0) or 1.0
    x, y, text = left, _MARGIN + 34, None
    for word in explanation.words:
        width = font.getlength(f"{word.word} ")
        if text not in (None, word.text) or x + width > left + _WORDS_WIDTH:
            x, y = left, y + (46 if text not in (None, word.text) else 34)
        if y > _HEIGHT:
            return
        text = word.text
        pen.rectangle([x, y + 25, x + width - 6, y + 28], fill=_shade(word, strongest))
        pen.text((x, y), word.word, font=font, fill=(33, 33, 33))
        x += round(width)


def _shade(word: Word, strongest: float) -> tuple[int, int, int]:
    share = min(1.0, abs(word.weight) / strongest)
    colour = _FOR if word.weight > 0 else _AGAINST
    red, green, blue = (round(share * full + (1 - share) * _PALE) for full in colour)
    return red, green, blue
