"""A split of five single-colour images whose captions spell the colour, and two encoders that find it by that."""

from pathlib import Path

import numpy as np
from PIL import Image

from tbps.data.records import PersonDataset, PersonImage
from tbps.preprocess.image import ImageSpec

SPEC = ImageSpec(height=8, width=4)
COLOURS = [(200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 200, 0), (0, 200, 200)]


def coloured_split(folder: Path) -> PersonDataset:
    """Five single-colour images of three people with 2, 1, 1, 2 and 1 captions, which spell the colour in numbers."""
    images = []
    for number, colour in enumerate(COLOURS):
        Image.new("RGB", (5, 9), colour).save(folder / f"{number}.png")
        captions = (" ".join(map(str, colour)),) * (1 + (number % 3 == 0))
        images.append(PersonImage(folder / f"{number}.png", (7, 7, 8, 9, 9)[number], "test", captions))
    return PersonDataset("folder", folder, tuple(images))


def mean_colour(arrays: np.ndarray) -> np.ndarray:
    """Encode images (n, H, W, 3) by their mean colour (n, 3)."""
    return arrays.mean(axis=(1, 2)).astype(np.float32)


def spelled_colour(captions: list[str]) -> np.ndarray:
    """Encode captions by the three numbers that they are made of (n, 3)."""
    return np.array([caption.split() for caption in captions], dtype=np.float32)
