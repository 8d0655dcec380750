"""A search within some cameras equals that of a gallery which holds these cameras only."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tbps.errors import DataError, QueryError, UnknownIdError
from tbps.gallery.gallery import Gallery
from tbps.gallery.ingest.footage import Footage
from tbps.gallery.ingest.sources.candidates import Named
from tbps.gallery.search.calibration import Calibration
from tbps.gallery.search.page import Page
from tbps.gallery.search.query import Example, Query, Text
from tests.support.colour_encoder import ColourEncoder, write_pictures

COUNT = 40
CAMERAS = ("lobby", "yard", "roof", None)
WITHIN = ("lobby", "roof", "no such camera")


def columns(number: int) -> dict[str, Any]:
    found: dict[str, Any] = {"camera": CAMERAS[number % 4], "identity": f"p{number % 7}", "age": number}
    if found["camera"] == "yard":
        found["fence"] = "red"
    if number % 3:
        found |= {"captured_at": f"2024-05-{1 + number % 28:02d}T08:00:00", "tracklet": f"t{number % 5}", "frame": 100 - number}
    return found


class Calibrated(ColourEncoder):
    """A model from a folder that holds a calibration."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        curve = Calibration(model=self.fingerprint, source="x", queries=1, images=40, right=2, z=(-3, 0, 3), share=(0, 0.05, 0.9))
        curve.save(folder)


@pytest.fixture(scope="module")
def galleries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gallery, Gallery]]:
    """A gallery of all images, and one with only the images of the scope's cameras."""
    folder = tmp_path_factory.mktemp("scope")
    pictures = write_pictures(folder / "photos", COUNT)
    (folder / "model").mkdir()
    model = Calibrated(folder / "model")
    whole, part = Gallery.open(folder / "whole", model), Gallery.open(folder / "part", model)
    whole.add(list(pictures), [columns(n) for n in range(COUNT)])
    inside = [n for n in range(COUNT) if columns(n)["camera"] in WITHIN]
    part.add([pictures[n] for n in inside], [columns(n) for n in inside])
    yield whole, part


def seen(page: Page) -> Page:
    """A page without its version numbers."""
    following = None if page.next is None else page.next.model_copy(update={"version": None})
    return replace(page, version=0, next=following)


TEXT = (Text(text="a red coat"),)


@pytest.mark.parametrize(
    "query",
    [
        Query(texts=TEXT, k=50),
        Query(texts=TEXT, k=3, offset=4),
        Query(texts=(*TEXT, Text(text="bag", weight=-0.5)), where="age > 7 and captured_at < '2024-05-20'"),
        Query(texts=TEXT, cameras=("lobby", "roof")),
        Query(texts=TEXT, equals={"camera": None}),
        Query(texts=TEXT, where="camera is null or camera = 'roof' or true", group="identity", k=5),
        Query(texts=TEXT, group="tracklet", since="2024-05-03"),
        Query(texts=TEXT, rerank=20, k=10),
        Query(texts=TEXT, where="age < 0"),
    ],
    ids=repr,
)
def test_a_scoped_search_equals_that_of_a_gallery_of_these_cameras(galleries: tuple[Gallery, Gallery], query: Query) -> None:
    whole, part = galleries
    found, expected = seen(whole.find(query, within=WITHIN)), seen(part.find(query))
    assert replace(found, line=None, hits=()) == replace(expected, line=None, hits=())
    assert [(h.id, h.rank, h.group) for h in found.hits] == [(h.id, h.rank, h.group) for h in expected.hits]
    assert [h.score for h in found.hits] == pytest.approx([h.score for h in expected.hits], abs=1e-6)
    assert [h.chance for h in found.hits] == [
        None if h.chance is None else pytest.approx(h.chance, abs=1e-5) for h in expected.hits
    ]


@pytest.mark.parametrize(
    "query",
    [
        Query(texts=TEXT, cameras=("yard", "roof")),
        Query(texts=TEXT, cameras=("loby",)),
        Query(texts=TEXT, equals={"camera": "yard"}),
        Query(texts=TEXT, equals={"fence": "red"}),
        Query(texts=TEXT, group="fence"),
        Query(texts=TEXT, group="fenced"),
        Query(texts=TEXT, where="fence = 'red'"),
        Query(texts=TEXT, where="fenc = 'red'"),
        Query(texts=TEXT, where="FENCE is null"),
        Query(texts=TEXT, where="fence > 3"),
        Query(texts=TEXT, where="age = 'old'"),
        Query(texts=TEXT, where="1 / cast(age - 5 as int) < 2"),  # divides by zero at an image of the yard
        Query(texts=TEXT, version=1_000_000),
    ],
    ids=repr,
)
def test_a_scoped_search_is_refused_like_that_of_a_gallery_of_these_cameras(
    galleries: tuple[Gallery, Gallery], query: Query
) -> None:
    """Only images of the yard have the column fence."""
    whole, part = galleries
    told = []
    for gallery, within in ((whole, WITHIN), (part, None), (part, WITHIN)):
        with pytest.raises(QueryError) as refused:
            gallery.find(query, within=within)
        told.append(str(refused.value).partition(", the newest")[0].partition("; search")[0])
        assert "yard" not in told[-1].replace("'yard'", "") and "fence (" not in told[-1]
    assert told[0] == told[2]
    assert told[0] == told[1] or "no such camera" in told[0]


def test_the_version_of_a_scope_changes_with_its_own_cameras_only(tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "photos", 12)
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    gallery.add(list(pictures[:6]), [{"camera": "lobby"}] * 6)
    whole, first = gallery.find(Query(texts=TEXT, k=2)), gallery.find(Query(texts=TEXT, k=2), within=("lobby",))
    assert first.next is not None and first.next.version == first.version
    for picture in pictures[6:11]:  # more versions than are kept
        gallery.add([picture], [{"camera": "yard"}])
    again = gallery.find(Query(texts=TEXT, k=2), within=("lobby",))
    assert again == first and gallery.find(Query(texts=TEXT)).version > whole.version
    following = gallery.find(first.next, within=("lobby",))
    assert [hit.rank for hit in following.hits] == [3, 4] and following.version == first.version
    gallery.add([pictures[11]], [{"camera": "lobby"}])
    assert gallery.find(Query(texts=TEXT), within=("lobby",)).version != first.version
    for version in (whole.version, 1, 2, 3, 4, 5, 6, 7):  # version numbers of the table are not valid within cameras
        with pytest.raises(QueryError, match=r"no longer kept; search again$"):
            gallery.find(Query(texts=TEXT, version=version), within=("lobby",))


def test_a_scope_without_cameras_is_empty(galleries: tuple[Gallery, Gallery]) -> None:
    whole, _ = galleries
    for query in (Query(texts=TEXT), Query(texts=TEXT, where="true"), Query(texts=TEXT, group="camera")):
        page = whole.find(query, within=())
        assert (page.hits, page.total) == ((), 0)
    summary = whole.summary(within=())
    assert summary is not None and (summary.images, summary.cameras, summary.first_seen) == (0, (), None)


def test_ids_outside_the_scope_are_unknown(galleries: tuple[Gallery, Gallery]) -> None:
    whole, part = galleries
    inside = {hit.id for hit in part.search("red", k=COUNT)}
    (other, *_) = [hit.id for hit in whole.search("red", k=COUNT) if hit.id not in inside]
    for query in (Query(like=(Example(id=other),)), Query(right=(other,)), Query(texts=TEXT, wrong=(other,))):
        whole.find(query)
        with pytest.raises(UnknownIdError) as refused:
            whole.find(query, within=WITHIN)
        with pytest.raises(UnknownIdError) as unknown:
            part.find(query)
        assert str(refused.value) == str(unknown.value)
    assert whole.image(other).id == other
    with pytest.raises(UnknownIdError):
        whole.image(other, within=WITHIN)


