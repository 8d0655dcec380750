"""Backgrounds: streets, shop fronts, corridors, parks and platforms, `VARIANTS` images of each, drawn once per process.

Every image is `WIDTH` x `HEIGHT` pixels, with the foot of the wall at row `HORIZON`; a crop shows a window of one image.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from tbps.data.mannequins.colours import Rgb
from tbps.seeding import generator

WIDTH, HEIGHT, HORIZON = 640, 640, 320
VARIANTS = 9
Pen = ImageDraw.ImageDraw


@cache
def place(name: str, variant: int) -> Image.Image:
    """Draws one place, slightly out of focus and unevenly lit."""
    rng = generator(0, "mannequins", "place", name, variant)
    picture = Image.new("RGB", (WIDTH, HEIGHT))
    PLACES[name](ImageDraw.Draw(picture), rng)
    picture = picture.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.8, 2.6))))
    small = rng.normal(0, 1, (12, 12)).astype(np.float32)
    light = np.asarray(Image.fromarray(small).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
    grain = rng.normal(0, 1, (HEIGHT, WIDTH)).astype(np.float32)
    grain[:HORIZON] *= 0.5
    factor = 1 + 0.07 * light + 0.03 * grain
    values = np.asarray(picture, dtype=np.float32) * factor[..., None] * float(rng.uniform(0.8, 1.1))
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def _grey(rng: np.random.Generator, low: int, high: int, spread: int = 14) -> Rgb:
    """Draws a wall's colour: nearly grey, warm or cool."""
    base, warm = rng.integers(low, high), rng.integers(-spread, spread + 1)
    return int(base + warm), int(base), int(base - warm)


def _vivid(rng: np.random.Generator) -> Rgb:
    red, green, blue = (int(c) for c in rng.integers(40, 226, 3))
    return red, green, blue


def _times(rgb: Rgb, factor: float) -> Rgb:
    red, green, blue = (max(0, min(255, round(c * factor))) for c in rgb)
    return red, green, blue


def _paving(pen: Pen, rng: np.random.Generator, rgb: Rgb) -> None:
    """Paints paving slabs in perspective."""
    pen.rectangle((0, HORIZON, WIDTH, HEIGHT), fill=rgb)
    joint = _times(rgb, 0.85)
    y, step = float(HORIZON), float(rng.uniform(8, 16))
    while y < HEIGHT:
        pen.line((0, y, WIDTH, y), fill=joint, width=2)
        y, step = y + step, step * 1.35
    middle = int(rng.integers(100, WIDTH - 100))
    for x in range(-1600, WIDTH + 1600, int(rng.integers(90, 190))):
        pen.line((middle + (x - middle) * 0.35, HORIZON, x, HEIGHT), fill=joint, width=2)


def _street(pen: Pen, rng: np.random.Generator) -> None:
    wall = _grey(rng, 90, 200, 24)
    pen.rectangle((0, 0, WIDTH, HORIZON), fill=wall)
    if rng.random() < 0.5:
        for y in range(0, HORIZON, 12):
            pen.line((0, y, WIDTH, y), fill=_times(wall, 0.9), width=2)
    glass = _grey(rng, 40, 110)
    gap, wide = int(rng.integers(100, 170)), int(rng.integers(46, 80))
    for x in range(int(rng.integers(-60, 0)), WIDTH, gap):
        for y in (-10, 140):
            pen.rectangle((x, y, x + wide, y + 96), fill=_times(wall, 1.18))
            pen.rectangle((x + 5, y + 5, x + wide - 5, y + 91), fill=_times(glass, float(rng.uniform(0.8, 1.4))))
            pen.line((x + wide / 2, y, x + wide / 2, y + 96), fill=_times(wall, 1.18), width=4)
    pen.rectangle((0, HORIZON - 26, WIDTH, HORIZON), fill=_times(wall, 0.72))
    _paving(pen, rng, _grey(rng, 110, 180, 10))
    if rng.random() < 0.6:
        y = HORIZON + int(rng.integers(30, 90))
        pen.rectangle((0, y, WIDTH, HEIGHT), fill=_grey(rng, 70, 112, 6))
        pen.rectangle((0, y - 9, WIDTH, y), fill=_grey(rng, 150, 200, 6))
        pen.rectangle((0, y + 110, WIDTH, y + 118), fill=(206, 206, 196))
    for _ in range(int(rng.integers(0, 3))):
        _car(pen, rng, int(rng.integers(-80, WIDTH - 60)))


