"""Export and import: round trips, and malicious or damaged exports."""

import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pytest
from PIL import Image

from tbps.errors import DataError, GalleryError, MixedModelsError, SettingsError
from tbps.gallery.gallery import Gallery
from tbps.gallery.lifecycle import export_format
from tbps.gallery.lifecycle.transfer import export, import_export
from tbps.preprocess.image import open_image
from tests.support.colour_encoder import ColourEncoder, write_pictures

COUNT = 30


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_format, "ROWS_PER_PART", 12)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    paths = write_pictures(tmp_path / "photos", COUNT)
    rows: list[dict[str, object]] = [{"camera": "lobby", "age": n, "bag": n % 2 == 0, "coat": 'r"é\n\u2028d'} for n in range(COUNT)]
    rows[3] |= {"captured_at": "2024-05-01T08:30:00.25", "identity": "7", "nested": {"a": [1, None]}}
    rows[4] = {}
    Gallery.open(tmp_path / "gallery", ColourEncoder()).add(paths, rows)
    return tmp_path / "gallery"


def _rows(folder: Path) -> list[dict[str, Any]]:
    table = lancedb.connect(folder).open_table("images")
    return sorted(table.search().to_arrow().to_pylist(), key=lambda row: str(row["id"]))


@pytest.mark.parametrize("name", ["copy", "copy.tar"])
def test_a_gallery_is_the_same_after_export_and_import(name: str, folder: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    report = export(folder, tmp_path / name, lambda done, total: calls.append((done, total)))
    assert report.images == COUNT and calls == [(0, 30), (12, 30), (24, 30), (30, 30)]
    again = import_export(tmp_path / "again", tmp_path / name, ColourEncoder())
    assert (again.images, again.skipped_existing, again.notes) == (COUNT, 0, ())
    assert _rows(tmp_path / "again") == _rows(folder)
    assert import_export(tmp_path / "again", tmp_path / name).skipped_existing == COUNT
    hits = [Gallery.open(place, ColourEncoder()).search("x", 9, "age > 10 and not bag") for place in (folder, tmp_path / "again")]
    assert hits[0] == hits[1] and len(hits[0]) == 9
    assert not list(tmp_path.glob(".copy*"))


def test_an_export_can_be_read_with_json_and_numpy(folder: Path, tmp_path: Path) -> None:
    export(folder, tmp_path / "copy")
    lines = [json.loads(line) for line in (tmp_path / "copy" / "rows-00001.jsonl").read_text().split("\n")[:-1]]
    embeddings = np.load(tmp_path / "copy" / "embeddings-00001.npy", allow_pickle=False)
    images = [open_image(tmp_path / "photos" / line["source"]) for line in lines]
    assert np.allclose(embeddings, ColourEncoder().encode_images(images), atol=1e-6)
    assert {line["coat"] for line in lines if line["age"] is not None} == {'r"é\n\u2028d'}
    assert open_image(tmp_path / "copy" / "thumbnails" / "00001" / f"{lines[0]['id']}.jpg").size == (16, 32)


def test_importing_into_a_gallery_that_holds_some_of_the_images(folder: Path, tmp_path: Path) -> None:
    """The gallery holds half of the images, and its column `age` has another kind, so imported ages stay in the attributes."""
    export(folder, tmp_path / "copy")
    other = Gallery.open(tmp_path / "other", ColourEncoder())
    other.add(sorted((tmp_path / "photos").iterdir())[:15], [{"age": "old"}] * 15)
    report = import_export(tmp_path / "other", tmp_path / "copy")
    assert (report.images, report.skipped_existing) == (15, 15)
    assert report.notes == ("column 'age' is kept in attributes but cannot be filtered on here",)
    assert len(other.search("x", 99, "age is null and coat is not null")) == 15
    assert sorted(h.attributes["age"] for h in other.search("x", 99, "age is null")) == list(range(15, 30))


def test_invalid_exports_and_imports(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="exists already"):
        export(folder, tmp_path)
    with pytest.raises(GalleryError, match="there is no gallery"):
        export(tmp_path / "nowhere", tmp_path / "x.tar")
    with pytest.raises(DataError, match="there is no export at"):
        import_export(folder, tmp_path / "nowhere")
    export(folder, tmp_path / "copy")
    with pytest.raises(SettingsError, match=r"there is no gallery .* pass --model"):
        import_export(tmp_path / "new", tmp_path / "copy")
    with pytest.raises(MixedModelsError, match=r"of model 'colours-0' .* the given model is 'colours-1' .* --model"):
        import_export(tmp_path / "new", tmp_path / "copy", ColourEncoder(seed=1))
    assert not (tmp_path / "new").exists()


def _pack(copy: Path, target: Path, *further: tuple[tarfile.TarInfo, bytes], mode: Any = "w") -> Path:
    with tarfile.open(target, mode) as archive:
        for path in sorted(copy.rglob("*")):
            if path.is_file():
                archive.add(path, path.relative_to(copy).as_posix())
        for member, content in further:
            member.size = len(content) if member.isreg() else 0
            archive.addfile(member, io.BytesIO(content))
    return target


def _special(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    return member


@pytest.mark.parametrize(
    "member",
    [
        _special("../evil.jpg", tarfile.REGTYPE),
        _special("/etc/evil", tarfile.REGTYPE),
        _special("thumbnails/00000/../../evil.jpg", tarfile.REGTYPE),
        _special("rows-00000.jsonl\n", tarfile.REGTYPE),
        _special("thumbnails/00000/" + "0" * 24 + ".jpg", tarfile.SYMTYPE, "/etc/passwd"),
        _special("thumbnails/00000/" + "0" * 24 + ".jpg", tarfile.LNKTYPE, "export.json"),
        _special("rows-00009.jsonl", tarfile.FIFOTYPE),
        _special("thumbnails", tarfile.DIRTYPE),
        _special("model.pkl", tarfile.REGTYPE),
    ],
    ids=lambda member: f"{member.name[:30]!r}-{member.type!r}",
)
def test_archives_with_other_members_are_refused_as_a_whole(member: tarfile.TarInfo, folder: Path, tmp_path: Path) -> None:
    export(folder, tmp_path / "copy")
    archive = _pack(tmp_path / "copy", tmp_path / "evil.tar", (member, b"x"))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError, match="refused as a whole"):
        import_export(tmp_path / "new", archive, ColourEncoder())
    assert sorted(tmp_path.rglob("*")) == before


def test_folders_with_links_and_compressed_or_truncated_archives_are_refused(folder: Path, tmp_path: Path) -> None:
    export(folder, tmp_path / "copy")
    with pytest.raises(DataError, match="not a plain tar archive"):
        import_export(folder, _pack(tmp_path / "copy", tmp_path / "packed.tar", mode="w:gz"))
    whole = _pack(tmp_path / "copy", tmp_path / "whole.tar").read_bytes()
    for size in (0, 700, len(whole) // 2, len(whole) - 20_000):
        (tmp_path / "cut.tar").write_bytes(whole[:size])
        with pytest.raises(DataError, match=r"is missing|is cut off|damaged"):
            import_export(folder, tmp_path / "cut.tar")
    twice = _special("export.json", tarfile.REGTYPE)
    with pytest.raises(DataError, match=r"holds export.json twice"):
        import_export(folder, _pack(tmp_path / "copy", tmp_path / "twice.tar", (twice, b"{}")))
    (tmp_path / "copy" / "rows-00009.jsonl").symlink_to("/etc/passwd")
    with pytest.raises(DataError, match="not a plain file; it is refused as a whole"):
        import_export(folder, tmp_path / "copy")


def test_a_header_that_asks_for_gigabytes_is_refused(folder: Path, tmp_path: Path) -> None:
    """Tests a pax header of 8 GiB in a sparse file, and a member larger than the limit."""
    export(folder, tmp_path / "copy")
    bomb = tarfile.TarInfo("x")
    bomb.type, bomb.size = tarfile.XHDTYPE, 2**33 - 1
    with (tmp_path / "bomb.tar").open("wb") as file:
        file.write(bomb.tobuf(tarfile.USTAR_FORMAT))
        file.truncate(2**33)
    with pytest.raises(DataError, match="bytes asked for at once"):
        import_export(folder, tmp_path / "bomb.tar")
    os.truncate(tmp_path / "copy" / "rows-00000.jsonl", 2**30)
    with pytest.raises(DataError, match=r"rows-00000.jsonl has 1,073,741,824 bytes, more than 268,435,456"):
        import_export(folder, tmp_path / "copy")


def _signed(copy: Path, change: Callable[[list[dict[str, Any]]], None]) -> None:
    """Changes the rows of the first part and updates its checksum."""
    file = copy / "rows-00000.jsonl"
    rows = [json.loads(line) for line in file.read_bytes().splitlines()]
    change(rows)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = json.loads((copy / "export.json").read_text())
    told["parts"][0]["lines"] = hashlib.sha256(file.read_bytes()).hexdigest()
    (copy / "export.json").write_text(json.dumps(told))


def _deep(rows: list[dict[str, Any]]) -> None:
    nested: Any = "x"
    for _ in range(400):
        nested = [nested]
    rows[0]["attributes"] = nested


CHANGES: dict[str, tuple[Callable[[list[dict[str, Any]]], None], str]] = {
    "id": (lambda rows: rows[0].update(id="../../../../etc/passwd00"), "does not belong to its content hash"),
    "hash": (lambda rows: rows[0].update(content_hash="x" * 64), "is not a SHA-256"),
    "kind": (lambda rows: rows[0].update(age="forty"), "holds a value that is not a number"),
    "infinite": (lambda rows: rows[0].update(age=float("inf")), "holds a value that is not a number"),
    "truth": (lambda rows: rows[0].update(bag=1), "holds a value that is not a truth"),
    "time": (lambda rows: rows[0].update(captured_at="soon"), "is not a time"),
    "text": (lambda rows: rows[0].update(source=None), "source is not a text"),
    "zero": (lambda rows: rows[0].update(camera="a\0b"), "camera is not a text"),
    "surrogate": (lambda rows: rows[0].update(camera="\ud800"), "surrogates not allowed"),
    "long": (lambda rows: rows[0].update(root="x" * 2_000_000), "root is not a text of at most"),
    "attributes": (_deep, "not a JSON object"),
    "column": (lambda rows: rows[0].update(embedding=[1]), "does not have the columns"),
    "count": (lambda rows: rows.pop(), "has 11 lines, not 12"),
    "thumbnail": (lambda rows: rows[0].update(thumbnail_sha256="0" * 64), "a thumbnail has another SHA-256"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_value_is_checked_before_the_first_image_is_added(name: str, folder: Path, tmp_path: Path) -> None:
    export(folder, tmp_path / "copy")
    change, message = CHANGES[name]
    _signed(tmp_path / "copy", change)
    with pytest.raises(DataError, match=message):
        import_export(tmp_path / "new", tmp_path / "copy", ColourEncoder())
    assert not (tmp_path / "new").exists()


def test_embeddings_thumbnails_and_export_json_are_checked(folder: Path, tmp_path: Path) -> None:
    export(folder, tmp_path / "good")

    def refused(message: str, file: str, content: bytes) -> None:
        shutil.copytree(tmp_path / "good", tmp_path / "copy")
        (tmp_path / "copy" / file).write_bytes(content)
        if file.endswith(".npy"):
            told = json.loads((tmp_path / "copy" / "export.json").read_text())
            told["parts"][0]["embeddings"] = hashlib.sha256(content).hexdigest()
            (tmp_path / "copy" / "export.json").write_text(json.dumps(told))
        with pytest.raises(DataError, match=message):
            import_export(folder, tmp_path / "copy")
        shutil.rmtree(tmp_path / "copy")

    def npy(array: np.ndarray) -> bytes:
        np.save(buffer := io.BytesIO(), array, allow_pickle=True)
        return buffer.getvalue()

    good = np.load(tmp_path / "good" / "embeddings-00000.npy")
    refused("kind object instead of", "embeddings-00000.npy", npy(np.array([[{}] * 24] * 12, dtype=object)))
    refused("kind float64 instead of", "embeddings-00000.npy", npy(good.astype(np.float64)))
    refused(r"of shape \(11, 24\)", "embeddings-00000.npy", npy(good[:11]))
    refused("not unit vectors", "embeddings-00000.npy", npy(good * 2))
    refused("not unit vectors", "embeddings-00000.npy", npy(good * np.float32(np.nan)))
    refused("magic string|part 0", "embeddings-00000.npy", b"junk")
    huge = npy(good).replace(b"(12, 24)", b"(2**9,9)")
    refused("part 0", "embeddings-00000.npy", huge)
    thumbnail = next((tmp_path / "good" / "thumbnails" / "00000").iterdir()).relative_to(tmp_path / "good")
    refused("has another SHA-256", str(thumbnail), b"\xff\xd8\xff")
    refused("more than 262,144", str(thumbnail), bytes(300_000))
    refused("rows-00001.jsonl has another SHA-256", "rows-00001.jsonl", b"{}")
    for content in (b"", b"[]", b"[" * 100_000, b'{"format": "tbps-export"}', b"\xff"):
        refused("export.json of .* is damaged or of another version", "export.json", content)
    told = json.loads((tmp_path / "good" / "export.json").read_text())
    for columns in ({"a b": "text"}, {"x": "code"}, {f"c{n}": "text" for n in range(200)}):
        refused("damaged or of another version", "export.json", json.dumps(told | {"columns": columns}).encode())
    refused(
        "the column 'thumbnail', which every gallery has",
        "export.json",
        json.dumps(told | {"columns": {"thumbnail": "text"}}).encode(),
    )
    assert len(Gallery.open(folder, ColourEncoder())) == COUNT


def test_a_thumbnail_that_is_no_small_jpeg_is_refused(folder: Path, tmp_path: Path) -> None:
    export(folder, tmp_path / "copy")
    for picture, kind in ((Image.new("RGB", (300, 300)), "JPEG"), (Image.new("RGB", (20, 20)), "PNG")):
        picture.save(buffer := io.BytesIO(), kind)

        def change(rows: list[dict[str, Any]], content: bytes = buffer.getvalue()) -> None:
            (tmp_path / "copy" / "thumbnails" / "00000" / f"{rows[0]['id']}.jpg").write_bytes(content)
            rows[0]["thumbnail_sha256"] = hashlib.sha256(content).hexdigest()

        _signed(tmp_path / "copy", change)
        with pytest.raises(DataError, match="not a JPEG of at most 224 x 256 pixels"):
            import_export(folder, tmp_path / "copy")
