"""Forgetting leaves no byte of a person in the gallery's folder, after complete runs and after kills at every step."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import lancedb
import numpy as np
import pytest

from tbps.errors import GalleryError, QueryError
from tbps.gallery.gallery import Gallery
from tbps.gallery.lifecycle.forget import forget
from tbps.gallery.lifecycle.reembed import reembed
from tbps.gallery.lifecycle.retention import change_retention, retain
from tbps.gallery.lifecycle.snapshots import restore, snapshots, take_snapshot
from tbps.gallery.store.erasure import begun
from tbps.gallery.store.lock import lock
from tbps.gallery.store.retention_rules import Retention, read_retention
from tests.support.colour_encoder import ColourEncoder, write_pictures
from tests.support.disk_states import recording

COUNT = 120
VICTIM = "identity = 'Zyx-4417-quoll'"
CAMERAS = ("lobby", "gate", None)


def _metadata() -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for number in range(COUNT):
        row: dict[str, object] = {"camera": CAMERAS[number % 3], "coat": f"coat-{number}"}
        if number % 10:
            row["captured_at"] = f"2024-05-{1 + number % 28:02d}T08:00:00"
        rows.append(row)
    for number in (7, 60):
        rows[number] |= {"identity": "Zyx-4417-quoll", "note": f"limps-vexillum-{number}"}
    return rows


def _named(folder: Path) -> list[Path]:
    """Writes pictures; those of the person to be forgotten have recognisable names."""
    paths = write_pictures(folder, COUNT)
    for number in (7, 60):
        paths[number] = paths[number].rename(folder / f"wombat-jacaranda-{number}.jpg")
    return paths


@dataclass(frozen=True)
class _Rows:
    """Every column of some rows, by id."""

    rows: dict[str, dict[str, object]]

    def without(self, ids: set[str]) -> "_Rows":
        return _Rows({id_: row for id_, row in self.rows.items() if id_ not in ids})


def _tables(folder: Path) -> dict[str, _Rows]:
    """Every table of a gallery folder as LanceDB itself reads it, in every version on disk."""
    found = {}
    for store in sorted(folder.rglob("*.lance")):
        if store.is_dir():
            table = lancedb.connect(store.parent).open_table(store.stem)
            for version in [entry["version"] for entry in table.list_versions()]:
                table.checkout(version)
                rows = {row["id"]: row for row in table.search().to_arrow().to_pylist()}
                found[f"{store.relative_to(folder).parent}@{store.stem}@{version}"] = _Rows(rows)
    return found


def _secrets(folder: Path, ids: set[str]) -> dict[str, list[bytes]]:
    """Byte strings of the rows with these ids, by kind: texts, and pieces of thumbnails and embeddings, from every table."""
    secrets: dict[str, list[bytes]] = {"text": [], "thumbnail": [], "embedding": []}
    for rows in _tables(folder).values():
        for id_ in ids & rows.rows.keys():
            row = rows.rows[id_]
            texts = [id_, row["content_hash"], row["source"], row["identity"], row.get("note")]
            secrets["text"] += [str(text).encode() for text in texts if text is not None]
            jpeg = row["thumbnail"]
            secrets["thumbnail"] += [jpeg[at : at + 24] for at in range(620, len(jpeg) - 24, 24)]  # after the common header
            secrets["embedding"] += [vector[at : at + 16] for vector in [np.float32(row["embedding"]).tobytes()] for at in (0, 40)]
    return secrets


def _found(folder: Path, secrets: list[bytes]) -> set[str]:
    """The files of a folder, hidden ones included, whose name or bytes contain one of the secrets."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        str(f.relative_to(folder))
        for f in files
        for content in [f.name.encode() + f.read_bytes()]
        if any(s in content for s in secrets)
    }


