"""`Gallery` with two implementations of the Encoder protocol."""

import io
import json
import os
import shutil
import sqlite3
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tbps.errors import BusyError, GalleryError, MixedModelsError, ModelError, QueryError, SettingsError, StorageError
from tbps.gallery.encoder import Encoder
from tbps.gallery.gallery import Gallery
from tbps.gallery.store.lock import lock
from tbps.model.bundle import load
from tbps.preprocess.image import open_image
from tests.support.colour_encoder import ColourEncoder, write_pictures

PEOPLE = Path(__file__).parents[1] / "people"


@pytest.fixture(params=["colours", "clip"])
def encoder(request: pytest.FixtureRequest, tiny_model_folder: Path) -> Encoder:
    return ColourEncoder() if request.param == "colours" else load(tiny_model_folder)


@pytest.fixture
def filled(tmp_path: Path) -> Gallery:
    write_pictures(tmp_path / "photos", 6)
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    gallery.add(tmp_path / "photos")
    return gallery


def test_a_search_by_image_finds_the_same_image_first(encoder: Encoder, tmp_path: Path) -> None:
    paths = write_pictures(tmp_path / "photos", 20, size=(40, 90))
    gallery = Gallery.open(tmp_path / "gallery", encoder)
    report = gallery.add(tmp_path / "photos", batch_size=7)
    assert (report.added, report.skipped_existing, report.failed, len(gallery)) == (20, 0, (), 20)
    for path in paths:
        best, second = gallery.search_image(path, k=2)
        assert (best.rank, best.source, best.path) == (1, path.name, path.resolve())
        assert best.score == pytest.approx(1, abs=1e-5) and second.score < best.score


def test_ranks_and_scores_equal_the_cosines_of_the_encoder(encoder: Encoder, tmp_path: Path) -> None:
    paths = write_pictures(tmp_path / "photos", 30, size=(40, 90))
    gallery = Gallery.open(tmp_path / "gallery", encoder)
    gallery.add(tmp_path / "photos")
    images = encoder.encode_images([open_image(path) for path in paths]).astype(float)
    scores = images @ encoder.encode_texts(["a man in a green jacket"])[0].astype(float)
    hits = Gallery.open(tmp_path / "gallery", encoder).search("a man in a green jacket", k=5)
    assert [hit.score for hit in hits] == pytest.approx(sorted(scores, reverse=True)[:5], abs=1e-5)
    assert [hit.score for hit in hits] == pytest.approx([scores[int(Path(hit.source).stem)] for hit in hits], abs=1e-5)


def test_photographs_of_people_are_found_by_their_embeddings(tmp_path: Path, tiny_model_folder: Path) -> None:
    model = load(tiny_model_folder)
    gallery = Gallery.open(tmp_path / "gallery", model)
    assert gallery.add(PEOPLE).added == 4
    for path in sorted(PEOPLE.glob("*.jpg")):
        hit = gallery.search_embedding(model.encode_images([open_image(path)])[0], k=1)[0]
        assert hit.source == path.name


def _rows() -> list[dict[str, object]]:
    rng = np.random.default_rng(3)
    rows: list[dict[str, object]] = []
    for number in range(150):
        row: dict[str, object] = {
            "file_name": f"{number:04d}.jpg",
            "hour": int(rng.integers(24)),
            "bag": bool(rng.random() < 0.5),
        }
        row["captured_at"] = f"2024-05-{1 + number % 28:02d}T{row['hour']:02d}:30:00"
        if rng.random() < 0.8:
            row["camera"] = str(rng.choice(["lobby", "gate", "dock's end"]))
        if rng.random() < 0.7:
            row["upper"] = str(rng.choice(["red", "navy", "dark green"]))
        rows.append(row)
    return rows


