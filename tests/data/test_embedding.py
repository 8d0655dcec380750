"""Embedding a split: order of rows, broken images, empty splits, shapes."""

from pathlib import Path

import numpy as np
import pytest
from jaxtyping import TypeCheckError
from PIL import Image

from tbps.data.embedding import decoded, embed_split, identities
from tbps.data.records import PersonDataset, PersonImage
from tbps.errors import EvaluationError, ImageError
from tbps.preprocess.image import ImageSpec

SPEC = ImageSpec(height=8, width=4)
COLOURS = [(200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 200, 0), (0, 200, 200)]


@pytest.fixture
def split(tmp_path: Path) -> PersonDataset:
    """Five single-colour images of three people with 2, 1, 1, 2 and 1 captions, which spell the colour in numbers."""
    images = []
    for number, colour in enumerate(COLOURS):
        Image.new("RGB", (5, 9), colour).save(tmp_path / f"{number}.png")
        captions = (" ".join(map(str, colour)),) * (1 + (number % 3 == 0))
        images.append(PersonImage(tmp_path / f"{number}.png", (7, 7, 8, 9, 9)[number], "test", captions))
    return PersonDataset("folder", tmp_path, tuple(images))


def mean_colour(arrays: np.ndarray) -> np.ndarray:
    return arrays.mean(axis=(1, 2)).astype(np.float32)


def spelled_colour(captions: list[str]) -> np.ndarray:
    return np.array([caption.split() for caption in captions], dtype=np.float32)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 64])
def test_rows_are_in_the_order_of_pairs_and_images(split: PersonDataset, batch_size: int) -> None:
    done: list[tuple[int, int]] = []
    arrays = decoded(split.images, SPEC, batch_size)
    text, image = embed_split(split, arrays, mean_colour, spelled_colour, lambda *numbers: done.append(numbers))
    assert image.tolist() == [list(colour) for colour in COLOURS]
    assert text.tolist() == [list(COLOURS[pair.image]) for pair in split.pairs()]
    assert done[-1] == (5, 5)
    text_ids, image_ids = identities(split)
    assert (text_ids.tolist(), image_ids.tolist()) == ([7, 7, 7, 8, 9, 9, 9], [7, 7, 8, 9, 9])


def test_a_broken_image_is_named(split: PersonDataset) -> None:
    split.images[3].path.write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"3\.png"):
        list(decoded(split.images, SPEC))


def test_an_empty_split_is_refused(split: PersonDataset) -> None:
    empty = split.split("train")
    with pytest.raises(EvaluationError, match="no images; choose another with --split"):
        embed_split(empty, decoded(empty.images, SPEC), mean_colour, spelled_colour)


def test_rows_of_another_shape_are_refused(split: PersonDataset, request: pytest.FixtureRequest) -> None:
    if "tbps.data.embedding" not in (request.config.getoption("jaxtyping_packages") or ""):
        pytest.skip("shapes are checked with --jaxtyping-packages=tbps.data.embedding,...,beartype.beartype")
    with pytest.raises(TypeCheckError):
        embed_split(split, decoded(split.images, SPEC), lambda arrays: mean_colour(arrays)[:, :2], spelled_colour)
