"""`Gallery.search`, `search_image` and `search_embedding` return the same hits as `Gallery.find`."""

from pathlib import Path

import numpy as np
import pytest

from tbps.errors import QueryError
from tbps.gallery.gallery import Gallery
from tbps.gallery.search.query import Query, Text
from tbps.preprocess.image import open_image
from tests.support.colour_encoder import CONTEXT, ColourEncoder, write_pictures

LONG = " ".join(f"word{number}" for number in range(2 * CONTEXT))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_pictures(tmp_path_factory.mktemp("one-search") / "photos", 25)


@pytest.fixture(scope="module")
def gallery(photos: list[Path]) -> Gallery:
    gallery = Gallery.open(photos[0].parents[1] / "gallery", ColourEncoder())
    gallery.add(photos[0].parent)
    return gallery


@pytest.mark.parametrize("where", [None, "source > '0010.jpg'"])
@pytest.mark.parametrize("text", ["a man in a red coat", LONG, f"{LONG}. A bag.", "\u7ea2\u8863" * 50, "x" * 2000])
def test_a_text_of_any_length_is_searched_as_by_find(text: str, where: str | None, gallery: Gallery) -> None:
    page = gallery.find(Query(texts=(Text(text=text),), k=7, where=where))
    assert gallery.search(text, 7, where) == list(page.hits) and len(page.hits) == 7


def test_every_part_of_a_long_text_counts(gallery: Gallery, photos: list[Path]) -> None:
    model = ColourEncoder()
    words = LONG.split()
    first, second = model.encode_texts([" ".join(words[:CONTEXT]), " ".join(words[CONTEXT:])]).astype(float)
    vector = (first + second) / np.linalg.norm(first + second)
    scores = model.encode_images([open_image(path) for path in photos]).astype(float) @ vector
    hits = gallery.search(LONG, k=25)
    assert [hit.source for hit in hits] == [photos[number].name for number in np.argsort(-scores)]
    assert [hit.score for hit in hits] == pytest.approx(sorted(scores, reverse=True), abs=1e-6)
    assert gallery.find(Query(texts=(Text(text=LONG),))).notices == (
        "the description is longer than the model reads at once; 2 parts of it were averaged",
    )


def test_a_picture_and_its_embedding_are_searched_as_by_find(gallery: Gallery, photos: list[Path]) -> None:
    embedding = ColourEncoder().encode_images([open_image(photos[3])])[0]
    hits = gallery.search_image(photos[3], 5, "source > '0001.jpg'")
    assert hits == list(gallery.find(Query(k=5, where="source > '0001.jpg'"), [photos[3]]).hits)
    assert hits[0].source == "0003.jpg"
    by_embedding = gallery.search_embedding(10 * embedding, 5, "source > '0001.jpg'")
    assert [hit.id for hit in by_embedding] == [hit.id for hit in hits]
    assert [hit.score for hit in by_embedding] == pytest.approx([hit.score for hit in hits], abs=1e-6)


def test_a_picture_and_an_embedding_in_one_query(gallery: Gallery, photos: list[Path]) -> None:
    rows = ColourEncoder().encode_images([open_image(path) for path in photos]).astype(float)
    mixed = gallery.find(Query(k=25), [photos[3], rows[4], photos[5]])
    vector = rows[3] + rows[4] + rows[5]
    scores = rows @ (vector / np.linalg.norm(vector))
    assert [hit.score for hit in mixed.hits] == pytest.approx(sorted(scores, reverse=True), abs=1e-6)


def test_more_hits_than_fit_on_a_page(gallery: Gallery) -> None:
    assert len(gallery.search("a man", k=20_000)) == 25
    with pytest.raises(QueryError, match="k is -1; ask for at least one hit"):
        gallery.search_image(np.zeros(24), -1)  # type: ignore[arg-type]  # the array is not a picture, but k is checked first