CONDITIONS = [
    "camera = 'lobby'",
    "camera is null",
    "camera = 'dock''s end' or upper like 'dark%'",
    "camera in ('lobby', 'gate') and not bag",
    "hour between 8 and 10 and bag",
    "captured_at >= '2024-05-20'",
    "captured_at between '2024-05-03 12:00' and '2024-05-09T06:30:00Z'",
    "upper is not null and captured_at < '2024-05-02T00:00:00+02:00'",
    "hour > 30",
]


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Gallery, sqlite3.Connection]:
    folder = tmp_path_factory.mktemp("labelled")
    write_pictures(folder / "photos", 150)
    rows = _rows()
    (folder / "photos" / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    gallery = Gallery.open(folder / "gallery", ColourEncoder())
    gallery.add(folder / "photos")
    database = sqlite3.connect(":memory:")
    database.execute("create table images (source, camera, upper, hour, bag, captured_at)")
    names = ("file_name", "camera", "upper", "hour", "bag", "captured_at")
    database.executemany("insert into images values (?,?,?,?,?,?)", [[row.get(name) for name in names] for row in rows])
    return gallery, database


@pytest.mark.parametrize("where", CONDITIONS)
def test_filters_select_the_same_rows_as_sqlite(where: str, labelled: tuple[Gallery, sqlite3.Connection]) -> None:
    gallery, database = labelled
    theirs = where.replace("'2024-05-03 12:00'", "'2024-05-03T12:00:00'").replace("06:30:00Z", "06:30:00")
    theirs = theirs.replace("2024-05-02T00:00:00+02:00", "2024-05-01T22:00:00")
    expected = {source for (source,) in database.execute(f"select source from images where {theirs}")}
    everything = gallery.search("someone", k=150)
    found = gallery.search("someone", k=150, where=where)
    assert {hit.source for hit in found} == expected
    passing = [(hit.source, hit.score) for hit in everything if hit.source in expected]
    assert [(hit.source, hit.score) for hit in found] == passing
    assert [hit.rank for hit in found] == list(range(1, len(found) + 1))


def test_hits_have_the_metadata_given_at_indexing(labelled: tuple[Gallery, sqlite3.Connection]) -> None:
    given = {row["file_name"]: row for row in _rows()}
    for hit in labelled[0].search("someone", k=10):
        row = given[hit.source]
        assert (hit.camera, hit.captured_at) == (row.get("camera"), row["captured_at"])
        assert hit.attributes == {name: row[name] for name in ("hour", "bag", "upper") if name in row}
        with Image.open(io.BytesIO(hit.thumbnail)) as thumbnail:
            assert (thumbnail.format, thumbnail.size) == ("JPEG", (16, 32))


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (
            "nosuch = 1",
            r"unknown column 'nosuch'. Columns: .*camera \(text\), captured_at \(time\).*bag \(truth\), hour \(number\)",
        ),
        ('camera = "lobby"', "unknown column 'lobby'; text is written in single quotes"),
        ("camera = ", "Expected: an expression"),
        ("camera = 'lobby", "Unterminated string literal"),
        ("camera = 3", "3 is compared with a column of another kind"),
        ("hour", "boolean"),
        ("true; drop table images", "found: ;"),
        ("true) limit (3", "closes a bracket that it never opened"),
        ("true union select 1", "found: union"),
        ("id in (select id from images)", "not supported"),
        ("delete from images", "filter 'delete from images'"),
        ("true --", "a comment"),
        ("true /* ( */ ) limit (3", "a comment"),
        ("captured_at > 'noon'", "captured_at is compared with 'noon'"),
        ("shell('ls')", "Invalid function 'shell'"),
        ("  ", "the filter is empty"),
        ("camera = 'x' or " * 2000 + "true", "characters"),
        ("(" * 3000 + "true" + ")" * 3000, "recursion"),
    ],
)
def test_an_invalid_filter_is_reported_in_one_line(where: str, message: str, labelled: tuple[Gallery, sqlite3.Connection]) -> None:
    gallery, _ = labelled
    with pytest.raises(QueryError, match=message) as caught:
        gallery.search("someone", 3, where)
    assert "\n" not in str(caught.value) and ".rs" not in str(caught.value)
    assert len(gallery) == 150


@pytest.mark.parametrize("text", ["", "   ", "\t\n", "...", "\u200b"])
def test_a_query_without_words(text: str, filled: Gallery) -> None:
    with pytest.raises(QueryError, match="the query has no word"):
        filled.search(text)


def test_unusual_texts_can_be_searched(filled: Gallery) -> None:
    for text in ("woman", "一个穿红色外套的女人", "red 🧥 coat \x07", "a long word " * 500):
        assert len(filled.search(text, k=99)) == 6


def test_invalid_queries_are_refused(filled: Gallery) -> None:
    with pytest.raises(QueryError, match="k is 0"):
        filled.search("a man", k=0)
    with pytest.raises(QueryError, match=r"shape \(3,\); this gallery needs \(24,\)"):
        filled.search_embedding(np.ones(3))
    for vector in (np.zeros(24), np.full(24, np.nan)):
        with pytest.raises(QueryError, match="zero or not finite"):
            filled.search_embedding(vector)


def test_indexing_twice_changes_nothing(filled: Gallery, tmp_path: Path) -> None:
    before = filled.search("someone", k=99)
    again = Gallery.open(tmp_path / "gallery", ColourEncoder()).add(tmp_path / "photos")
    assert (again.added, again.skipped_existing, again.failed, again.duplicates) == (0, 6, (), ())
    assert filled.search("someone", k=99) == before


