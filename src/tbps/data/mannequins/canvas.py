"""Canvas with two layers: colours at twice the final size, and light and material at the final size.

Colours carry outlines, patterns and seams. The second layer holds light (128: the colour unchanged) and the number of the material;
its light is blurred before use, which makes limbs look round and folds soft.
"""

from functools import cache

import numpy as np
from jaxtyping import Bool, Float32
from PIL import Image, ImageDraw, ImageFilter

from tbps.data.mannequins.colours import Rgb
from tbps.data.mannequins.textures import TILE, tiles
from tbps.data.mannequins.tubes import Point, Points, Tube

SCALE = 2
_ROUND = ((0.3, 1.0, -14), (0.68, 1.0, -36), (-1.0, -0.8, -20), (-0.62, -0.2, 12))  # (from, to, light) of strips across a lit tube


class Canvas:
    """Canvas over a background image. Coordinates are pixels of the final size.

    `ground`: background image at `SCALE` times the final size; painting modifies it. `sun`: direction of the light (-1 the left of
    the image, 1 the right); `ambient`: brightness of the background.
    """

    def __init__(self, ground: Image.Image, sun: float, ambient: int = 0) -> None:
        self.size = (ground.width // SCALE, ground.height // SCALE)
        self.colours = ground
        self.matter = Image.new("RGB", self.size, (128 + ambient, 0, 0))
        self.sun, self._ambient = sun, 128 + ambient
        self._paint = ImageDraw.Draw(self.colours)
        self._mark = ImageDraw.Draw(self.matter)

    def shape(self, points: Points, rgb: Rgb, material: int, light: int = 0) -> None:
        """Fills a polygon that hides everything below it."""
        self._paint.polygon([c * SCALE for p in points for c in p], fill=rgb)
        self._mark.polygon(points, fill=(128 + light, material, 255))

    def oval(self, centre: Point, radii: Point, rgb: Rgb, material: int, light: int = 0) -> None:
        (x, y), (a, b) = centre, radii
        box = (x - a, y - b, x + a, y + b)
        self._paint.ellipse([c * SCALE for c in box], fill=rgb)
        self._mark.ellipse(box, fill=(128 + light, material, 255))

    def detail(self, points: Points, rgb: Rgb) -> None:
        """Fills a polygon in colour only: light and material below it stay."""
        self._paint.polygon([c * SCALE for p in points for c in p], fill=rgb)

    def block(self, corner: Point, opposite: Point, rgb: Rgb) -> None:
        """Fills an upright rectangle in colour only."""
        (ax, ay), (bx, by) = corner, opposite
        self._paint.rectangle((min(ax, bx) * SCALE, min(ay, by) * SCALE, max(ax, bx) * SCALE, max(ay, by) * SCALE), fill=rgb)

    def dot(self, centre: Point, radii: Point, rgb: Rgb) -> None:
        (x, y), (a, b) = centre, radii
        self._paint.ellipse(((x - a) * SCALE, (y - b) * SCALE, (x + a) * SCALE, (y + b) * SCALE), fill=rgb)

    def line(self, points: Points, rgb: Rgb, width: float) -> None:
        """Draws a line in colour only; `width` in final pixels, at least half a pixel."""
        self._paint.line([c * SCALE for p in points for c in p], fill=rgb, width=max(1, round(width * SCALE)), joint=None)

    def tone(self, points: Points, light: int, material: int) -> None:
        """Adds light or shadow to a polygon: -128 black .. 127 twice as bright."""
        self._mark.polygon(points, fill=(128 + light, material, 255))

    def crease(self, points: Points, light: int, material: int, width: int = 1) -> None:
        self._mark.line(points, fill=(128 + light, material, 255), width=width)

    def shadow(self, centre: Point, radii: Point, light: int) -> None:
        """Adds a soft shadow: rings that grow darker inwards."""
        (x, y), (a, b) = centre, radii
        for f in (1.0, 0.82, 0.64, 0.46):
            level = self._ambient + round(light * (1.25 - f))
            self._mark.ellipse((x - a * f, y - b * f, x + a * f, y + b * f), fill=(level, 0, 0))

    def round(self, tube: Tube, material: int, depth: float = 1.0) -> None:
        """Shades a tube as a round surface under the light of the canvas."""
        side = 1.0 if self.sun <= 0 else -1.0
        strong = depth * (0.75 + 0.5 * abs(self.sun))
        for edge, far, light in _ROUND:
            low, high = (edge, far) if side > 0 else (-far, -edge)
            self.tone(tube.strip(low, high), round(light * strong), material)

    def picture(self, offset: tuple[int, int]) -> Float32[np.ndarray, "3 height width"]:
        """Returns colours times light and texture, about 0 .. 255; values may lie slightly beyond."""
        width, height = self.size
        colours = np.empty((3, height, width), dtype=np.float32)
        for plane, band in zip(colours, self.colours.reduce(SCALE).split(), strict=True):
            plane[...] = np.asarray(band)
        light = self.matter.getchannel(0).filter(ImageFilter.BoxBlur(1 if height < 300 else 2))
        index = np.asarray(self.matter.getchannel(1)).astype(np.int32)
        index *= TILE * TILE
        index += _grid()[offset[1] : offset[1] + height, offset[0] : offset[0] + width]
        factor = np.take(tiles().reshape(-1), index)
        factor += np.take(_LIGHT, np.asarray(light))
        colours += 14.0
        colours *= factor
        colours -= 14.0
        return colours

    def mask(self) -> Bool[np.ndarray, "height width"]:
        """Returns the mask of painted pixels."""
        return np.asarray(self.matter.getchannel(2)) > 0


_LIGHT = (np.arange(256, dtype=np.float32) / 128).astype(np.float32)


@cache
def _grid() -> np.ndarray:
    return (np.arange(TILE, dtype=np.int32)[:, None] * TILE + np.arange(TILE, dtype=np.int32)[None, :]).astype(np.int32)


def shaded(rgb: Rgb, factor: float) -> Rgb:
    """Returns a darker (factor < 1) or lighter shade of a colour, clipped; very dark colours still change visibly."""
    red, green, blue = ((c + 10) * factor - 10 if factor < 1 else c + (255 - c) * (factor - 1) for c in rgb)
    return max(0, min(255, round(red))), max(0, min(255, round(green))), max(0, min(255, round(blue)))


def mixed(first: Rgb, second: Rgb, share: float) -> Rgb:
    """Mixes `share` of the second colour into the first."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue
