"""Pictures in uploaded archives are checked like single ones: format by content, limits before decoding, metadata dropped."""

import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import ExifTags, Image
from starlette.testclient import TestClient

from tbps.gallery.gallery import Gallery
from tbps.server.settings import state_folder
from tests.support.colour_encoder import ColourEncoder
from tests.support.hostile import bomb, picture, zipped
from tests.support.served import ended, make_gallery, send, service_of, serving

SECRET = b"zebra secret place"
CAPS = {"picture_bytes": 20_000, "pixels": 5000}
Members = Mapping[str, bytes]
Pack = Callable[[Members], bytes]


def _tar(mode: str) -> Pack:
    def pack(members: Members) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        return buffer.getvalue()

    return pack


PACKS: dict[str, Pack] = {"zip": lambda members: zipped(**members), "tar": _tar("w"), "tar.gz": _tar("w:gz")}

# Name in the archive -> content, and part of the reason why it is refused.
REFUSED: dict[str, tuple[bytes, str]] = {
    "plain.bmp": (picture("BMP"), "not a JPEG, PNG or WebP"),
    "scan.tif": (picture("TIFF"), "not a JPEG, PNG or WebP"),
    "moving.gif": (picture("GIF"), "is not a JPEG, PNG or WebP picture"),
    "bmp.jpg": (picture("BMP"), "not a JPEG, PNG or WebP"),
    "tiff.png": (picture("TIFF"), "not a JPEG, PNG or WebP"),
    "gif.webp": (picture("GIF"), "not a JPEG, PNG or WebP"),
    "zip.jpg": (zipped(a=b"a"), "not a JPEG, PNG or WebP"),
    "svg.png": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "not a JPEG, PNG or WebP"),
    "empty.jpg": (b"", "not a JPEG, PNG or WebP"),
    "wide.png": (picture("PNG", (100, 51)), "100 x 51 pixels are more than 5,000"),
    "bomb.png": (bomb(), "pixels"),
    "heavy.jpg": (picture() + bytes(20_000), "more than 20,000"),
    "cut.jpg": (picture()[:300], "not a readable"),
    "inner.zip": (zipped(**{"a.jpg": picture()}), "archive inside an archive"),
    "film.mp4": (b"\x00\x00\x00\x18ftypisom" + bytes(100), "video inside an archive"),
    "../climbing.jpg": (picture(seed=99), "leads out of the archive"),
}
GOOD: dict[str, bytes] = {
    "a/1.jpg": picture(seed=1),
    "a/2.png": picture("PNG", seed=2),
    "a/3.webp": picture("WEBP", seed=3),
    "png as.jpg": picture("PNG", seed=4),
}


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    with serving(make_gallery(tmp_path, [0]), **CAPS) as client:
        yield client


def sources(client: TestClient) -> list[str]:
    hits = Gallery.open(service_of(client).gallery.path, ColourEncoder()).search("red", k=200)
    return sorted(hit.source for hit in hits if "/" in hit.source)


def told(job: Any) -> dict[str, str]:
    return {each["name"]: each["reason"] for each in job["skipped"]}


