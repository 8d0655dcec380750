"""Which pictures a folder, a metadata file or a list offers."""

import json
import os
from pathlib import Path

import pytest
from colour_encoder import write_pictures
from PIL import Image

from tbps.errors import AnnotationError, DataError
from tbps.search.sources import find_sources


def _names(folder: Path, **options: object) -> list[str]:
    return [candidate.name for candidate in find_sources(folder, options.get("metadata")).candidates]  # type: ignore[arg-type]


def _metadata(folder: Path, *rows: dict[str, object]) -> None:
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_folder_is_read_with_its_subfolders_in_order_of_names(tmp_path: Path) -> None:
    write_pictures(tmp_path / "b", 2)
    write_pictures(tmp_path / "a" / "deep", 1)
    write_pictures(tmp_path / ".hidden", 1)
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / ".cover.jpg").write_bytes(b"x")
    (tmp_path / "SHOUT.JPEG").write_bytes((tmp_path / "b" / "0000.jpg").read_bytes())
    assert _names(tmp_path) == ["SHOUT.JPEG", "a/deep/0000.jpg", "b/0000.jpg", "b/0001.jpg"]


def test_another_gallery_inside_the_folder_is_left_out(tmp_path: Path) -> None:
    write_pictures(tmp_path, 1)
    write_pictures(tmp_path / "gallery", 1)
    (tmp_path / "gallery" / "gallery.json").write_text("{}")
    assert _names(tmp_path) == ["0000.jpg"]


def test_links_that_lead_out_are_named_and_not_followed(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    write_pictures(inside, 1)
    write_pictures(outside, 1, seed=1)
    os.symlink(outside / "0000.jpg", inside / "escape.jpg")
    os.symlink(outside, inside / "escape")
    os.symlink(inside / "0000.jpg", inside / "again.jpg")
    found = find_sources(inside, None)
    assert [candidate.name for candidate in found.candidates] == ["0000.jpg", "again.jpg"]
    assert sorted(name for name, _ in found.failed) == ["escape", "escape.jpg"]


def test_metadata_rows_that_cannot_be_used_are_named_with_their_line(tmp_path: Path) -> None:
    inside = tmp_path / "in"
    write_pictures(inside, 3)
    write_pictures(tmp_path / "out", 1)
    os.symlink(tmp_path / "out" / "0000.jpg", inside / "link.jpg")
    _metadata(
        inside,
        {"file_name": "0000.jpg", "camera": "a"},
        {"file_name": "missing.jpg"},
        {"file_name": "../out/0000.jpg"},
        {"file_name": str(tmp_path / "out" / "0000.jpg")},
        {"file_name": "link.jpg"},
        {"file_name": "./0000.jpg", "camera": "b"},
        {"file_name": "0001.jpg"},
    )
    found = find_sources(inside, None)
    assert [(c.name, dict(c.columns)) for c in found.candidates] == [("0000.jpg", {"camera": "a"}), ("0001.jpg", {})]
    assert [reason.split(":")[0] for _, reason in found.failed] == [f"line {n}" for n in (2, 3, 4, 5, 6)]
    assert found.failed[0] == ("missing.jpg", "line 2: there is no such file")
    assert "already named in line 1" in found.failed[-1][1]
    assert found.notes == ("1 pictures of the folder are not named in metadata.jsonl and were left out",)


def test_a_malformed_metadata_file_is_refused_with_its_line(tmp_path: Path) -> None:
    write_pictures(tmp_path, 1)
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "0000.jpg"}\n{"file_name": \n')
    with pytest.raises(AnnotationError, match="line 2"):
        find_sources(tmp_path, None)


def test_nothing_to_index(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no picture \(JPEG, PNG, WebP, GIF, AVIF"):
        find_sources(tmp_path, None)
    with pytest.raises(DataError, match="does not exist"):
        find_sources(tmp_path / "nowhere", None)
    with pytest.raises(DataError, match="the list is empty"):
        find_sources([], None)
    (tmp_path / "metadata.jsonl").write_text("\n")
    with pytest.raises(DataError, match="names no picture"):
        find_sources(tmp_path, None)
    with pytest.raises(DataError, match=r"metadata file .* does not exist"):
        find_sources(tmp_path, tmp_path / "other.jsonl")


def test_names_that_no_disk_can_hold_are_like_missing_ones(tmp_path: Path) -> None:
    write_pictures(tmp_path, 1)
    _metadata(tmp_path, {"file_name": "0000.jpg"}, {"file_name": "x" * 300 + ".jpg"})
    found = find_sources(tmp_path, None)
    assert [candidate.name for candidate in found.candidates] == ["0000.jpg"]
    assert [reason for _, reason in found.failed] == ["line 2: there is no such file"]
    for nowhere in ("x" * 300, "a\0b"):
        with pytest.raises(DataError, match="does not exist"):
            find_sources(nowhere, None)
    with pytest.raises(DataError, match=r"metadata file x+ does not exist"):
        find_sources(tmp_path, "x" * 300)


def test_lists_take_one_mapping_a_picture(tmp_path: Path) -> None:
    path = write_pictures(tmp_path, 1)[0]
    found = find_sources([path, Image.new("RGB", (4, 8))], [{"camera": "a"}, {"camera": "b"}])
    assert [(c.name, c.root, c.columns["camera"]) for c in found.candidates] == [
        ("0000.jpg", str(tmp_path), "a"),
        ("picture-000001", "", "b"),
    ]
    with pytest.raises(DataError, match="1 pictures but 2 metadata"):
        find_sources([path], [{}, {}])
    with pytest.raises(DataError, match=r"names in .*metadata.jsonl are relative to a folder; index that folder"):
        find_sources(path, tmp_path / "metadata.jsonl")
    with pytest.raises(DataError, match="a folder takes its metadata from a file"):
        find_sources(tmp_path, [{}])
