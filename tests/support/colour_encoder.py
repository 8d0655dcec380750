"""Small implementation of the `Encoder` protocol for tests of galleries and services.

The embedding of an image is a random projection of its colours on a grid of 8 x 4 cells; that of a text is the sum of one random
vector per word.
"""

import time
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from tbps.preprocess.image import ImageSpec

DIM = 24
CONTEXT = 30  # words


class ColourEncoder:
    """Encoder with random weights; different seeds are different models. `delay`: extra seconds per batch of images."""

    def __init__(self, seed: int = 0, delay: float = 0.0) -> None:
        self.name = f"colours-{seed}"
        self.folder: Path | None = None
        self.fingerprint = f"{seed:016x}"
        self.dim = DIM
        self.spec = ImageSpec(height=32, width=16)
        self._delay = delay
        self._projection = np.random.default_rng(seed).standard_normal((8 * 4 * 3, DIM))

    def encode_images(self, images: Sequence[Image.Image], batch_size: int = 64) -> np.ndarray:
        time.sleep(self._delay)
        size = (self.spec.width, self.spec.height)
        grids = [np.asarray(i.convert("RGB").resize(size, Image.Resampling.BICUBIC).resize((4, 8)), float) for i in images]
        rows = (np.stack(grids).reshape(len(images), -1) - 127.3) @ self._projection
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    def encode_texts(self, texts: Sequence[str], batch_size: int = 256) -> np.ndarray:
        rows = np.stack(
            [
                sum(np.random.default_rng(zlib.crc32(word.encode())).standard_normal(DIM) for word in text.lower().split())
                for text in texts
            ]
        )
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    def carried(self, image: Image.Image, vector: np.ndarray) -> np.ndarray:
        """(8, 4) contributions of the cells to the cosine; the embedding is linear in the cells, so they add up exactly."""
        grid = np.asarray(image.convert("RGB").resize((16, 32), Image.Resampling.BICUBIC).resize((4, 8)), float) - 127.3
        length = np.linalg.norm(grid.reshape(-1) @ self._projection)
        return (grid * (self._projection @ vector).reshape(8, 4, 3)).sum(2).astype(np.float32) / np.float32(length)

    def is_cut(self, text: str) -> bool:
        return len(text.split()) > CONTEXT


def write_pictures(folder: Path, count: int, seed: int = 0, size: tuple[int, int] = (16, 32)) -> list[Path]:
    """Write different small JPEG files 0000.jpg, 0001.jpg, ... of random coloured blocks."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    paths = []
    for number in range(count):
        blocks = Image.fromarray(rng.integers(0, 256, (8, 4, 3), np.uint8))
        paths.append(folder / f"{number:04d}.jpg")
        blocks.resize(size, Image.Resampling.NEAREST).save(paths[-1], quality=92)
    return paths
