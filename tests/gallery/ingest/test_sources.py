"""Finding pictures and videos in folders, metadata files and lists."""

import json
import os
import shutil
import socket
import subprocess
import tarfile
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tbps.errors import AnnotationError, DataError, SettingsError
from tbps.gallery.gallery import Gallery
from tbps.gallery.ingest.footage import Footage
from tbps.gallery.ingest.sources.find import find_sources
from tbps.video.detectors.protocol import Frame
from tbps.video.detectors.ready_made import JsonDetector
from tests.support.colour_encoder import ColourEncoder, write_pictures


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


def test_links_out_of_the_folder_are_reported_and_not_followed(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    write_pictures(inside, 1)
    write_pictures(outside, 1, seed=1)
    os.symlink(outside / "0000.jpg", inside / "escape.jpg")
    os.symlink(outside, inside / "escape")
    os.symlink(inside / "0000.jpg", inside / "again.jpg")
    found = find_sources(inside, None)
    assert [candidate.name for candidate in found.candidates] == ["0000.jpg", "again.jpg"]
    assert sorted(name for name, _ in found.failed) == ["escape", "escape.jpg"]


def test_unusable_metadata_lines_are_reported_with_their_number(tmp_path: Path) -> None:
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


def test_a_malformed_metadata_file_is_refused_with_the_line_number(tmp_path: Path) -> None:
    write_pictures(tmp_path, 1)
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "0000.jpg"}\n{"file_name": \n')
    with pytest.raises(AnnotationError, match="line 2"):
        find_sources(tmp_path, None)


def test_sources_without_pictures_are_refused(tmp_path: Path) -> None:
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


def test_names_that_are_too_long_for_a_disk_are_reported_as_missing(tmp_path: Path) -> None:
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


def test_lists_take_one_metadata_mapping_per_picture(tmp_path: Path) -> None:
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


def _left_out(folder: Path, *exclude: str) -> dict[str, tuple[int, str]]:
    return dict(find_sources(folder, None, exclude).left_out)


def test_links_pipes_and_sockets_are_reported_and_the_walk_ends(tmp_path: Path) -> None:
    photos, outside = tmp_path / "in", tmp_path / "out"
    write_pictures(photos, 1)
    write_pictures(outside, 1, seed=1)
    (outside / "notes").write_text("x")
    for name, target in {
        "itself": "itself",
        "itself.jpg": "itself.jpg",
        "one.jpg": "two.jpg",
        "two.jpg": "one.jpg",
        "nowhere.png": "nothing",
        "up": "..",
        "here": ".",
        "out.jpg": outside / "0000.jpg",
        "notes.txt": outside / "notes",
        "pipe-link.zip": "pipe.zip",
        "zero.png": "/dev/zero",
    }.items():
        os.symlink(target, photos / name)
    for name in ("pipe.jpg", "pipe.zip", "pipe.mp4", "pipe"):
        os.mkfifo(photos / name)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(os.path.relpath(photos / "socket.jpg"))
    found = find_sources(photos, None)
    listener.close()
    assert [candidate.name for candidate in found.candidates] == ["0000.jpg"] and found.videos == ()
    reasons = dict(found.failed)
    loops = "is a link that leads back to itself"
    assert {name for name, reason in reasons.items() if reason == loops} == {"itself", "itself.jpg", "one.jpg", "two.jpg"}
    assert reasons["nowhere.png"] == "is a link to a file that does not exist"
    assert reasons["up"] == reasons["here"] == "is a link to a folder, which is not followed; index that folder itself"
    assert reasons["out.jpg"] == "is a link that leads out of the folder; copy the file instead"
    special = ["pipe", "pipe-link.zip", "pipe.jpg", "pipe.mp4", "pipe.zip", "socket.jpg", "zero.png"]
    assert sorted(name for name, reason in reasons.items() if "pipe, socket or device" in reason) == special
    assert len(found.failed) == 15 and found.left_out == {"files ending in .txt, which are not pictures": (1, "notes.txt")}
    names = ("itself.jpg", "pipe.jpg", "pipe.zip", "pipe.mp4", "nowhere.png")
    assert [reason for _, reason in find_sources([photos / name for name in names], None).failed] == [reasons["pipe.zip"]]
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    report = gallery.add([photos / name for name in names])
    assert {name: reason for name, reason in report.failed} == {name: reasons[name] for name in names}


def test_deep_folders_and_odd_names(tmp_path: Path) -> None:
    content = write_pictures(tmp_path / "one", 1)[0].read_bytes()
    root, here = tmp_path / "deep", os.getcwd()
    root.mkdir()
    try:
        os.chdir(root)
        for _ in range(2100):
            os.mkdir("d")
            os.chdir("d")
        os.chdir(here)
        for name in (b"line\nbreak.jpg", b"bell\x07.jpg", b"not-\xff-utf8.jpg"):
            Path(os.fsdecode(os.fsencode(root) + b"/" + name)).write_bytes(content)
        gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
        report = gallery.add(root)
    finally:
        os.chdir(here)
        subprocess.run(["rm", "-rf", root], check=True)  # the path is too long for Python to remove it
    assert report.added == 1 and report.skipped_existing == 1
    reasons = [reason.partition(";")[0] for _, reason in report.failed]
    assert reasons == ["cannot be read (File name too long)", "its path is not UTF-8 text and cannot be stored"]


def test_files_of_operating_systems_are_left_out_and_counted(tmp_path: Path) -> None:
    write_pictures(tmp_path, 1)
    folders = ("@eaDir/0000.jpg", "#recycle", "$RECYCLE.BIN", "a/@eadir", "System Volume Information", "lost+found", "__MACOSX")
    hidden = (".Trash-1000", ".thumbnails", ".hidden")
    for name in (*folders, *hidden):
        write_pictures(tmp_path / name, 1)
    for name in ("._0000.jpg", "Thumbs.db", "desktop.ini", ".DS_Store", "a/.cover.jpg", "notes.txt", "README", "b.TXT"):
        (tmp_path / name).write_bytes(b"\xff\xd8\xff" if name.endswith("jpg") else b"x")
    assert _names(tmp_path) == ["0000.jpg"]
    assert _left_out(tmp_path) == {
        "files and folders of the system": (10, "#recycle"),
        "hidden files and folders": (5, ".DS_Store"),
        "files ending in .txt, which are not pictures": (2, "b.TXT"),
        "files without the suffix of a picture": (1, "README"),
    }
    assert _names(tmp_path / "@eaDir") == ["0000.jpg/0000.jpg"]  # the folder is named by the user
    with tarfile.open(tmp_path / "all.tar", "w") as tar:
        for name in ("0000.jpg", "@eaDir/0000.jpg/0000.jpg", ".hidden/0000.jpg", "._0000.jpg", "README"):
            tar.add(tmp_path / name, name)
    found = find_sources(tmp_path / "all.tar", None)
    assert [candidate.name for candidate in found.candidates] == ["all.tar/0000.jpg"] and found.failed == ()
    assert {kind: count for kind, (count, _) in found.left_out.items()} == {
        "files and folders of the system": 2,
        "hidden files and folders": 1,
        "files without the suffix of a picture": 1,
    }


def test_pictures_of_unread_formats_are_reported_and_counted_by_suffix(tmp_path: Path) -> None:
    (picture,) = write_pictures(tmp_path, 1)
    for name in ("a.DNG", "b.dng", "c.nef", "d.psd", "e.svg", "f.pdf"):
        (tmp_path / name).write_bytes(b"x")
    shutil.copy(picture, tmp_path / "photo")  # recognised as a picture by its content
    shutil.copy(picture, tmp_path / "photo.jpg_large")
    shutil.copy(picture, tmp_path / "photo.mp4")
    (tmp_path / "film.mp4").write_bytes(b"\0\0\0\x18ftypisom")
    found = find_sources(tmp_path, None)
    assert [candidate.name for candidate in found.candidates] == ["0000.jpg", "photo", "photo.jpg_large", "photo.mp4"]
    assert [candidate.name for candidate in found.videos] == ["film.mp4"]
    assert dict(found.failed)["b.dng"] == "is a raw photograph, which is not read; export it as JPEG"
    assert dict(found.failed)["d.psd"] == "is a picture of a format that is not read; save it as JPEG or PNG"
    assert len(found.failed) == 6
    counted = "2 .dng, 1 .nef, 1 .pdf, 1 .psd, 1 .svg"
    assert found.notes == (f"pictures of formats that are not read: {counted}; save them as JPEG or PNG and index again",)


@pytest.mark.parametrize(
    ("patterns", "kept"),
    [
        (["*.png"], ["a.jpg", "drafts/a.jpg", "x/drafts/b.jpg", "x/Größe.jpg"]),
        (["drafts"], ["a.jpg", "b.png", "x/Größe.jpg"]),
        (["drafts/"], ["a.jpg", "b.png", "x/Größe.jpg"]),
        (["/drafts"], ["a.jpg", "b.png", "x/drafts/b.jpg", "x/Größe.jpg"]),
        (["x/drafts"], ["a.jpg", "b.png", "drafts/a.jpg", "x/Größe.jpg"]),
        (["x/**"], ["a.jpg", "b.png", "drafts/a.jpg"]),
        (["**/b.*"], ["a.jpg", "drafts/a.jpg", "x/Größe.jpg"]),
        (["?.jpg"], ["b.png", "x/Größe.jpg"]),
        (["[!a].*"], ["a.jpg", "drafts/a.jpg", "x/Größe.jpg"]),
        (["[a-b].jpg", "Gr*"], ["b.png"]),
        ([unicodedata.normalize("NFD", "Größe.jpg")], ["a.jpg", "b.png", "drafts/a.jpg", "x/drafts/b.jpg"]),
        (["*"], []),
        (["a.jpg/"], ["a.jpg", "b.png", "drafts/a.jpg", "x/drafts/b.jpg", "x/Größe.jpg"]),
    ],
)
def test_exclude(patterns: list[str], kept: list[str], tmp_path: Path) -> None:
    content = write_pictures(tmp_path / "one", 1)[0].read_bytes()
    photos = tmp_path / "photos"
    everything = ("a.jpg", "b.png", "drafts/a.jpg", "x/drafts/b.jpg", "x/Größe.jpg")
    for name in everything:
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        (photos / name).write_bytes(content)
    with tarfile.open(tmp_path / "photos.tar", "w") as tar:
        for name in everything:
            tar.add(photos / name, name)
    if not kept:
        with pytest.raises(DataError, match=r"holds no picture .*; left out: files and folders by --exclude \(4, such as a.jpg\)"):
            find_sources(photos, None, patterns)
        return
    found = find_sources(photos, None, patterns)
    assert [candidate.name for candidate in found.candidates] == sorted(kept)
    assert ("files and folders by --exclude" in found.left_out) == (len(kept) < len(everything))
    assert found.notes == (() if len(kept) < len(everything) else ("--exclude 'a.jpg/' matched nothing",))
    if not any("/" in pattern.rstrip("/") for pattern in patterns):
        packed = find_sources(tmp_path / "photos.tar", None, patterns)
        assert sorted(candidate.name for candidate in packed.candidates) == sorted(f"photos.tar/{name}" for name in kept)


def test_invalid_exclude_patterns(tmp_path: Path) -> None:
    write_pictures(tmp_path, 1)
    for pattern in ("", " ", "/", "x" * 2000, "a\0b"):
        with pytest.raises(SettingsError, match="is not a valid pattern"):
            find_sources(tmp_path, None, [pattern])
    for pattern in ("[", "[z-a].jpg", "[]]", "a(b", "\\d", "[[]", "[a-", "[^]"):  # patterns are globs, not regular expressions
        assert len(find_sources(tmp_path, None, [pattern]).candidates) == 1


def test_metadata_lines_may_spell_file_names_differently(tmp_path: Path) -> None:
    nfc, nfd = "Zoë", unicodedata.normalize("NFD", "Zoë")
    (picture,) = write_pictures(tmp_path / "one", 1)
    inside = tmp_path / "in"
    for name in (f"{nfd}/a.jpg", f"sub/{nfc}.jpg"):
        (inside / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(picture, inside / name)
    lines = [
        {"file_name": f"{nfc}\\a.jpg", "camera": nfd},
        {"file_name": f"sub\\{nfd}.jpg", "camera": f" {nfc}\u200b"},
        {"file_name": f"{nfd}/a.jpg"},
        {"file_name": "\ud800.jpg"},
    ]
    _metadata(inside, *lines)
    found = find_sources(inside, None)
    assert [candidate.name for candidate in found.candidates] == [f"{nfd}/a.jpg", f"sub/{nfc}.jpg"]
    assert [reason.partition(":")[0] for _, reason in found.failed] == ["line 3", "line 4"] and found.notes == ()
    with tarfile.open(tmp_path / "in.tar", "w") as tar:
        tar.add(inside, "")
    packed = find_sources(tmp_path / "in.tar", None)
    assert {candidate.name for candidate in packed.candidates} == {f"in.tar/{nfd}/a.jpg", f"in.tar/sub/{nfc}.jpg"}
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    gallery.add(inside)
    gallery.add(write_pictures(tmp_path / "two", 1, seed=2), footage=Footage(camera=f"{nfd} "))
    assert {hit.camera for hit in gallery.search("x", 9)} == {nfc} and len(gallery) == 2


def test_detections_may_spell_file_names_differently(tmp_path: Path) -> None:
    nfc, nfd = "Zoë", unicodedata.normalize("NFD", "Zoë")
    image = {"id": 1, "file_name": f".\\{nfd}\\a.jpg"}
    boxes = [{"image_id": 1, "bbox": [1, 2, 30, 40], "score": 0.9}]
    (tmp_path / "boxes.json").write_text(json.dumps({"images": [image], "annotations": boxes}))
    found = JsonDetector(tmp_path / "boxes.json").detect(Frame(f"{nfc}/a.jpg", 0, np.zeros((99, 99, 3), np.uint8)))
    assert [(d.x, d.y, d.width, d.height) for d in found] == [(1, 2, 30, 40)]


def test_excluded_pictures_that_are_named_in_metadata_are_counted_once(tmp_path: Path) -> None:
    write_pictures(tmp_path, 3)
    _metadata(tmp_path, *({"file_name": f"{n:04d}.jpg", "camera": "a"} for n in range(3)))
    found = find_sources(tmp_path, None, ["*1.jpg"])
    assert [candidate.name for candidate in found.candidates] == ["0000.jpg", "0002.jpg"]
    assert found.left_out == {"files and folders by --exclude": (1, "0001.jpg")} and found.failed == () and found.notes == ()


def test_named_files_that_are_no_pictures_are_reported(tmp_path: Path) -> None:
    (picture,) = write_pictures(tmp_path, 1)
    for name in ("notes.txt", "README", "raw.dng"):
        (tmp_path / name).write_text("x")
    shutil.copy(picture, tmp_path / "really.dng")
    names = ("notes.txt", "README", "raw.dng", "really.dng", "nothing.jpg")
    report = Gallery.open(tmp_path / "gallery", ColourEncoder()).add([tmp_path / name for name in names])
    assert report.added == 1 and {name for name, _ in report.failed} == {"notes.txt", "README", "raw.dng", "nothing.jpg"}
    assert dict(report.failed)["nothing.jpg"] == "there is no such file"


def test_formats_that_are_not_read_are_counted_once_over_several_folders(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_pictures(tmp_path / name, 1)
        (tmp_path / name / "x.nef").write_text("x")
    found = find_sources([tmp_path / "a", tmp_path / "b"], None)
    assert found.notes == ("pictures of formats that are not read: 2 .nef; save them as JPEG or PNG and index again",)


def test_videos_are_recognised_by_suffix_or_first_bytes(tmp_path: Path) -> None:
    film = b"\0\0\0\x18ftypisom"
    contents = {
        "a.3gp": film,
        "b.VOB": b"\0\0\1\xba",
        "c.h264": b"x",
        "record": film,
        "d.part": b"\x1a\x45\xdf\xa3",
        "e.mod": b"\0\0\1\xba",
        "f.rec": b"RIFF\0\0\0\0AVI LIST",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "song.m4a").write_bytes(b"\0\0\0\x18ftypM4A \0\0\0\0")
    (tmp_path / "go.mod").write_text("module x")
    found = find_sources(tmp_path, None)
    assert sorted(candidate.name for candidate in found.videos) == sorted(contents) and found.failed == ()
    assert {name for _, name in found.left_out.values()} == {"go.mod", "song.m4a"}
    assert [candidate.name for candidate in find_sources([tmp_path / "record"], None).videos] == ["record"]


def test_a_raw_photograph_that_is_named_is_refused_and_a_renamed_picture_is_read(tmp_path: Path) -> None:
    """Raw photographs are TIFF files whose first image is a small preview, so they must not be read as TIFF."""
    (picture,) = write_pictures(tmp_path, 1)
    Image.new("RGB", (16, 12)).save(tmp_path / "a.NEF", "TIFF")
    shutil.copy(picture, tmp_path / "b.dng")
    raw = ("a.NEF", "is a raw photograph, which is not read; export it as JPEG")
    for found in (find_sources(tmp_path, None), find_sources([tmp_path / "a.NEF", tmp_path / "b.dng"], None)):
        assert found.failed == (raw,) and found.candidates[-1].name == "b.dng"
    _metadata(tmp_path, {"file_name": "a.NEF"}, {"file_name": "b.dng"})
    found = find_sources(tmp_path, None)
    assert found.failed == (raw,) and [candidate.name for candidate in found.candidates] == ["b.dng"]


def test_more_files_of_operating_systems(tmp_path: Path) -> None:
    folders = ("@sharebin", "@SynoResource", "~snapshot", "Network Trash Folder", "Temporary Items", "$WINDOWS.~BT")
    for name in (".", *folders):
        write_pictures(tmp_path / name, 1)
    assert _names(tmp_path) == ["0000.jpg"]
    assert _left_out(tmp_path) == {"files and folders of the system": (6, "$WINDOWS.~BT")}