def test_the_same_content_is_one_row(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    write_pictures(photos, 3)
    shutil.copy(photos / "0001.jpg", photos / "9999.jpg")
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    report = gallery.add(photos)
    assert (report.added, report.skipped_existing, len(gallery)) == (3, 1, 3)
    assert report.duplicates == (("9999.jpg", "has the same content as 0001.jpg, which was kept"),)
    metadata = tmp_path / "metadata.jsonl"
    metadata.write_text('{"file_name": "0001.jpg", "camera": "late"}\n')
    report = gallery.add(photos, metadata)
    assert report.corrected == (("0001.jpg", "was indexed with other metadata (camera)"),) and report.duplicates == ()
    assert gallery.search("x", 9, "camera is not null") == []


def _vast_png() -> bytes:
    """A PNG whose header promises 30,000 x 30,000 pixels."""
    chunks = ((b"IHDR", struct.pack(">2I5B", 30_000, 30_000, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(b"")), (b"IEND", b""))
    framed = (struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def test_bad_pictures_are_named_and_the_rest_is_added(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    write_pictures(photos, 4, size=(60, 120))
    (photos / "0001.jpg").write_text("I am a text file")
    (photos / "0002.jpg").write_bytes((photos / "0002.jpg").read_bytes()[:900])
    (photos / "empty.png").write_bytes(b"")
    (photos / "folder.jpg").mkdir()
    (photos / "vast.png").write_bytes(_vast_png())
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    report = gallery.add(photos)
    assert report.added == 2
    reasons = dict(report.failed)
    assert sorted(reasons) == ["0001.jpg", "0002.jpg", "empty.png", "vast.png"]
    assert "more than 64,000,000 pixels" in reasons["vast.png"]
    assert "cannot be decoded" in reasons["0002.jpg"]
    assert not any("bytes>" in reason for reason in reasons.values())


def test_a_file_name_that_is_not_utf8_is_reported_and_the_rest_is_added(tmp_path: Path) -> None:
    paths = write_pictures(tmp_path / "photos", 2)
    content = paths[1].read_bytes()
    paths[1].unlink()
    try:
        Path(os.fsdecode(os.fsencode(tmp_path / "photos") + b"/caf\xe9.jpg")).write_bytes(content)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    report = gallery.add(tmp_path / "photos")
    assert (report.added, len(gallery)) == (1, 1)
    assert report.failed == (("caf\udce9.jpg", "its path is not UTF-8 text and cannot be stored; rename the file or its folder"),)


def test_pictures_in_every_mode_are_added(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 32, 3), np.uint8))
    picture.convert("CMYK").save(photos / "cmyk.jpg")
    picture.quantize(16).save(photos / "palette.png")
    Image.fromarray(np.arange(64 * 32, dtype=np.uint16).reshape(64, 32) * 30).save(photos / "deep.png")
    picture.convert("RGBA").save(photos / "alpha.webp")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.transpose(Image.Transpose.ROTATE_90).save(photos / "turned.png", exif=exif)
    picture.save(photos / "upright.png")
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    assert gallery.add(photos).failed == ()
    first, second = gallery.search_image(picture, k=2)
    assert {first.source, second.source} == {"turned.png", "upright.png"}
    assert first.score == second.score


def test_pictures_and_metadata_as_lists(tmp_path: Path) -> None:
    paths = write_pictures(tmp_path / "photos", 2)
    red, blue = Image.new("RGB", (20, 40), "red"), Image.new("RGBA", (20, 40), "blue")
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    metadata = [{"camera": "a"}, {"camera": "b"}, {"camera": "c"}, {"camera": "d"}]
    assert gallery.add([str(paths[0]), paths[1], red, blue], metadata).added == 4
    assert gallery.add([red], [{"camera": "c"}]).skipped_existing == 1
    hit = gallery.search_image(blue, k=1)[0]
    assert (hit.camera, hit.root, hit.path) == ("d", "", None)


def _in_memory() -> dict[str, Image.Image]:
    """Pictures that need their mode, palette, transparency or orientation to be decoded correctly."""
    colours = np.random.default_rng(1).integers(0, 256, (64, 32, 3), np.uint8)
    palette = Image.fromarray(colours).quantize(16)
    other = palette.copy()
    other.putpalette(palette.getpalette()[::-1])
    clear = Image.fromarray(colours).convert("RGBA")
    clear.paste((0, 0, 0, 0), (0, 0, 32, 40))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(colours).save(buffer := io.BytesIO(), "PNG", exif=exif)
    deep = Image.fromarray(np.random.default_rng(2).integers(0, 65536, (64, 32)).astype(np.uint16))
    return {
        "palette": palette,
        "other": other,
        "clear": clear,
        "turned": Image.open(buffer),
        "upright": Image.fromarray(colours),
        "deep": deep,
    }


def test_a_picture_in_memory_is_indexed_like_its_file(tmp_path: Path) -> None:
    pictures = _in_memory()
    (tmp_path / "files").mkdir()
    for name, picture in pictures.items():
        picture.save(tmp_path / "files" / f"{name}.png", exif=picture.getexif())
    files = Gallery.open(tmp_path / "of-files", ColourEncoder())
    files.add(tmp_path / "files")
    memory = Gallery.open(tmp_path / "in-memory", ColourEncoder())
    assert memory.add(pictures.values()).added == len(pictures)
    for number, (name, picture) in enumerate(pictures.items()):
        found, file = files.search_image(picture, k=1)[0], tmp_path / "files" / f"{name}.png"
        assert found.source == file.name and found.score == pytest.approx(1, abs=1e-6)
        found = memory.search_image(file, k=1)[0]
        assert found.source == f"picture-{number:06d}" and found.score == pytest.approx(1, abs=1e-6)
    report = memory.add([*pictures.values(), Image.new("F", (4, 8), -1.0)])
    assert (report.added, report.skipped_existing) == (0, len(pictures))
    assert report.failed[0][1].startswith("cannot be decoded (F pixels of unknown range")


def test_another_model_is_refused_and_both_are_named(filled: Gallery, tmp_path: Path) -> None:
    with pytest.raises(MixedModelsError, match=r"'colours-0' \(0+\), not of 'colours-1' \(0+1\).*new folder"):
        Gallery.open(tmp_path / "gallery", ColourEncoder(seed=1))


def test_two_models_cannot_fill_one_new_gallery(tmp_path: Path) -> None:
    write_pictures(tmp_path / "photos", 2)
    first, second = (Gallery.open(tmp_path / "gallery", ColourEncoder(seed=n)) for n in (0, 1))
    first.add(tmp_path / "photos")
    with pytest.raises(MixedModelsError):
        second.add(tmp_path / "photos")


def test_a_gallery_path_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    try:
        folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
        folder.mkdir()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    with pytest.raises(StorageError, match="is not UTF-8 text, which the database needs; choose another"):
        Gallery.open(folder, ColourEncoder()).add([Image.new("RGB", (4, 8))])


def test_a_gallery_needs_no_torch() -> None:
    program = "import sys, tbps.gallery.gallery; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_missing_or_foreign_gallery(tmp_path: Path) -> None:
    with pytest.raises(GalleryError, match=r"there is no gallery at .*tbps index PHOTOS --gallery"):
        Gallery.open(tmp_path / "nowhere", ColourEncoder(), create=False)
    assert not (tmp_path / "nowhere").exists()
    write_pictures(tmp_path / "photos", 1)
    with pytest.raises(GalleryError, match=r"is no gallery .* holds '0000.jpg'"):
        Gallery.open(tmp_path / "photos", ColourEncoder())
    with pytest.raises(StorageError, match="a file with that name exists"):
        Gallery.open(tmp_path / "photos" / "0000.jpg", ColourEncoder())


def test_an_empty_gallery(tmp_path: Path) -> None:
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    assert len(gallery) == 0
    with pytest.raises(GalleryError, match="is empty; add pictures"):
        gallery.search("a man")
    with pytest.raises(SettingsError, match="batch_size is 0"):
        gallery.add([Image.new("RGB", (2, 2))], batch_size=0)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"format": "other"}', "\x00\x01"])
def test_a_damaged_manifest(content: str, filled: Gallery, tmp_path: Path) -> None:
    (tmp_path / "gallery" / "gallery.json").write_text(content)
    with pytest.raises(GalleryError, match=r"gallery.json is damaged"):
        Gallery.open(tmp_path / "gallery", ColourEncoder())


def test_a_damaged_table(filled: Gallery, tmp_path: Path) -> None:
    shutil.copytree(tmp_path / "gallery", tmp_path / "other")
    for part in ("gallery/images.lance/data", "other/images.lance/_versions"):
        shutil.rmtree(tmp_path / part)
        with pytest.raises(GalleryError, match="is damaged"):
            Gallery.open(tmp_path / Path(part).parts[0], ColourEncoder()).search("a man")


@pytest.mark.parametrize("left", [[], ["_versions"], ["_versions/.tmp_1.manifest_5c1d", "_transactions/0-5c1d.txn"]])
def test_a_table_is_made_again_if_the_process_was_killed_while_making_it(left: list[str], filled: Gallery, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    (begun / "images.lance").mkdir(parents=True)
    shutil.copy(tmp_path / "gallery" / "gallery.json", begun)
    for name in left:
        path = begun / "images.lance" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"torn") if "." in path.name else path.mkdir()
    gallery = Gallery.open(begun, ColourEncoder())
    assert len(gallery) == 0
    assert gallery.add(tmp_path / "photos").added == len(gallery) == 6


def test_a_search_sees_what_another_process_adds(filled: Gallery, tmp_path: Path) -> None:
    assert len(filled.search("someone", k=99)) == 6
    write_pictures(tmp_path / "more", 300, seed=9)
    other = Gallery.open(tmp_path / "gallery", ColourEncoder())
    other.add(tmp_path / "more", metadata=None)
    assert len(filled.search("someone", k=999)) == len(filled) == 306
    assert len(filled.search("someone", k=999, where="source like '00%'")) == 106


def test_later_metadata_add_columns(filled: Gallery, tmp_path: Path) -> None:
    filled.add([Image.new("RGB", (4, 8), "green")], [{"Hat": "cap", "age": 40}])
    assert len(filled.search("x", 9, "hat = 'cap' and age > 39.5")) == 1
    assert len(filled.search("x", 9, "hat is null")) == 6
    assert filled.info().columns["age"] == "number"


def test_two_writers_take_turns(filled: Gallery, tmp_path: Path) -> None:
    """The second writer adds the same pictures between two commits of the first: each is stored once, both reports are right."""
    write_pictures(tmp_path / "more", 600, seed=5)
    reports = []

    def add_meanwhile(done: int, total: int) -> None:
        if done and not reports:
            second = Gallery.open(tmp_path / "gallery", ColourEncoder())
            reports.append(second.add(sorted((tmp_path / "more").iterdir())[200:], [{"camera": "gate"}] * 400))

    first = filled.add(tmp_path / "more", on_progress=add_meanwhile)
    assert reports[0].added + first.added == 600 and reports[0].added > 100
    assert first.added + first.skipped_existing == 600 and reports[0].added + reports[0].skipped_existing == 400
    hits = filled.search("someone", k=999)
    assert len(hits) == len({hit.id for hit in hits}) == 606
    assert len(filled.search("someone", k=999, where="camera = 'gate'")) == reports[0].added


def test_a_writer_that_waits_too_long_raises_busy_error(filled: Gallery, tmp_path: Path) -> None:
    impatient = Gallery.open(tmp_path / "gallery", ColourEncoder(), patience=0.05)
    with lock(tmp_path / "gallery"), pytest.raises(BusyError, match=r"another process is writing .* \(waited 0.05 s\); run again"):
        impatient.add([Image.new("RGB", (4, 8))])
    assert impatient.add([Image.new("RGB", (4, 8))]).added == 1


def test_broken_embeddings_are_refused(tmp_path: Path) -> None:
    class Broken(ColourEncoder):
        def encode_images(self, images: object, batch_size: int = 64) -> np.ndarray:
            return np.full((len(images), self.dim), np.nan, np.float32)  # type: ignore[arg-type]

    gallery = Gallery.open(tmp_path / "gallery", Broken())
    with pytest.raises(ModelError, match="not unit vectors"):
        gallery.add([Image.new("RGB", (4, 8))])
    assert len(gallery) == 0


def test_old_versions_are_deleted(tmp_path: Path) -> None:
    write_pictures(tmp_path / "photos", 700)
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    gallery.add(tmp_path / "photos", batch_size=16)
    table = tmp_path / "gallery" / "images.lance"
    assert len(list((table / "_versions").glob("*.manifest"))) <= 2
    assert len(list((table / "data").iterdir())) == 1
    info = gallery.info()
    assert (info.images, info.model, info.dim) == (700, "colours-0", 24)
    assert info.bytes == sum(f.stat().st_size for f in (tmp_path / "gallery").rglob("*") if f.is_file())


def test_progress_counts_every_picture_and_never_decreases(tmp_path: Path) -> None:
    write_pictures(tmp_path / "photos", 600)
    (tmp_path / "photos" / "bad.jpg").write_bytes(b"")
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    calls: list[tuple[int, int]] = []
    committed: list[int] = []
    gallery.add(tmp_path / "photos", on_progress=lambda done, total: (calls.append((done, total)), committed.append(len(gallery))))
    assert calls[0] == (0, 601) and calls[-1] == (601, 601) and len(calls) > 3
    assert calls == sorted(calls)
    assert all(rows + 1 >= done for rows, (done, _) in zip(committed, calls, strict=True))
