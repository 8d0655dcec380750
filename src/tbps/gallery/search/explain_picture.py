"""Draws an explanation: the image, the image with a heat map of its regions, the words and their contributions."""

import io
from collections.abc import Sequence
from itertools import groupby

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tbps.gallery.search.explain import Explanation, Word

_HEIGHT, _MARGIN, _GAP = 448, 24, 20
_PANEL = 360
_TEXT, _SMALL = 20, 14
_AVOIDED = "avoided"
_INK, _FAINT, _RULE = (33, 33, 33), (110, 110, 110), (210, 210, 210)
_FOR, _AGAINST = (34, 139, 84), (205, 62, 52)
_HEAT = np.array([(255, 214, 90), (246, 120, 35), (196, 18, 28)])  # for small to large contributions
_PALE = 0.55  # share of white in the crop below the heat map
_CHIP, _CHIP_PAD = 30, 5
_BARS, _BAR_STEP = 8, 26

_Pen = ImageDraw.ImageDraw


def draw_explanation(explanation: Explanation, thumbnail: bytes) -> Image.Image:
    """Draws the explanation of the image whose thumbnail (JPEG) is given."""
    crop = Image.open(io.BytesIO(thumbnail)).convert("RGB")
    crop = crop.resize((max(1, round(crop.width * _HEIGHT / crop.height)), _HEIGHT), Image.Resampling.LANCZOS)
    sheet = Image.new("RGB", (2 * (_MARGIN + crop.width) + _GAP + _MARGIN + _PANEL, _HEIGHT + 2 * _MARGIN), "white")
    sheet.paste(crop, (_MARGIN, _MARGIN))
    sheet.paste(_heated(crop, explanation.regions), (_MARGIN + crop.width + _GAP, _MARGIN))
    pen, left = ImageDraw.Draw(sheet), 2 * (_MARGIN + crop.width) + _GAP
    pen.text((left, _MARGIN), f"score {explanation.score:.3f}", font=ImageFont.load_default(size=_SMALL), fill=_FAINT)
    strongest = max((abs(word.weight) for word in explanation.words), default=0.0) or 1.0
    bars = sorted((word for word in explanation.words if word.weight), key=lambda word: -abs(word.weight))[:_BARS]
    bottom = _MARGIN + _HEIGHT - len(bars) * _BAR_STEP
    written = _write(pen, explanation.words, strongest, (left, _MARGIN + 32), bottom - _GAP)
    _weigh(pen, bars, strongest, (left, min(written + _GAP, bottom)))
    return sheet


def _heated(crop: Image.Image, regions: np.ndarray) -> Image.Image:
    """The crop in pale grey under a heat map of its regions, interpolated between their centres."""
    grid = Image.fromarray(regions.astype(np.float32)).resize(crop.size, Image.Resampling.BICUBIC)
    heat = np.clip(np.asarray(grid), 0, 1)
    grey = np.asarray(crop.convert("L"), np.float32)[:, :, None]
    warm = np.stack([np.interp(heat, np.linspace(0, 1, len(_HEAT)), channel) for channel in _HEAT.T], axis=2)
    share = (0.8 * np.sqrt(heat))[:, :, None]
    pale, shade = _PALE * 255 + (1 - _PALE) * grey, 0.7 + 0.3 * grey / 255  # keeps folds and edges visible under the heat map
    lit = (1 - share) * pale + share * warm * shade
    return Image.fromarray(lit.astype(np.uint8))


def _write(pen: _Pen, words: Sequence[Word], strongest: float, at: tuple[int, int], bottom: int) -> int:
    """Writes each description on a new line, its words on plates coloured by contribution; returns the bottom.

    Avoided descriptions are marked. Text that does not fit is replaced by dots.
    """
    font, small = ImageFont.load_default(size=_TEXT), ImageFont.load_default(size=_SMALL)
    left, y = at
    for (_, avoided), described in groupby(words, key=lambda word: (word.text, word.avoided)):
        x = float(left)
        if avoided and y + _CHIP <= bottom:
            pen.text((x, y + _CHIP / 2), _AVOIDED, font=small, fill=_FAINT, anchor="lm")
            x += small.getlength(_AVOIDED) + _CHIP_PAD
        for word in described:
            width = font.getlength(word.word) + 2 * _CHIP_PAD
            if x > left and x + width > left + _PANEL:
                x, y = float(left), y + _CHIP + 6
            if y + _CHIP > bottom:
                pen.text((left, y), "...", font=font, fill=_FAINT, anchor="lm")
                return y
            pen.rounded_rectangle([x, y, x + width, y + _CHIP], radius=6, fill=_plate(word, strongest))
            pen.text((x + _CHIP_PAD, y + _CHIP / 2), word.word, font=font, fill=_INK, anchor="lm")
            x += width + 3
        y += _CHIP + 18
    return y


def _weigh(pen: _Pen, bars: Sequence[Word], strongest: float, at: tuple[int, int]) -> None:
    """Draws the contributions of words as bars, the largest first: positive ones to the right of a line, negative to its left."""
    font = ImageFont.load_default(size=_SMALL)
    left, top = at
    middle, reach = left + 220, 80
    for number, word in enumerate(bars):
        y = top + number * _BAR_STEP + _BAR_STEP / 2
        end = middle + reach * word.weight / strongest
        pen.text((left, y), _shortened(word.word, font), font=font, fill=_INK, anchor="lm")
        pen.rectangle([min(middle, end), y - 6, max(middle, end), y + 6], fill=_FOR if word.weight > 0 else _AGAINST)
        pen.text((left + _PANEL, y), f"{word.weight:+.3f}", font=font, fill=_FAINT, anchor="rm")
    if bars:
        pen.line([(middle, top), (middle, top + len(bars) * _BAR_STEP)], fill=_RULE)


def _shortened(word: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    while font.getlength(word) > 130:
        word = word[:-2] + "\u2026"
    return word


def _plate(word: Word, strongest: float) -> tuple[int, int, int]:
    """The colour of a word: white for no contribution, a pale green or red for the largest."""
    share = 0.6 * min(1.0, abs(word.weight) / strongest)
    red, green, blue = (round(share * full + (1 - share) * 255) for full in (_FOR if word.weight > 0 else _AGAINST))
    return red, green, blue