@pytest.fixture
def lived(tmp_path: Path) -> Iterator[Path]:
    """A gallery with several versions, a snapshot, images that were added after it, and an unfinished re-embedding."""
    folder, paths, rows = tmp_path / "gallery", _named(tmp_path / "photos"), _metadata()
    gallery = Gallery.open(folder, ColourEncoder())
    for start, end in ((0, 40), (40, 100)):
        gallery.add(paths[start:end], rows[start:end])
    take_snapshot(folder, "monday")
    gallery.add(paths[100:], rows[100:])

    def stop(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reembed(folder, ColourEncoder(seed=1), on_progress=stop)
    yield folder


def _victims(folder: Path) -> set[str]:
    return {hit.id for hit in Gallery.open(folder, ColourEncoder()).search("x", COUNT, VICTIM)}


def test_no_byte_of_a_forgotten_person_is_left_on_disk(lived: Path) -> None:
    victims, before, secrets = _victims(lived), _tables(lived), _secrets(lived, _victims(lived))
    data = {path.name for path in lived.rglob("data/*")}
    assert len(victims) == 2 and len({place.split("@")[0] for place in before}) == 2
    # Checks that the scan works: the files of all three tables hold thumbnails and vectors uncompressed, and some hold the names.
    for kind in ("thumbnail", "embedding"):
        assert len({Path(file).parent for file in _found(lived, secrets[kind])}) == 3
    assert _found(lived, secrets["text"])

    report = Gallery.open(lived, ColourEncoder()).forget(VICTIM)

    assert (report.images, report.gallery, dict(report.snapshots)) == (2, 2, {"monday": 2})
    for kind, pieces in secrets.items():
        assert _found(lived, pieces) == set(), kind
    after = _tables(lived)
    assert all(not victims & rows.rows.keys() for rows in after.values())
    assert not {path.name for path in lived.rglob("data/*")} & data  # no earlier file is left, which also covers compressed columns
    assert not begun(lived) and not list(lived.glob(".*.part"))
    for place in (".@images", ".@images-2", "snapshots/monday@images"):
        newest_before = [rows for name, rows in before.items() if name.startswith(f"{place}@")][-1].without(victims)
        assert newest_before in after.values()
    assert len(after) == 3


def test_an_erasure_killed_at_any_step_is_completed_by_the_next_open(lived: Path, tmp_path: Path) -> None:
    victims, secrets = _victims(lived), _secrets(lived, _victims(lived))
    with recording(lived, tmp_path / "states") as recorded:
        Gallery.open(lived, ColourEncoder()).forget(VICTIM)
    rows_after = sorted(_tables(lived).values(), key=lambda rows: str(sorted(rows.rows)[:3]) + str(len(rows.rows)))
    pending = [begun(state) for state in recorded.states]
    assert pending[0] is False and pending[-1] is True and sum(pending) > 8
    for state, was_begun in zip(recorded.states, pending, strict=True):
        gallery = Gallery.open(state, ColourEncoder())
        assert len(gallery.search("x", COUNT)) == COUNT - (2 if was_begun else 0)
        if not was_begun:
            assert gallery.forget(VICTIM).images == 2
        assert [file for pieces in secrets.values() for file in _found(state, pieces)] == []
        found = sorted(_tables(state).values(), key=lambda rows: str(sorted(rows.rows)[:3]) + str(len(rows.rows)))
        assert found == rows_after
        shutil.rmtree(state)
    assert victims


def test_a_half_written_table_of_a_killed_process_is_deleted(lived: Path) -> None:
    (lived / "erasure.json").write_text(json.dumps(sorted(_victims(lived))))
    torn = lived / "images-3.lance"
    shutil.copytree(lived / "images.lance", torn)
    shutil.rmtree(torn / "_versions")
    (lived / ".erasure.json.abc.part").write_text("x")
    gallery = Gallery.open(lived, ColourEncoder())
    assert gallery.search("x", 9, VICTIM) == []
    assert sorted(path.name for path in lived.iterdir()) == [
        ".lock", "gallery.json", "images-3.lance", "images-4.lance", "reembed.json", "snapshots",
    ]  # fmt: skip


def test_an_open_gallery_does_not_find_images_forgotten_by_another_process(lived: Path) -> None:
    reader = Gallery.open(lived, ColourEncoder())
    assert len(reader.search("x", COUNT, VICTIM)) == 2
    forget(lived, VICTIM)
    assert reader.search("x", COUNT, VICTIM) == []
    assert len(reader.search("x", COUNT)) == len(reader) == COUNT - 2


def test_a_dry_run_reports_and_changes_nothing(lived: Path) -> None:
    before = sorted(path for path in lived.rglob("*"))
    report = Gallery.open(lived, ColourEncoder()).forget("camera = 'gate'", before="2024-05-10", dry_run=True)
    expected = [r for r in _metadata() if r["camera"] == "gate" and str(r.get("captured_at", "9")) < "2024-05-10"]
    assert report.dry_run and report.images == report.gallery == len(expected) > 5
    assert dict(report.cameras) == {"gate": len(expected)} and len(report.sample) == 5
    assert {image.camera for image in report.sample} == {"gate"}
    assert report.undated == 12
    assert sorted(path for path in lived.rglob("*")) == before


@pytest.mark.parametrize(
    ("selection", "numbers"),
    [
        ({"identity": "Zyx-4417-quoll"}, {7, 60}),
        ({"before": "2024-05-03"}, {n for n in range(COUNT) if n % 10 and n % 28 < 2}),
        ({"before": datetime(2024, 5, 3), "where": "camera = 'lobby'"}, {n for n in range(0, COUNT, 3) if n % 10 and n % 28 < 2}),
        ({"where": "true"}, set(range(COUNT))),
        ({"identity": "nobody's"}, set()),
    ],
)
def test_exactly_the_selected_images_are_forgotten(selection: dict[str, object], numbers: set[int], tmp_path: Path) -> None:
    paths = _named(tmp_path / "photos")
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    gallery.add(paths, _metadata())
    assert gallery.forget(**selection).images == len(numbers)  # type: ignore[arg-type]
    left = {hit.source for hit in gallery.search("x", COUNT)}
    assert left == {path.name for number, path in enumerate(paths) if number not in numbers}
    assert gallery.add(paths, _metadata()).added == len(numbers)  # the pictures themselves still exist


def test_forgetting_by_id_and_invalid_selections(tmp_path: Path) -> None:
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    with pytest.raises(GalleryError, match="there is no gallery"):
        gallery.forget("true")
    gallery.add(write_pictures(tmp_path / "photos", 3))
    gone = gallery.search("x", 1)[0].id
    assert gallery.forget(ids=[gone, "0" * 24]).images == 1
    assert gone not in {hit.id for hit in gallery.search("x", 9)}
    for selection, message in (
        ({}, "no selection of images to forget was given"),
        ({"before": "soon"}, "before 'soon' is not a time"),
        ({"where": "hat = 'red'"}, "unknown column 'hat'"),
        ({"where": "true) or (true"}, "closes a bracket"),
    ):
        with pytest.raises(QueryError, match=message):
            gallery.forget(**selection)  # type: ignore[arg-type]
    assert len(gallery) == 2


def test_a_restored_snapshot_does_not_bring_forgotten_images_back(lived: Path) -> None:
    forget(lived, VICTIM)
    assert [(s.name, s.images) for s in snapshots(lived)] == [("monday", 98)]
    gallery = Gallery.open(lived, ColourEncoder())
    restore(lived, "monday")
    assert gallery.search("x", COUNT, VICTIM) == []
    assert len(gallery.search("x", COUNT)) == len(gallery) == 98


def test_images_that_only_a_snapshot_holds_can_be_forgotten(lived: Path) -> None:
    take_snapshot(lived, "tuesday")
    restore(lived, "monday")
    report = forget(lived, "coat = 'coat-110'")
    assert (report.images, report.gallery, dict(report.snapshots)) == (1, 0, {"tuesday": 1})
    restore(lived, "tuesday")
    assert len(Gallery.open(lived, ColourEncoder())) == COUNT - 1


def test_an_erasure_of_a_running_process_is_not_taken_over(lived: Path) -> None:
    """While the other process holds the lock, opening neither waits nor fails, and hides the rows that are being erased."""
    (lived / "erasure.json").write_text(json.dumps(sorted(_victims(lived))))
    with lock(lived):
        assert len(Gallery.open(lived, ColourEncoder()).search("x", COUNT)) == COUNT - 2
    assert len(Gallery.open(lived, ColourEncoder()).search("x", COUNT)) == COUNT - 2


def test_retention_forgets_by_camera_and_days(lived: Path) -> None:
    assert retain(lived) is None
    change_retention(lived, {"lobby": 10, None: 20})
    change_retention(lived, {"gate": 5})
    assert change_retention(lived, {"gate": None}) == read_retention(lived) == Retention(default_days=20, cameras={"lobby": 10})
    today = datetime(2024, 5, 28, 12)
    days = {"lobby": 10}
    kept = [
        r
        for r in _metadata()
        if "captured_at" not in r or (today - datetime.fromisoformat(str(r["captured_at"]))).days < days.get(str(r["camera"]), 20)
    ]
    dry = retain(lived, dry_run=True, today=today)
    assert dry is not None and dry.images == COUNT - len(kept) and dry.undated == 12
    report = retain(lived, today=today)
    assert report is not None and report.images == dry.images and report.snapshots["monday"] > 0
    left = Gallery.open(lived, ColourEncoder()).search("x", COUNT)
    assert sorted(str(hit.attributes["coat"]) for hit in left) == sorted(str(row["coat"]) for row in kept)