def test_image_and_tracklet_within_a_scope(galleries: tuple[Gallery, Gallery]) -> None:
    whole, part = galleries
    every = {hit.id: hit for hit in part.search("red", k=COUNT)}
    for name, hit in every.items():
        found = whole.image(name, within=WITHIN)
        assert replace(found, rank=hit.rank, score=hit.score, chance=hit.chance) == hit and found.score == 0
    for number in range(5):
        expected = [hit for hit in every.values() if hit.attributes.get("tracklet") == f"t{number}"]
        found_ids = [hit.id for hit in whole.tracklet(f"t{number}", within=WITHIN)]
        assert found_ids == [hit.id for hit in sorted(expected, key=lambda hit: hit.captured_at or "")]
    assert whole.tracklet("no such tracklet") == []


def test_the_summary_of_a_scope(galleries: tuple[Gallery, Gallery]) -> None:
    whole, part = galleries
    assert whole.summary(WITHIN) == part.summary()
    summary = whole.summary()
    assert summary is not None
    assert summary.cameras == (("lobby", 10), ("roof", 10), ("yard", 10), (None, 10))
    kinds = {column.name: column for column in summary.columns}
    assert kinds["identity"].values is not None and kinds["identity"].values[0] in ("p0", "p1", "p2", "p3", "p4")  # six of 40 each
    assert kinds["source"].values is None and "attributes" not in kinds


def test_a_new_version_has_its_own_rows(tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "photos", 4)
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    assert gallery.summary() is None
    gallery.add([pictures[0]], [{"camera": "lobby"}])
    query = Query(texts=TEXT, where="true")
    assert gallery.find(query, within=("lobby",)).total == 1
    gallery.add([pictures[1], pictures[2]], [{"camera": "lobby"}, {"camera": "yard"}])
    assert gallery.find(query, within=("lobby",)).total == 2
    gallery.forget(where="camera = 'lobby'")
    assert gallery.find(query, within=("lobby",)).total == 0
    assert gallery.find(query, within=("yard",)).total == 1


def test_adding_is_restricted_to_some_cameras(tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "photos", 4)
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    given: list[dict[str, Any]] = [{"camera": "yard"}, {"camera": "lobby"}, {}, {"camera": ["lobby"]}]
    report = gallery.add(list(pictures), given, footage=Footage(within=("lobby",)))
    assert report.added == 1
    assert [(name, "camera" in reason) for name, reason in report.failed] == [(p.name, True) for p in (pictures[0], *pictures[2:])]
    again = gallery.add([pictures[2]], [{}], footage=Footage(camera="lobby", within=("lobby",)))
    assert again.added == 1


def test_a_named_file_is_stored_with_its_name_and_without_its_folder(tmp_path: Path) -> None:
    (picture,) = write_pictures(tmp_path / "photos", 1)
    hidden = picture.rename(tmp_path / "0000")
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    assert gallery.add([Named("seen from the gate.jpg", hidden)], [{"camera": "gate"}]).added == 1
    (hit,) = gallery.search("red")
    assert (hit.source, hit.root, hit.path) == ("seen from the gate.jpg", "", None)
    with pytest.raises(DataError):
        gallery.add([])


@pytest.mark.parametrize("where", ["root = 'x'", "`model` is null", "camera = 'root' or Content_Hash > 'a'"])
def test_internal_columns_cannot_be_filtered_on(galleries: tuple[Gallery, Gallery], where: str) -> None:
    with pytest.raises(QueryError, match="unknown column"):
        galleries[0].find(Query(texts=TEXT, where=where))
    galleries[0].find(Query(texts=TEXT, where="identity = 'root' and source != 'a model''s root'"))


def test_no_condition_can_fail_at_a_row(galleries: tuple[Gallery, Gallery]) -> None:
    with pytest.raises(QueryError, match=r"arithmetic \(/\) is not supported"):
        galleries[0].find(Query(texts=TEXT, where="1 / cast(age - 5 as int) < 2"))
    assert json.dumps(seen(galleries[0].find(Query(texts=TEXT))).as_dict())
