"""Embeddings files: saving and opening, refused files, and the model's metrics relative to chance and ceiling."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from jaxtyping import TypeCheckError

from tbps.data.embedding import decoded, describe_source, embed_split, identities
from tbps.data.mannequins.ceiling import ceiling_scores
from tbps.data.records import PersonDataset
from tbps.errors import EvaluationError
from tbps.evaluation import Embeddings, score
from tests.support.coloured_split import SPEC, coloured_split, mean_colour, spelled_colour


@pytest.fixture
def split(tmp_path: Path) -> PersonDataset:
    return coloured_split(tmp_path)


def embedded(split: PersonDataset) -> Embeddings:
    rows = embed_split(split, decoded(split.images, SPEC), mean_colour, spelled_colour)
    return Embeddings(*rows, *identities(split), "model", describe_source(split, "test"))


def test_a_saved_file_is_restored(split: PersonDataset, tmp_path: Path) -> None:
    given = embedded(split)
    given.save(tmp_path / "test.safetensors")
    read = Embeddings.load(tmp_path / "test.safetensors")
    for name in ("text", "image", "text_ids", "image_ids"):
        assert np.array_equal(getattr(read, name), getattr(given, name)) and getattr(read, name).dtype == getattr(given, name).dtype
    assert read.model == "model"
    assert json.loads(read.source) == {"data": "folder", "split": "test", "images": 5, "captions": 7}
    assert score(read).model == score(given).model


@pytest.mark.parametrize("content", [b"", b"{}", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      ", None])
def test_foreign_files_are_refused(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "foreign.safetensors"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(EvaluationError, match=r"foreign\.safetensors holds no embeddings .*tbps embed"):
        Embeddings.load(file)


def test_embeddings_of_other_lengths_than_their_identities_are_refused(split: PersonDataset) -> None:
    with pytest.raises((EvaluationError, TypeCheckError), match=r"4 image identities|Type-check error"):
        score(replace(embedded(split), image_ids=np.array([7, 7, 8, 9])))


def test_standing_between_chance_and_ceiling(split: PersonDataset) -> None:
    assert ceiling_scores(split) is None and score(embedded(split)).share_of_ceiling is None
    known = [
        replace(image, attributes={"attributes": {"colour": str(n)}, "mentions": [{"colour": [str(n)]}] * len(image.captions)})
        for n, image in enumerate(split.images)
    ]
    standing = score(embedded(split), ceiling_scores(replace(split, images=tuple(known))))
    assert standing.model.r1 == standing.ceiling.r1 == 100 and standing.share_of_ceiling == 1
    assert 0 < standing.chance.r1 < 50


def test_the_pytest_option_checks_shapes(split: PersonDataset, request: pytest.FixtureRequest) -> None:
    if "tbps.evaluation" not in (request.config.getoption("jaxtyping_packages") or ""):
        pytest.skip("shapes are checked with --jaxtyping-packages=tbps.evaluation,...,beartype.beartype")
    given = embedded(split)
    for changes in ({"text_ids": given.text_ids[:3]}, {"image": given.image[:, :2]}, {"text": given.text.astype(np.float64)}):
        with pytest.raises(TypeCheckError):
            replace(given, **changes)