def _car(pen: Pen, rng: np.random.Generator, x: int) -> None:
    rgb, y = _vivid(rng) if rng.random() < 0.4 else _grey(rng, 40, 220, 4), HORIZON + int(rng.integers(6, 24))
    pen.polygon([(x + 30, y - 70), (x + 62, y - 108), (x + 150, y - 108), (x + 184, y - 70)], fill=_times(rgb, 0.8))
    pen.polygon([(x + 42, y - 72), (x + 68, y - 100), (x + 144, y - 100), (x + 170, y - 72)], fill=(60, 70, 80))
    pen.rounded_rectangle((x, y - 72, x + 230, y - 14), 14, fill=rgb)
    for wheel in (x + 30, x + 158):
        pen.ellipse((wheel, y - 36, wheel + 42, y + 6), fill=(26, 26, 28))
        pen.ellipse((wheel + 12, y - 24, wheel + 30, y - 6), fill=(150, 150, 150))


def _shop_front(pen: Pen, rng: np.random.Generator) -> None:
    wall = _grey(rng, 60, 190, 26)
    pen.rectangle((0, 0, WIDTH, HORIZON), fill=wall)
    sign = _vivid(rng)
    pen.rectangle((0, 22, WIDTH, 78), fill=sign)
    for x in range(20, WIDTH, int(rng.integers(18, 34))):
        if rng.random() < 0.7:
            pen.rectangle(
                (x, 36, x + int(rng.integers(6, 15)), 64), fill=_times(sign, 1.7) if sum(sign) < 380 else _times(sign, 0.4)
            )
    wide = int(rng.integers(150, 260))
    for x in range(int(rng.integers(-100, 0)), WIDTH, wide + 16):
        inside = _grey(rng, 120, 226, 20)
        pen.rectangle((x, 92, x + wide, HORIZON - 22), fill=inside)
        for _ in range(int(rng.integers(5, 12))):
            a, b = x + int(rng.integers(0, wide - 20)), int(rng.integers(110, HORIZON - 70))
            rgb = _vivid(rng) if rng.random() < 0.5 else _times(inside, float(rng.uniform(0.4, 1.2)))
            pen.rectangle((a, b, min(a + int(rng.integers(10, 50)), x + wide), b + int(rng.integers(16, 70))), fill=rgb)
        pen.polygon([(x + 20, 92), (x + 70, 92), (x + 20, HORIZON - 22), (x - 10, HORIZON - 22)], fill=_times(inside, 1.1))
    _paving(pen, rng, _grey(rng, 120, 200, 12))


def _corridor(pen: Pen, rng: np.random.Generator) -> None:
    wall, floor = _grey(rng, 150, 224, 12), _grey(rng, 110, 190, 14)
    pen.rectangle((0, 0, WIDTH, HORIZON), fill=wall)
    pen.rectangle((0, HORIZON, WIDTH, HEIGHT), fill=floor)
    middle = int(rng.integers(180, WIDTH - 180))
    for x in range(-400, WIDTH + 400, 120):
        pen.line((middle + (x - middle) * 0.5, HORIZON, x, HEIGHT), fill=_times(floor, 0.92), width=2)
    door = _grey(rng, 70, 180, 34)
    for x in range(int(rng.integers(-120, 0)), WIDTH, int(rng.integers(170, 300))):
        pen.rectangle((x, 70, x + 96, HORIZON), fill=_times(door, 0.75))
        pen.rectangle((x + 7, 77, x + 89, HORIZON), fill=door)
        pen.ellipse((x + 74, 200, x + 83, 209), fill=(210, 206, 190))
        pen.polygon([(x, HORIZON), (x + 96, HORIZON), (x + 100, HORIZON + 80), (x - 4, HORIZON + 80)], fill=_times(floor, 0.88))
    pen.rectangle((0, HORIZON - 14, WIDTH, HORIZON), fill=_times(wall, 0.66))
    for _ in range(int(rng.integers(1, 4))):
        x, y = int(rng.integers(0, WIDTH)), int(rng.integers(90, 170))
        pen.rectangle((x, y, x + int(rng.integers(30, 90)), y + int(rng.integers(30, 70))), fill=_vivid(rng))
    for x in range(int(rng.integers(0, 90)), WIDTH, 190):
        pen.rectangle((x, 12, x + 110, 30), fill=(250, 250, 244))
        pen.polygon([(x, 470), (x + 110, 470), (x + 140, 620), (x - 30, 620)], fill=_times(floor, 1.1))


