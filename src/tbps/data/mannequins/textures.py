"""Surface textures: noise tiles of light for skin, cloth, denim, knit, leather, hair and padding.

Each material has a number; the tile of that number is added to the light where the material is visible. Tiles are made once per
process from a fixed seed, and shifted at random for each image.
"""

from functools import cache

import numpy as np
from jaxtyping import Float32

from tbps.seeding import generator

NOTHING, SKIN, CLOTH, DENIM, KNIT, LEATHER, HAIR, PADDING = range(8)
TILE = 640  # pixels; larger than any crop, so that a tile never repeats in one


@cache
def tiles() -> Float32[np.ndarray, "materials TILE TILE"]:
    """Returns the light to add, about -0.3 .. 0.3; exactly 0 for `NOTHING`."""
    rng = generator(0, "mannequins", "textures")
    folds = _blurred(rng, (18, 5)) + 0.6 * _blurred(rng, (6, 3))
    made = np.zeros((8, TILE, TILE), dtype=np.float32)
    made[SKIN] = 0.016 * _blurred(rng, (3, 3))
    made[CLOTH] = 0.034 * folds + 0.012 * rng.standard_normal((TILE, TILE))
    made[DENIM] = 0.035 * folds + 0.05 * _blurred(rng, (14, 8)) + 0.028 * _twill(rng)
    made[KNIT] = 0.03 * folds + 0.1 * _stitches()
    made[LEATHER] = 0.032 * _blurred(rng, (7, 5)) + 0.05 * np.maximum(_blurred(rng, (12, 6)), 0.6)
    made[HAIR] = 0.1 * _blurred(rng, (14, 1)) + 0.06 * _blurred(rng, (8, 2))
    made[PADDING] = 0.045 * _blurred(rng, (4, 9)) + 0.04 * _blurred(rng, (3, 3))
    made -= made.mean(axis=(1, 2), keepdims=True)
    made[NOTHING] = 0
    return made


def _blurred(rng: np.random.Generator, radii: tuple[int, int]) -> np.ndarray:
    """Returns smooth noise of unit variance: white noise, box-blurred twice along each axis (periodic)."""
    noise = rng.standard_normal((TILE, TILE))
    for axis, radius in enumerate(radii):
        for _ in range(2):
            noise = np.sum([np.roll(noise, shift, axis) for shift in range(-radius // 2, radius // 2 + 1)], axis=0)
    return np.asarray(noise / noise.std())


def _twill(rng: np.random.Generator) -> np.ndarray:
    """Returns diagonal ribs with irregular strength."""
    y, x = np.mgrid[:TILE, :TILE]
    return np.asarray(np.sin((x + y) * 1.9) * (0.6 + 0.4 * _blurred(rng, (3, 3))))


def _stitches() -> np.ndarray:
    """Returns columns of V-shaped stitches, four pixels wide."""
    y, x = np.mgrid[:TILE, :TILE]
    return np.asarray(np.sin(x * (2 * np.pi / 4.0)) * 0.8 + 0.5 * np.sin((y + 2 * np.abs(x % 4 - 2)) * (2 * np.pi / 5.0)))
