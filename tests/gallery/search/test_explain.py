"""Contributions of words against scores without them, and of regions with an encoder whose contributions are known."""

import io

import numpy as np
import pytest
from PIL import Image

from tbps.errors import QueryError, UnknownIdError
from tbps.gallery.gallery import Gallery
from tbps.gallery.search.explain import ANYBODY, MOST_WORDS, Explanation, Word
from tbps.gallery.search.explain_picture import draw_explanation
from tbps.gallery.search.query import Query, Text
from tests.support.colour_encoder import CONTEXT, ColourEncoder, write_pictures

MODEL = ColourEncoder()


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    folder = tmp_path_factory.mktemp("explain")
    gallery = Gallery.open(folder / "gallery", MODEL)
    gallery.add(write_pictures(folder / "photos", 4), [{"camera": "lobby" if n % 2 else "yard"} for n in range(4)])
    return gallery


def stored(gallery: Gallery, name: str) -> np.ndarray:
    """The unit embedding of an image of the gallery."""
    row = MODEL.encode_images([Image.open(path)])[0] if (path := gallery.image(name).path) else np.zeros(0)
    return row / np.linalg.norm(row)


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


@pytest.mark.parametrize("text", ["a red coat", "coat", "Caf\u00e9 &amp; \u201cred\u201d coat \U0001f600, blue", "red " * 3])
def test_the_contribution_of_a_word_is_the_loss_of_score_without_it(gallery: Gallery, text: str) -> None:
    query = Query(texts=(Text(text=text), Text(text="blue bag", weight=-0.5)))
    hit = gallery.find(query).hits[0]
    told, image = gallery.explain(query, hit.id), stored(gallery, hit.id)
    assert told.score == pytest.approx(hit.score, abs=1e-3)
    expected = []
    for each in query.texts:
        words = each.text.split()
        whole = cosine(MODEL.encode_texts([" ".join(words)])[0], image)
        for at, word in enumerate(words):
            shorter = " ".join(words[:at] + words[at + 1 :]) or ANYBODY
            expected.append((each.text, word, each.weight * (whole - cosine(MODEL.encode_texts([shorter])[0], image))))
    assert [(w.text, w.word) for w in told.words] == [(text, word) for text, word, _ in expected]
    # The gallery stores embeddings as float16.
    assert [w.weight for w in told.words] == pytest.approx([weight for _, _, weight in expected], abs=2e-3)


def test_a_long_description_is_explained_part_by_part(gallery: Gallery) -> None:
    words = [f"word{number}" for number in range(CONTEXT + 10)]
    query = Query(texts=(Text(text=" ".join(words)),))
    hit = gallery.find(query).hits[0]
    told, image = gallery.explain(query, hit.id), stored(gallery, hit.id)
    assert [word.word for word in told.words] == words

    def score(left: list[str]) -> float:
        parts = [part for part in ([w for w in words[:CONTEXT] if w in left], [w for w in words[CONTEXT:] if w in left]) if part]
        return cosine(MODEL.encode_texts([" ".join(part) for part in parts]).mean(0), image)

    expected = [score(words) - score([w for w in words if w != word]) for word in words]
    assert [word.weight for word in told.words] == pytest.approx(expected, abs=2e-3)


def test_regions_are_the_positive_contributions(gallery: Gallery) -> None:
    query = Query(texts=(Text(text="a red coat"),))
    hit = gallery.find(query).hits[0]
    told = gallery.explain(query, hit.id)
    direction = MODEL.encode_texts(["a red coat"])[0]
    carried = np.maximum(MODEL.carried(Image.open(hit.path), direction), 0)  # type: ignore[arg-type]
    assert told.regions.shape == (8, 4) and told.regions.max() == 1 and told.regions.min() >= 0
    # Regions are computed from the thumbnail, which is compressed once more.
    assert np.corrcoef(told.regions.ravel(), carried.ravel())[0, 1] > 0.99
    drawn = draw_explanation(told, hit.thumbnail)
    assert drawn.height > 400 and drawn.width > drawn.height


def test_the_picture_has_a_heat_map_of_regions_and_words_coloured_by_sign() -> None:
    regions = np.zeros((8, 4))
    regions[4:, :] = 1
    words = tuple(Word(text, word, weight) for text, word, weight in [("red coat", "red", 0.1), ("bag", "bag", -0.1)])
    buffer = io.BytesIO()
    Image.new("RGB", (64, 112), (128, 128, 128)).save(buffer, "JPEG")
    drawn = np.asarray(draw_explanation(Explanation(0.5, words, regions), buffer.getvalue())).astype(int)
    left, height = 24 + 256 + 20, 448
    cold, hot = drawn[24 + height // 8, left + 128], drawn[24 + 7 * height // 8, left + 128]
    assert np.ptp(cold) < 5 and hot[0] > hot[1] + 80
    panel = drawn[:, left + 256 :]
    green, red = panel[..., 1] - panel[..., 0], panel[..., 0] - panel[..., 1]
    first, second = (np.flatnonzero((tint > 40).any(1)).min() for tint in (green, red))
    assert first < second  # in the order of the query
    without = np.asarray(draw_explanation(Explanation(0.5, (), regions), buffer.getvalue())).astype(int)[:, left + 256 :]
    assert np.ptp(without, axis=2).max() == 0


def test_images_without_words_are_explained_by_regions(gallery: Gallery) -> None:
    first, second = (hit.id for hit in gallery.search("red", k=2))
    told = gallery.explain(Query.parse({"like": [{"id": second}]}), first)
    assert not told.words and told.regions.max() == 1


def test_queries_that_cannot_be_explained_are_refused(gallery: Gallery) -> None:
    query = Query(texts=(Text(text="red"),))
    name = gallery.search("red", where="camera = 'lobby'")[0].id
    with pytest.raises(UnknownIdError, match="no-such"):
        gallery.explain(query, "no-such")
    with pytest.raises(UnknownIdError, match=name):
        gallery.explain(query, name, within=("yard",))
    with pytest.raises(QueryError, match=f"{MOST_WORDS + 1} words"):
        gallery.explain(Query(texts=(Text(text="red " * (MOST_WORDS + 1)),)), name)
    with pytest.raises(QueryError, match="nothing is sought"):
        gallery.explain(Query(), name)


def test_the_picture_marks_avoided_descriptions() -> None:
    """The picture changes only in the line of the avoided description."""
    buffer = io.BytesIO()
    Image.new("RGB", (64, 112), "gray").save(buffer, "JPEG")
    regions = np.zeros((2, 2))

    def panel(*avoided: bool) -> np.ndarray:
        words = [Word(f"coat {number}", "coat", 0.0, avoids) for number, avoids in enumerate(avoided)]
        return np.asarray(draw_explanation(Explanation(0.5, tuple(words), regions), buffer.getvalue()).convert("L")).astype(int)

    neither = panel(False, False)
    first, second = (np.flatnonzero((neither != other).any(axis=1)) for other in (panel(True, False), panel(False, True)))
    assert first.size and second.size and first.max() < second.min()


def test_words_of_avoided_descriptions_are_marked(gallery: Gallery) -> None:
    hit = gallery.search("red")[0]
    told = gallery.explain(Query(texts=(Text(text="red coat"), Text(text="blue bag", weight=-0.5))), hit.id)
    assert [(word.word, word.avoided) for word in told.words] == [("red", False), ("coat", False), ("blue", True), ("bag", True)]