def _park(pen: Pen, rng: np.random.Generator) -> None:
    sky = _times((186, 206, 226), float(rng.uniform(0.8, 1.1)))
    pen.rectangle((0, 0, WIDTH, HORIZON), fill=sky)
    leaf = (int(rng.integers(50, 110)), int(rng.integers(90, 140)), int(rng.integers(36, 70)))
    for _ in range(260):
        x, y, r = (int(rng.integers(low, high)) for low, high in ((-20, WIDTH + 20), (-20, HORIZON - 20), (14, 44)))
        pen.ellipse((x - r, y - r * 0.7, x + r, y + r * 0.7), fill=_times(leaf, float(rng.uniform(0.5, 1.25))))
    for _ in range(int(rng.integers(2, 6))):
        x, half = int(rng.integers(0, WIDTH)), int(rng.integers(7, 20))
        pen.polygon(
            [(x - half, 0), (x + half, 0), (x + half * 1.5, HORIZON + 16), (x - half * 1.5, HORIZON + 16)],
            fill=_times((92, 74, 56), float(rng.uniform(0.6, 1.1))),
        )
    grass = (int(rng.integers(84, 130)), int(rng.integers(122, 158)), int(rng.integers(56, 84)))
    pen.rectangle((0, HORIZON, WIDTH, HEIGHT), fill=grass)
    for _ in range(500):
        x, y = int(rng.integers(0, WIDTH)), int(rng.integers(HORIZON, HEIGHT))
        pen.line(
            (x, y, x + int(rng.integers(-4, 5)), y - int(rng.integers(4, 12))),
            fill=_times(grass, float(rng.uniform(0.75, 1.25))),
            width=2,
        )
    if rng.random() < 0.75:
        a, b = int(rng.integers(60, 420)), int(rng.integers(-100, 300))
        pen.polygon([(a, HORIZON + 10), (a + 150, HORIZON + 10), (b + 560, HEIGHT), (b, HEIGHT)], fill=_grey(rng, 150, 196, 20))


def _platform(pen: Pen, rng: np.random.Generator) -> None:
    wall = _grey(rng, 110, 200, 16)
    pen.rectangle((0, 0, WIDTH, HORIZON), fill=wall)
    if rng.random() < 0.65:
        body, band = _grey(rng, 150, 230, 8), _vivid(rng)
        pen.rectangle((0, 40, WIDTH, HORIZON - 8), fill=body)
        pen.rectangle((0, 226, WIDTH, 252), fill=band)
        for x in range(int(rng.integers(-80, 0)), WIDTH, 150):
            pen.rounded_rectangle((x, 88, x + 92, 190), 10, fill=_grey(rng, 40, 90, 8))
            pen.rectangle((x + 108, 70, x + 140, HORIZON - 14), fill=_times(body, 0.82))
    else:
        for x in range(int(rng.integers(-90, 0)), WIDTH, 46):
            pen.line((x, 0, x, HORIZON), fill=_times(wall, 0.87), width=2)
        for y in range(0, HORIZON, 30):
            pen.line((0, y, WIDTH, y), fill=_times(wall, 0.87), width=2)
        pen.rectangle((80, 100, 270, 190), fill=_vivid(rng))
    _paving(pen, rng, _grey(rng, 120, 176, 8))
    pen.rectangle((0, HORIZON, WIDTH, HORIZON + 12), fill=(60, 60, 62))
    y = HORIZON + int(rng.integers(26, 60))
    pen.rectangle((0, y, WIDTH, y + 16), fill=(214, 178, 52))
    for x in range(int(rng.integers(0, 200)), WIDTH, 330):
        pen.rectangle((x, 0, x + 44, HORIZON + 40), fill=_times(wall, 0.7))


PLACES: dict[str, Callable[[Pen, np.random.Generator], None]] = {
    "street": _street,
    "shop front": _shop_front,
    "corridor": _corridor,
    "park": _park,
    "platform": _platform,
}
