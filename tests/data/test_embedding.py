"""Embedding a split: order of rows, broken images, empty splits, shapes."""

from pathlib import Path

import pytest
from jaxtyping import TypeCheckError

from tbps.data.embedding import decoded, embed_split, identities
from tbps.data.records import PersonDataset
from tbps.errors import EvaluationError, ImageError
from tests.support.coloured_split import COLOURS, SPEC, coloured_split, mean_colour, spelled_colour


@pytest.fixture
def split(tmp_path: Path) -> PersonDataset:
    return coloured_split(tmp_path)


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