@pytest.mark.parametrize("ending", list(PACKS))
def test_hostile_members_are_skipped_with_a_reason(client: TestClient, tmp_path: Path, ending: str) -> None:
    first, *rest = GOOD.items()
    members = dict([first, *((name, content) for name, (content, _) in REFUSED.items()), *rest])
    before = {path.name for path in tmp_path.iterdir()}
    job = ended(client, send(client, (f"people.{ending}", PACKS[ending](members))))
    assert (job["state"], job["added"]) == ("done", len(GOOD))
    reasons = told(job)
    assert reasons.keys() == {f"people.{ending}/{name}" for name in REFUSED}
    for name, (_, part) in REFUSED.items():
        assert part in reasons[f"people.{ending}/{name}"], (name, reasons)
    assert sources(client) == sorted(f"people.{ending}/{name}" for name in GOOD)
    assert {path.name for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("ending", list(PACKS))
def test_known_pictures_are_recognised_alone_and_in_archives(client: TestClient, ending: str) -> None:
    assert ended(client, send(client, ("alone.jpg", GOOD["a/1.jpg"])))["added"] == 1
    archive = PACKS[ending](GOOD)
    assert ended(client, send(client, (f"a.{ending}", archive)))["added"] == len(GOOD) - 1
    again = ended(client, send(client, (f"a.{ending}", archive)))
    assert again["added"] == 0 and f"{len(GOOD)} were there already" in again["message"]
    assert ended(client, send(client, ("alone.png", GOOD["a/2.png"])))["added"] == 0
    other = "tar" if ending == "zip" else "zip"
    assert ended(client, send(client, (f"b.{other}", PACKS[other](GOOD))))["added"] == 0


def _loaded(kind: str) -> bytes:
    """A picture with secrets in every metadata field of its format, followed by a zip file."""
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = SECRET.decode()
    exif[ExifTags.IFD.GPSInfo] = {1: "N", 2: (52.0, 31.0, 12.0), 29: SECRET.decode()}
    image = Image.open(io.BytesIO(picture("PNG", seed=7)))
    more: dict[str, Any] = {"JPEG": {"comment": SECRET, "quality": 95}, "PNG": {}, "WEBP": {"lossless": True, "xmp": SECRET}}[kind]
    image.save(buffer := io.BytesIO(), kind, exif=exif, icc_profile=b"\0" * 128 + SECRET, **more)
    content = buffer.getvalue() + zipped(**{"inside.txt": b"x"}) + SECRET
    assert content.count(SECRET) >= 3
    return content


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("ending", list(PACKS))
def test_nothing_but_pixels_reaches_the_gallery(client: TestClient, ending: str, kind: str) -> None:
    loaded = _loaded(kind)
    job = ended(client, send(client, (f"a.{ending}", PACKS[ending]({f"x.{kind.lower()}": loaded}))))
    assert (job["added"], job["skipped"]) == (1, [])
    folder = service_of(client).gallery.path
    for file in [*folder.rglob("*"), *state_folder(folder).rglob("*")]:
        content = file.read_bytes() if file.is_file() else b""
        assert SECRET not in content and b"inside.txt" not in content and b"Exif" not in content, file
    with Image.open(io.BytesIO(loaded)) as image:
        image.convert("RGB").save(plain := io.BytesIO(), "PNG")
    assert ended(client, send(client, ("plain.png", plain.getvalue())))["added"] == 0, "the same pixels are the same picture"


def test_pixels_and_bytes_of_members_are_counted_before_decoding(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    members = {"wide.png": picture("PNG", (100, 51)), "heavy.jpg": picture() + bytes(20_000), "ok.png": picture("PNG", (20, 40))}
    archive = zipped(**members)
    decoded, read = [], []
    load, opened = Image.Image.load, zipfile.ZipFile.open
    monkeypatch.setattr(Image.Image, "load", lambda self: decoded.append(self.size) or load(self))
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda self, info, *more: read.append(info.filename) or opened(self, info, *more))
    assert ended(client, send(client, ("a.zip", archive)))["added"] == 1
    assert (20, 40) in decoded and (100, 51) not in decoded
    assert sorted(read) == ["ok.png", "wide.png"]


@pytest.mark.parametrize("ending", list(PACKS))
def test_pictures_named_in_metadata_are_checked_too(client: TestClient, ending: str) -> None:
    lines = [{"file_name": name, "camera": "gate", "age": number} for number, name in enumerate([*GOOD, "plain.bmp", "wide.png"])]
    members = {
        "metadata.jsonl": "\n".join(map(json.dumps, lines)).encode(),
        **GOOD,
        **{name: REFUSED[name][0] for name in ("plain.bmp", "wide.png")},
    }
    job = ended(client, send(client, (f"a.{ending}", PACKS[ending](members))))
    assert job["added"] == len(GOOD) and sorted(told(job)) == [f"a.{ending}/plain.bmp", f"a.{ending}/wide.png"]
    found = client.post("/v1/search", json={"texts": [{"text": "x"}], "cameras": ["gate"], "k": 50}).json()["hits"]
    assert {hit["source"]: hit["attributes"]["age"] for hit in found} == {
        f"a.{ending}/{name}": number for number, name in enumerate(GOOD)
    }


def test_a_shard_with_its_metadata(client: TestClient) -> None:
    members: dict[str, bytes] = {}
    for number, (content, _) in enumerate([(picture(seed=20), ""), REFUSED["bmp.jpg"], (picture("JPEG", seed=21), "")]):
        members[f"{number:06d}.jpg"] = content
        members[f"{number:06d}.txt"] = b"a woman in a red coat"
        members[f"{number:06d}.json"] = json.dumps({"caption": "a woman", "camera": f"c{number}"}).encode()
    job = ended(client, send(client, ("shard-000000.tar", _tar("w")(members))))
    assert job["added"] == 2 and list(told(job)) == ["shard-000000.tar/000001.jpg"]
    found = client.post("/v1/search", json={"texts": [{"text": "x"}], "cameras": ["c0", "c2"]}).json()["hits"]
    assert sorted(hit["camera"] for hit in found) == ["c0", "c2"]


def test_people_in_scenes_of_an_archive(client: TestClient) -> None:
    """With `detect`, members are opened with the same limits."""
    job = ended(client, send(client, ("a.zip", zipped(**{"bmp.jpg": REFUSED["bmp.jpg"][0], "1.jpg": picture()})), detect="true"))
    assert job["added"] == 0 and told(job) == {
        "a.zip/bmp.jpg": "is not a JPEG, PNG or WebP picture",
        "a.zip/1.jpg": "no person was found",
    }
