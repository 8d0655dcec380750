"""Pictures in tar and zip archives: listing, reading, and refused members."""

import bz2
import gzip
import io
import json
import lzma
import os
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from tbps.errors import DataError
from tbps.gallery.gallery import Gallery
from tbps.gallery.ingest.sources import archives, containers
from tbps.gallery.ingest.sources.archives import list_archive, read_members
from tbps.gallery.ingest.sources.find import find_sources
from tests.support.colour_encoder import ColourEncoder, write_pictures

Members = Mapping[str, bytes]
Write = Callable[[Path, Members], Path]


def _tar(path: Path, members: Members) -> Path:
    with tarfile.open(path, {".gz": "w:gz", ".bz2": "w:bz2", ".xz": "w:xz"}.get(path.suffix, "w")) as tar:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def _zip(path: Path, members: Members) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def _write(path: Path, members: Members) -> Path:
    return _zip(path, members) if path.suffix == ".zip" else _tar(path, members)


def _jpegs(tmp_path: Path, count: int, seed: int = 0) -> list[bytes]:
    return [file.read_bytes() for file in write_pictures(tmp_path / f"pictures-{seed}", count, seed)]


@pytest.mark.parametrize("ending", ["tar", "tar.gz", "tar.bz2", "tar.xz", "zip"])
def test_an_archive_gives_the_same_rows_as_its_folder(ending: str, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    contents = {f"a/{number}.jpg": content for number, content in enumerate(_jpegs(tmp_path, 12))}
    for name, content in contents.items():
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        (photos / name).write_bytes(content)
    lines = [{"file_name": name, "camera": f"c{number % 3}", "hour": number} for number, name in enumerate(contents)]
    metadata = "".join(json.dumps(line) + "\n" for line in lines)
    (photos / "metadata.jsonl").write_text(metadata)
    # metadata.jsonl is the last member, as it may be in archives that `tar` writes.
    packed = _write(tmp_path / f"people.{ending}", {**contents, "notes.txt": b"x", "metadata.jsonl": metadata.encode()})
    folder, archive = (Gallery.open(tmp_path / name, ColourEncoder()) for name in ("of-folder", "of-archive"))
    folder.add(photos)
    report = archive.add(packed, batch_size=5)
    assert (report.added, report.failed, report.notes) == (12, (), ())
    for expected, found in zip(folder.search("x", 12), archive.search("x", 12), strict=True):
        assert found.source == f"people.{ending}/{expected.source}" and found.root == str(tmp_path)
        assert (found.id, found.camera, found.attributes) == (expected.id, expected.camera, expected.attributes)
        assert found.score == pytest.approx(expected.score, abs=1e-6)
        assert found.thumbnail == expected.thumbnail
    again = archive.add(packed)
    assert (again.added, again.skipped_existing, again.duplicates) == (0, 12, ())
    assert sorted(path.name for path in (tmp_path / "of-archive").iterdir()) == [".lock", "gallery.json", "images.lance"]


def _shards(folder: Path, tmp_path: Path) -> None:
    folder.mkdir()
    for shard in range(3):
        members: dict[str, bytes] = {}
        for number, content in enumerate(_jpegs(tmp_path, 4, seed=shard)):
            members[f"{number:06d}.jpg"] = content
            members[f"{number:06d}.txt"] = b"a woman in a red coat"
            members[f"{number:06d}.json"] = json.dumps({"caption": "a woman", "shard": shard, "camera": f"c{number}"}).encode()
        _tar(folder / f"people-{shard:03d}.tar", members)


def test_webdataset_shards_by_folder_and_by_pattern(tmp_path: Path) -> None:
    _shards(tmp_path / "shards", tmp_path)
    by_folder = find_sources(tmp_path / "shards", None)
    by_pattern = find_sources(str(tmp_path / "shards" / "people-{000..002}.tar"), None)
    assert by_folder.candidates == by_pattern.candidates and by_folder.failed == by_pattern.failed == ()
    assert [c.name for c in by_folder.candidates][:5] == [
        *(f"people-000.tar/{n:06d}.jpg" for n in range(4)),
        "people-001.tar/000000.jpg",
    ]
    assert by_folder.candidates[5].columns == {"shard": 1, "camera": "c1"}
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    assert gallery.add(tmp_path / "shards").added == 12
    assert {hit.source for hit in gallery.search("x", 99, "shard = 2 and camera = 'c3'")} == {"people-002.tar/000003.jpg"}


def test_brace_patterns(tmp_path: Path) -> None:
    for name in ("a-8.tar", "a-9.tar", "a-10.tar", "b-9.tar"):
        _tar(tmp_path / name, {"x.jpg": name.encode()})

    def names(pattern: str) -> list[str]:
        return [candidate.name for candidate in find_sources(str(tmp_path / pattern), None).candidates]

    assert names("a-{8..10}.tar") == ["a-8.tar/x.jpg", "a-9.tar/x.jpg", "a-10.tar/x.jpg"]
    assert names("{a,b}-9.tar") == ["a-9.tar/x.jpg", "b-9.tar/x.jpg"]
    found = find_sources(str(tmp_path / "{a,b}-{8..9}.tar"), None)
    assert [name for name, _ in found.failed] == ["b-8.tar"]
    with pytest.raises(DataError, match=r"none of the 2 files of .* exists, such as .*c-1.tar"):
        names("c-{1..2}.tar")
    with pytest.raises(DataError, match="more than 100,000"):
        names("a-{0..999999999}.tar")


def _hostile_tar(path: Path, jpeg: bytes, target: Path) -> Path:
    with tarfile.open(path, "w") as tar:
        for name in ("../up.jpg", f"{target}/absolute.jpg", "a/../../up.jpg", "C:\\drive.jpg", "..\\up.jpg", "ok.jpg", "./ok.jpg"):
            info = tarfile.TarInfo(name)
            info.size = len(jpeg)
            tar.addfile(info, io.BytesIO(jpeg))
        for name, kind in (("soft.jpg", tarfile.SYMTYPE), ("hard.jpg", tarfile.LNKTYPE), ("null.jpg", tarfile.CHRTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, str(target / "secret.jpg")
            tar.addfile(info)
    return path


def test_members_outside_the_archive_links_and_devices_are_refused_by_name(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    jpeg, secret = _jpegs(tmp_path, 2)
    (outside / "secret.jpg").write_bytes(secret)
    before = sorted(tmp_path.rglob("*"))
    contents = list_archive(_hostile_tar(tmp_path / "hostile.tar", jpeg, outside))
    assert [picture.name for picture in contents.pictures] == ["ok.jpg"]
    reasons = dict(contents.failed)
    escapes = ["../up.jpg", f"{outside}/absolute.jpg", "a/../../up.jpg", "C:\\drive.jpg", "..\\up.jpg"]
    assert all("leads out of the archive" in reasons[name] for name in escapes)
    assert "appears twice" in reasons["./ok.jpg"]
    assert "is a link" in reasons["soft.jpg"] and "is a link" in reasons["hard.jpg"] and "device" in reasons["null.jpg"]
    assert sorted(tmp_path.rglob("*")) == sorted([*before, tmp_path / "hostile.tar"])


def test_links_and_encrypted_members_of_a_zip_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "hostile.zip"
    with zipfile.ZipFile(path, "w") as archive:
        link = zipfile.ZipInfo("link.jpg")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("locked.jpg", b"x")
        archive.writestr("__MACOSX/._ok.jpg", b"x")
        archive.writestr("inner.zip", b"x")
        archive.writestr("film.mp4", b"x")
        archive.writestr("layers.psd", b"x")
    content = bytearray(path.read_bytes())
    at = content.index(b"PK\1\2", content.index(b"PK\1\2") + 4)
    content[at + 8] |= 1  # sets the flag of encryption
    path.write_bytes(content)
    contents = list_archive(path)
    assert contents.pictures == ()
    assert dict(contents.failed) == {
        "link.jpg": "is a link, which is not followed",
        "locked.jpg": "is encrypted",
        "inner.zip": "is an archive inside an archive, which is not opened; index it by itself",
        "film.mp4": "is a video inside an archive, which is not opened; index it by itself",
        "layers.psd": "is a picture of a format that is not read; save it as JPEG or PNG",
    }


@pytest.mark.parametrize("ending", ["tar", "tar.gz", "tar.xz", "zip"])
def test_the_readable_part_of_a_truncated_archive_is_added(ending: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    members = {f"{n:02d}.jpg": jpeg + noise.bytes(20_000) for n, jpeg in enumerate(_jpegs(tmp_path, 20))}
    whole = _write(tmp_path / f"whole.{ending}", members).read_bytes()
    cut = tmp_path / f"cut.{ending}"
    cut.write_bytes(whole[: len(whole) // 2])
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    report = gallery.add(cut)
    if ending == "zip":  # a zip file has its list of contents at the end
        assert report.added == 0 and report.failed[0][0] == "cut.zip" and "list of contents cannot be read" in report.failed[0][1]
    else:
        assert 7 <= report.added <= 10
        assert [hit.source for hit in gallery.search("x", 99, f"source = 'cut.{ending}/06.jpg'")]
        assert any(name == f"cut.{ending}" and "ends early" in reason for name, reason in report.failed)
    whole_again = Gallery.open(tmp_path / "gallery", ColourEncoder()).add(tmp_path / f"whole.{ending}")
    assert whole_again.added + report.added == 20


def test_a_damaged_header_is_reported(tmp_path: Path) -> None:
    path = _tar(tmp_path / "a.tar", {"1.jpg": b"x" * 512, "2.jpg": b"y"})
    content = bytearray(path.read_bytes())
    content[1024 + 10 : 1024 + 200] = b"\xff" * 190
    path.write_bytes(content)
    contents = list_archive(path)
    assert [picture.name for picture in contents.pictures] == ["1.jpg"]
    assert contents.failed[0][0] == "" and "damaged header" in contents.failed[0][1]


def test_files_that_are_not_archives_are_reported(tmp_path: Path) -> None:
    for name, content in (("a.tar", b""), ("b.tar", b"text" * 999), ("c.zip", b"PK\3\4 no"), ("d.tar.gz", b"\x1f\x8b\x08")):
        (tmp_path / name).write_bytes(content)
    _tar(tmp_path / "e.tar", {"notes.txt": b"x"})
    found = find_sources(tmp_path, None)
    reasons = dict(found.failed)
    assert found.candidates == () and sorted(reasons) == ["a.tar", "b.tar", "c.zip", "d.tar.gz", "e.tar"]
    assert "is not a readable tar or zip archive" in reasons["b.tar"] and "holds no picture" in reasons["e.tar"]


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_compressed_bomb_is_stopped_and_earlier_members_are_kept(pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    jpeg = _jpegs(tmp_path, 1)[0]
    plain = _tar(tmp_path / "plain.tar", {"ok.jpg": jpeg, "bomb.bin": bytes(100 * 2**20), "late.jpg": jpeg}).read_bytes()
    bomb = tmp_path / "bomb.tar.gz"
    bomb.write_bytes(pack(plain))
    contents = list_archive(bomb)
    assert [picture.name for picture in contents.pictures] == ["ok.jpg"]
    assert "decompression bomb" in contents.failed[0][1]


def test_a_zip_bomb_is_stopped(tmp_path: Path) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(4):
            archive.writestr(f"{number}.bmp", bytes(40 * 2**20))
    numbers = [picture.number for picture in list_archive(path).pictures]
    read = list(read_members(path, numbers))
    assert [type(content) for content in read] == [bytes, str, str, str]
    assert all("decompression bomb" in str(content) for content in read[1:])


def test_size_and_number_of_members_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_FILE_BYTES", 1000)
    monkeypatch.setattr(containers, "MAX_MEMBERS", 3)
    for path in (tmp_path / "a.tar", tmp_path / "a.zip"):
        _write(path, {"0.jpg": bytes(1001), "1.jpg": b"a", "2.jpg": b"b", "3.jpg": b"c"})
        contents = list_archive(path)
        assert [picture.name for picture in contents.pictures] == ["0.jpg", "1.jpg", "2.jpg"]
        assert "more than 3 members" in contents.failed[0][1]
        assert list(read_members(path, [0, 2])) == ["1,001 bytes are more than 1,000", b"b"]


def test_the_total_size_of_an_archives_metadata_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_METADATA_BYTES", 30)
    members = {"1.jpg": b"1", "1.json": b'{"hat": "red"}', "2.jpg": b"2", "2.json": b'{"hat": "blue coloured"}'}
    contents = list_archive(_tar(tmp_path / "a.tar", members))
    assert [(p.name, p.columns) for p in contents.pictures] == [("1.jpg", {"hat": "red"}), ("2.jpg", {})]
    assert contents.failed == (("2.json", "24 bytes are more than 16"),)


def test_thumbnails_hold_no_exif_data_and_no_comment(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "secret camera"
    exif[ExifTags.IFD.GPSInfo] = {1: "N", 2: (52.0, 31.0, 12.0)}
    Image.new("RGB", (300, 600), "red").save(buffer := io.BytesIO(), "JPEG", exif=exif, comment=b"secret comment")
    assert b"secret camera" in buffer.getvalue() and b"secret comment" in buffer.getvalue()
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    gallery.add(_zip(tmp_path / "a.zip", {"1.jpg": buffer.getvalue()}))
    (hit,) = gallery.search("x")
    assert b"secret" not in hit.thumbnail and b"Exif" not in hit.thumbnail
    assert not any(b"secret" in file.read_bytes() for file in (tmp_path / "gallery").rglob("*") if file.is_file())


def test_a_member_name_of_gigabytes_is_refused(tmp_path: Path) -> None:
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 5 * 2**30
    path = tmp_path / "long.tar"
    with path.open("wb") as file:
        file.write(header.tobuf(tarfile.GNU_FORMAT))
        os.truncate(path, 6 * 2**30)  # a sparse file, which takes no disk space
    assert "name of more than" in list_archive(path).failed[0][1]


def test_only_pictures_named_in_the_metadata_of_an_archive_are_listed(tmp_path: Path) -> None:
    lines = [{"file_name": "1.jpg", "camera": "a"}, {"file_name": "../2.jpg"}, {"file_name": "9.jpg"}, {"file_name": "./1.jpg"}]
    members = {
        "sub/1.jpg": b"1",
        "sub/1.json": b'{"camera": "b", "hat": true}',
        "sub/3.jpg": b"3",
        "sub/3.json": b"[]",
        "sub/metadata.jsonl": "\n".join(map(json.dumps, lines)).encode(),
    }
    contents = list_archive(_tar(tmp_path / "a.tar", members))
    assert [(p.name, p.columns) for p in contents.pictures] == [("sub/1.jpg", {"camera": "a", "hat": True})]
    assert [name for name, _ in contents.failed] == ["sub/3.json", "../2.jpg", "9.jpg", "./1.jpg"]
    assert contents.notes == ("1 pictures are not named in its metadata.jsonl and were left out",)


def test_a_metadata_line_of_the_folder_gives_columns_to_an_archive(tmp_path: Path) -> None:
    _tar(tmp_path / "a.tar", {"1.jpg": b"1", "1.json": b'{"hat": true}'})
    _tar(tmp_path / "b.tar", {"2.jpg": b"2"})
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.tar", "camera": "lobby"}\n')
    found = find_sources(tmp_path, None)
    assert [(c.name, c.columns) for c in found.candidates] == [
        ("a.tar/1.jpg", {"camera": "lobby", "hat": True}),
        ("b.tar/2.jpg", {}),
    ]


def test_zstd_is_read_or_refused_with_instructions(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.zst"
    try:
        from compression import zstd
    except ImportError:
        path.write_bytes(b"\x28\xb5\x2f\xfd" + bytes(20))
        assert "needs Python 3.14; unpack it to a plain tar with: zstd -d" in list_archive(path).failed[0][1]
    else:
        path.write_bytes(zstd.compress(_tar(tmp_path / "a.tar", {"1.jpg": b"x"}).read_bytes()))
        assert [picture.name for picture in list_archive(path).pictures] == ["1.jpg"]
