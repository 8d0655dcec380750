"""Composed queries, pages, groups, marked results and re-ranking, each against a direct computation."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tbps.errors import ModelError, QueryError
from tbps.gallery.encoder import Encoder
from tbps.gallery.gallery import Gallery
from tbps.gallery.search.calibration import CALIBRATION_FILE, Calibration, calibration_of
from tbps.gallery.search.page import Page
from tbps.gallery.search.parts import split_long
from tbps.gallery.search.query import Example, Query, Text
from tbps.gallery.search.rerank import final_distances, reranked
from tbps.gallery.store.hit import Hit
from tbps.gallery.store.manifest import recorded
from tbps.model.bundle import load
from tbps.model.text_reader import TextReader
from tbps.preprocess.image import open_image
from tests.support.colour_encoder import CONTEXT, ColourEncoder, write_pictures

COUNT = 120


def _columns() -> list[dict[str, Any]]:
    rng = np.random.default_rng(1)
    rows = []
    for number in range(COUNT):
        row: dict[str, Any] = {"file_name": f"{number:04d}.jpg", "camera": f"c{rng.integers(4)}"}
        row["captured_at"] = f"2024-05-{1 + int(rng.integers(28)):02d}T08:00:00"
        if rng.random() < 0.8:
            row["tracklet"] = f"t{rng.integers(25)}"
        if rng.random() < 0.5:
            del row["captured_at"]
        rows.append(row)
    return rows


ROWS = _columns()


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    folder = tmp_path_factory.mktemp("find")
    write_pictures(folder / "photos", COUNT)
    (folder / "photos" / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    gallery = Gallery.open(folder / "gallery", ColourEncoder())
    gallery.add(folder / "photos")
    return gallery


@pytest.fixture(scope="module")
def images(gallery: Gallery) -> np.ndarray:
    folder = gallery.path.parent / "photos"
    return ColourEncoder().encode_images([open_image(folder / row["file_name"]) for row in ROWS]).astype(float)


def _texts(*texts: str) -> np.ndarray:
    return ColourEncoder().encode_texts(texts).astype(float)


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def _numbers(page: Page) -> list[int]:
    return [int(hit.source.removesuffix(".jpg")) for hit in page.hits]


def _all(gallery: Gallery) -> dict[int, Hit]:
    return {int(hit.source.removesuffix(".jpg")): hit for hit in gallery.search("someone", COUNT)}


def _ranked(images: np.ndarray, vector: np.ndarray) -> list[int]:
    return np.argsort(-(images @ vector), kind="stable").tolist()


def test_the_vector_of_a_query_is_the_documented_sum(gallery: Gallery, images: np.ndarray) -> None:
    ids = {number: hit.id for number, hit in _all(gallery).items()}
    picture = Image.new("RGB", (16, 32), "red")
    query = Query(
        texts=(Text(text="red coat", weight=2), Text(text="backpack", weight=-0.5)),
        like=(Example(id=ids[5], weight=0.7), Example(id=ids[6], weight=-0.2)),
        picture_weight=0.3,
        right=(ids[8], ids[9]),
        wrong=(ids[20],),
        k=COUNT,
    )
    coat, bag = _texts("red coat", "backpack")
    given = ColourEncoder().encode_images([picture])[0].astype(float)
    sought = _unit(2 * coat - 0.5 * bag + 0.7 * images[5] - 0.2 * images[6] + 0.3 * given)
    expected = _unit(1.0 * sought + 1.0 * (images[8] + images[9]) / 2 - 0.25 * images[20])
    page = gallery.find(query, [picture])
    assert _numbers(page) == _ranked(images, expected)
    assert [hit.score for hit in page.hits] == pytest.approx(sorted(images @ expected, reverse=True), abs=1e-6)
    assert page.line is None and page.notices == () and page.total == COUNT and page.next is None and not page.approximate


def test_a_query_of_one_text_equals_search(gallery: Gallery) -> None:
    page = gallery.find(Query(texts=(Text(text="a man", weight=3),), where="camera = 'c1'", k=7))
    plain = gallery.search("a man", 7, "camera = 'c1'")
    assert [hit.id for hit in page.hits] == [hit.id for hit in plain]
    assert [hit.score for hit in page.hits] == pytest.approx([hit.score for hit in plain], abs=1e-7)


def test_marked_images_alone_are_a_query(gallery: Gallery, images: np.ndarray) -> None:
    ids = {number: hit.id for number, hit in _all(gallery).items()}
    assert _numbers(gallery.find(Query(right=(ids[3],), k=COUNT))) == _ranked(images, images[3])


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (Query(), "nothing is sought"),
        (Query(texts=(Text(text="bag", weight=-1),)), "nothing is sought"),
        (Query(texts=(Text(text="x"), Text(text="..."))), "the query has no word"),
        (Query(texts=(Text(text="x"), Text(text="x", weight=-1))), "cancel each other out"),
        (Query(like=(Example(id="0" * 24),)), "no image of the gallery has the id '0+'"),
        (Query(texts=(Text(text="x"),), group="colour"), "unknown column 'colour' to group by. Columns: id, source"),
        (Query(texts=(Text(text="x"),), version=1), "version 1 of the gallery is no longer kept"),
    ],
)
def test_queries_that_cannot_be_answered_are_refused(query: Query, expected: str, gallery: Gallery) -> None:
    with pytest.raises(QueryError, match=expected):
        gallery.find(query)


@pytest.mark.parametrize(
    "more", [{}, {"group": "tracklet"}, {"rerank": 30}, {"where": "camera <> 'c0'"}, {"rerank": 50, "group": "camera"}]
)
def test_joined_pages_equal_one_long_page(more: dict[str, Any], gallery: Gallery) -> None:
    whole = gallery.find(Query(texts=(Text(text="a man"),), k=COUNT, **more))
    joined: list[Hit] = []
    query: Query | None = Query(texts=(Text(text="a man"),), k=7, **more)
    while query is not None:
        page = gallery.find(Query.parse(query.model_dump(mode="json")))
        assert page.total == whole.total
        joined += page.hits
        query = page.next
    assert joined == list(whole.hits) and len(joined) == whole.total
    assert gallery.find(Query(texts=(Text(text="a man"),), offset=COUNT, **more)).hits == ()


def _noise(first: int, count: int) -> list[Image.Image]:
    return [Image.fromarray(np.random.default_rng(n).integers(0, 256, (8, 4, 3), np.uint8)) for n in range(first, first + count)]


def test_later_pages_come_from_the_version_of_the_first_and_equal_scores_keep_their_order(tmp_path: Path) -> None:
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    flat = np.full((32, 16, 3), 90, np.uint8)
    twins = [Image.fromarray(flat[: 32 - number]) for number in range(9)]  # different pictures with the same embedding
    gallery.add([*twins, *_noise(0, 30)])
    query = Query(like=(Example(id=gallery.search_image(twins[0], 1)[0].id),), k=4)
    pages = [gallery.find(query)]
    assert len({hit.score for hit in pages[0].hits}) == 1
    gallery.add(_noise(100, 2))
    assert gallery.find(query).total == 41
    while (following := pages[-1].next) is not None:
        pages.append(gallery.find(following))
        gallery.find(query)
    assert {(page.version, page.total) for page in pages} == {(pages[0].version, 39)}
    shown = [hit.id for page in pages for hit in page.hits]
    assert len(shown) == len(set(shown)) == 39
    assert shown[:9] == sorted(shown[:9])
    gallery.add(_noise(200, 60))  # enough rows that the table is rewritten and files of older versions are deleted
    assert pages[0].next is not None
    with pytest.raises(QueryError, match="is no longer kept"):
        gallery.find(pages[0].next)


def test_groups_equal_those_of_a_loop_over_all_images(gallery: Gallery, images: np.ndarray) -> None:
    every, vector = _all(gallery), _texts("a man")[0]
    passing = [number for number in _ranked(images, vector) if ROWS[number]["camera"] != "c0"]
    groups: dict[Any, list[int]] = {}
    for number in passing:
        groups.setdefault(ROWS[number].get("tracklet", ("alone", number)), []).append(number)
    page = gallery.find(Query(texts=(Text(text="a man"),), group="tracklet", where="camera <> 'c0'", k=COUNT))
    assert page.total == len(groups) == len(page.hits)
    for hit, (value, members) in zip(page.hits, groups.items(), strict=True):
        times = sorted(ROWS[number]["captured_at"] for number in members if "captured_at" in ROWS[number])
        assert hit.id == every[members[0]].id and hit.group is not None
        assert hit.group.value == (None if isinstance(value, tuple) else value)
        assert hit.group.count == len(members)
        assert hit.group.ids == tuple(every[number].id for number in members)
        assert (hit.group.first_seen, hit.group.last_seen) == ((times[0], times[-1]) if times else (None, None))
    assert [hit.rank for hit in page.hits] == list(range(1, len(groups) + 1))
    json.dumps(page.as_dict())


def test_groups_by_time_and_number_are_json_values(gallery: Gallery) -> None:
    page = gallery.find(Query(texts=(Text(text="a man"),), group="captured_at", k=5))
    assert json.loads(json.dumps(page.as_dict()))["hits"][0]["group"]["column"] == "captured_at"


def _literal_reranking(distances: np.ndarray, k1: int, k2: int, weight: float) -> list[float]:
    """Re-ranking of Zhong et al. with Python sets, one node at a time; numbers are those of their equations."""
    count = len(distances)
    scaled = [[distances[j][i] / max(row[i] for row in distances) for j in range(count)] for i in range(count)]
    order = [sorted(range(count), key=lambda j, i=i: scaled[i][j]) for i in range(count)]

    def reciprocal(node: int, k: int) -> set[int]:  # (3)
        return {other for other in order[node][: k + 1] if node in order[other][: k + 1]}

    vectors = []
    for node in range(count):
        own = reciprocal(node, k1)
        expanded = set(own)  # (4)
        for other in own:
            theirs = reciprocal(other, round(k1 / 2))
            if len(theirs & own) > 2 / 3 * len(theirs):
                expanded |= theirs
        weights = [np.exp(-scaled[node][j]) if j in expanded else 0.0 for j in range(count)]  # (7)
        vectors.append([w / sum(weights) for w in weights])
    averaged = [[sum(vectors[near][j] for near in order[node][:k2]) / k2 for j in range(count)] for node in range(count)]  # (11)
    final = []
    for node in range(1, count):
        least = sum(min(a, b) for a, b in zip(averaged[0], averaged[node], strict=True))
        most = sum(max(a, b) for a, b in zip(averaged[0], averaged[node], strict=True))
        final.append((1 - weight) * (1 - least / most) + weight * scaled[0][node])  # (10), (12)
    return final


@pytest.mark.parametrize(("nodes", "k1", "k2"), [(40, 20, 6), (25, 7, 3), (12, 5, 1), (8, 20, 6)])
def test_reranking_equals_the_slow_oracle(nodes: int, k1: int, k2: int) -> None:
    rng = np.random.default_rng(nodes)
    centres = rng.standard_normal((4, 16))
    rows = centres[rng.integers(4, size=nodes)] + 0.6 * rng.standard_normal((nodes, 16))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    distances = 2 - 2 * rows @ rows.T
    np.fill_diagonal(distances, 0)
    expected = _literal_reranking(distances, k1, min(k2, nodes), 0.3)
    assert final_distances(distances, k1, k2, 0.3) == pytest.approx(expected, abs=1e-12)


def test_reranking_improves_the_ranking_of_a_vague_description() -> None:
    rng = np.random.default_rng(0)
    person, others = rng.standard_normal(32), rng.standard_normal((40, 32))
    rows = np.concatenate([person + 0.3 * rng.standard_normal((6, 32)), others])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    query = _unit(person + 2.2 * rng.standard_normal(32))  # a vague description
    scores = rows @ query
    order = np.argsort(-scores)
    before = np.flatnonzero(order < 6).mean()
    again = order[reranked(scores[order], rows[order] @ rows[order].T, by_text=True)]
    assert np.flatnonzero(again < 6).mean() < before


def test_rerank_reorders_the_first_hits_only(gallery: Gallery, images: np.ndarray) -> None:
    plain = _numbers(gallery.find(Query(texts=(Text(text="a man"),), k=COUNT)))
    again = _numbers(gallery.find(Query(texts=(Text(text="a man"),), k=COUNT, rerank=40)))
    first = np.array(plain[:40])
    order = reranked(images[first] @ _texts("a man")[0], images[first] @ images[first].T, by_text=True)
    assert again[40:] == plain[40:]
    assert again[:40] == first[order].tolist() != plain[:40]


def test_a_long_description_is_split_at_sentences_clauses_and_words() -> None:
    model = ColourEncoder()
    sentence = "a tall woman with long dark hair walks to the left."
    clauses = ", ".join(f"{number} red bags in her right hand" for number in range(8))
    assert split_long(sentence, model).texts == (sentence,)
    assert split_long(f"{sentence} {sentence}", model).texts == (f"{sentence} {sentence}",)
    parts = split_long(f"{sentence} {clauses}. {sentence} {sentence}", model).texts
    assert parts[:2] == (sentence, ", ".join(clauses.split(", ")[:4]) + ",")
    assert all(len(part.split()) <= CONTEXT for part in parts)
    assert " ".join(parts) == f"{sentence} {clauses}. {sentence} {sentence}"
    words = " ".join(f"word{number}" for number in range(100))
    assert [len(part.split()) for part in split_long(words, model).texts] == [30, 30, 30, 10]
    assert " ".join(split_long(f"{words} !!! ... {words}", model).texts).count("word99") == 2


def test_a_long_description_is_averaged_with_a_notice(gallery: Gallery, images: np.ndarray) -> None:
    words = " ".join(f"word{number}" for number in range(40))
    page = gallery.find(Query(texts=(Text(text=words),), k=COUNT))
    first, second = _texts(" ".join(words.split()[:30]), " ".join(words.split()[30:]))
    assert _numbers(page) == _ranked(images, _unit(first + second))
    assert page.notices == ("the description is longer than the model reads at once; 2 parts of it were averaged",)


@pytest.fixture
def calibrated(tmp_path: Path) -> tuple[Gallery, Path]:
    """A gallery whose encoder is a folder with a calibration."""
    model = ColourEncoder()
    model.folder = tmp_path / "model"
    calibration = Calibration(
        model=model.fingerprint, source="", queries=1, images=1000, right=4.0, z=(-3.0, 1.0, 2.0), share=(0.0, 0.1, 0.9)
    )
    calibration.save(tmp_path / "model")
    write_pictures(tmp_path / "photos", 60)
    gallery = Gallery.open(tmp_path / "gallery", model)
    gallery.add(tmp_path / "photos")
    return gallery, tmp_path / "model" / CALIBRATION_FILE


def test_chances_and_cutoff_are_given_for_a_single_description_only(calibrated: tuple[Gallery, Path]) -> None:
    gallery, _ = calibrated
    page = gallery.find(Query(texts=(Text(text="a man"),), k=60))
    scores = np.array([hit.score for hit in page.hits])
    z = (scores - scores.mean()) / scores.std()
    share = np.interp(z, [-3, 1, 2], [0, 0.1, 0.9])
    odds = share / (1 - share) * (4 / 56) / (4 / 996)
    chances = odds / (1 + odds)
    assert [hit.chance for hit in page.hits] == pytest.approx(chances, abs=1e-4)
    expected = np.cumsum(chances) / np.arange(1, 61)
    assert page.line is not None and page.line.hits == int((expected >= 1 / 3).sum())
    assert page.line.share == pytest.approx(expected[page.line.hits - 1], abs=1e-4)
    later = gallery.find(Query(texts=(Text(text="a man"),), k=5, offset=20))
    assert later.line == page.line and later.hits == page.hits[20:25]
    filtered = gallery.find(Query(texts=(Text(text="a man"),), k=60, where="source < '0030'"))
    by_id = {hit.id: hit.chance for hit in page.hits}
    assert all(hit.chance == pytest.approx(by_id[hit.id]) for hit in filtered.hits)
    first = page.hits[0].id
    for more in ({"right": (first,)}, {"rerank": 10}, {"like": (Example(id=first),)}, {"texts": (Text(text="a"), Text(text="b"))}):
        other = gallery.find(Query(**{"texts": (Text(text="a man"),), **more}))
        assert other.line is None and all(hit.chance is None for hit in other.hits)


def test_a_calibration_that_is_damaged_or_foreign_is_refused(calibrated: tuple[Gallery, Path]) -> None:
    gallery, file = calibrated
    query = Query(texts=(Text(text="a man"),))
    values = json.loads(file.read_text())
    for change in ({"model": "other"}, {"share": [0.5, 0.4, 0.9]}, {"z": [1.0]}, {"right": 2000}, {"version": 2}):
        file.write_text(json.dumps(values | change))
        with pytest.raises(ModelError, match=r"calibration.json (is|belongs) .*tbps calibrate"):
            gallery.find(query)
    file.write_text("{")
    with pytest.raises(ModelError, match="is damaged"):
        gallery.find(query)
    file.unlink()
    assert gallery.find(query).line is None
    file.write_text(json.dumps(values))
    assert gallery.find(query).line is not None


@pytest.mark.parametrize("open_model", [load, lambda folder: TextReader.open(Path(folder))])
def test_a_calibration_is_found_from_another_working_directory(
    open_model: Callable[[str], Encoder], tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_model_folder, tmp_path / "here" / "model")
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    model = open_model("model")
    curve = Calibration(model=model.fingerprint, source="", queries=1, images=9, right=1.0, z=(0.0,), share=(0.5,))
    curve.save(Path("model"))
    assert calibration_of(model) == curve
    monkeypatch.chdir(tmp_path / "there")
    assert calibration_of(model) == curve
    write_pictures(tmp_path / "photos", 3)
    gallery = Gallery.open(tmp_path / "gallery", model)
    gallery.add(tmp_path / "photos")
    assert gallery.find(Query(texts=(Text(text="a man"),))).line is not None
    assert recorded(tmp_path / "gallery").encoder_location == str(tmp_path / "here" / "model")


def test_a_model_without_a_folder_takes_no_calibration_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ColourEncoder()
    curve = Calibration(model=model.fingerprint, source="", queries=1, images=9, right=1.0, z=(0.0,), share=(0.5,))
    curve.save(tmp_path / model.name)  # a folder in the working directory with the name of the model
    monkeypatch.chdir(tmp_path)
    assert calibration_of(model) is None
