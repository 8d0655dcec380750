"""Uploads: hostile files and forms, limits, jobs, removal of files."""

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from starlette.testclient import TestClient

from tbps.gallery.gallery import Gallery
from tbps.gallery.store.lock import lock
from tbps.server.settings import state_folder
from tbps.server.state.layout import SPOOL
from tbps.server.uploads.forms import plain_name
from tests.support.colour_encoder import ColourEncoder
from tests.support.hostile import BROKEN, FOREIGN, FORMS, NAMES, picture, zipped
from tests.support.served import bearer, ended, make_gallery, send, service_of, serving
from tests.support.walkers import Walker, film, write_film


def left(gallery: Path) -> list[Path]:
    """Entries of the spool."""
    return sorted((state_folder(gallery) / SPOOL).glob("*/*"))


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    with serving(make_gallery(tmp_path, [0]), picture_bytes=100_000, upload_bytes=2_000_000, upload_files=30) as client:
        yield client


def gallery_of(client: TestClient) -> Path:
    return service_of(client).gallery.path


@pytest.mark.parametrize("name", list(FOREIGN))
def test_a_foreign_format_is_refused_at_once(client: TestClient, name: str) -> None:
    """The format is detected by content, whatever the file's name."""
    answer = send(client, ("a.jpg", FOREIGN[name]), (f"a.{name}", FOREIGN[name]))
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "format")
    similar = client.post("/v1/similar", files={"image": ("a.jpg", FOREIGN[name])})
    assert (similar.status_code, similar.json()["error"]["code"]) == (400, "image")
    assert left(gallery_of(client)) == []


@pytest.mark.parametrize("name", list(BROKEN))
def test_a_broken_file_is_named_and_adds_nothing(client: TestClient, name: str) -> None:
    job = ended(client, send(client, (name, BROKEN[name])))
    assert job["added"] == 0 and job["state"] in ("done", "failed")
    reasons = [each["reason"] for each in job["skipped"]] + [job["message"]]
    assert any(reasons) and not any(str(gallery_of(client).parent) in reason or SPOOL in reason for reason in reasons)
    if name.endswith((".png", ".jpg", ".webp")):
        similar = client.post("/v1/similar", files={"image": (name, BROKEN[name])})
        assert (similar.status_code, similar.json()["error"]["code"]) == (400, "image")
    assert len(Gallery.open(gallery_of(client), ColourEncoder())) == 1
    assert left(gallery_of(client)) == []


@pytest.mark.parametrize("name", list(FORMS))
@pytest.mark.parametrize("path", ["/v1/index", "/v1/similar"])
def test_malformed_forms(client: TestClient, path: str, name: str) -> None:
    kind, content = FORMS[name]
    answer = client.post(path, content=content, headers={"Content-Type": kind})
    assert answer.status_code in (400, 413, 415, 422) and answer.json()["error"]["message"]
    assert left(gallery_of(client)) == []


def test_names_are_never_paths(client: TestClient, tmp_path: Path) -> None:
    job = ended(client, send(client, *[(name, picture(seed=number)) for number, name in enumerate(NAMES)]))
    assert job["added"] == len(NAMES) and job["skipped"] == []
    sources = {hit.source for hit in Gallery.open(gallery_of(client), ColourEncoder()).search("red", k=50)}
    assert {"x.jpg", "passwd.jpg", "hidden.jpg", "-rf.jpg", "<b>.jpg"} <= sources
    assert all("/" not in source and len(source) <= 130 for source in sources)
    assert left(gallery_of(client)) == []
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "gallery", "gallery.service"}


@pytest.mark.parametrize(
    ("name", "plain"), [("a/b/c.jpg", "c.jpg"), ("..", "upload"), ("", "upload"), ("a\u202egpj.exe", "agpj.exe")]
)
def test_plain_names(name: str, plain: str) -> None:
    assert plain_name(name) == plain


def test_limits_of_uploads(client: TestClient) -> None:
    large = bytes(100_001)
    assert client.post("/v1/similar", files={"image": ("a.jpg", b"\xff\xd8\xff" + large)}).status_code == 413
    assert client.post("/v1/similar", files=[("image", ("a.jpg", picture()))] * 5).status_code == 413
    assert send(client, *[("a.jpg", picture())] * 31).status_code == 413
    assert send(client, ("a.jpg", b"\xff\xd8\xff" + bytes(2_000_001))).status_code == 413
    job = ended(client, send(client, ("a.jpg", b"\xff\xd8\xff" + large)))
    assert job["added"] == 0 and "100,000" in job["skipped"][0]["reason"]

    def endless() -> Iterator[bytes]:  # without Content-Length, as a stream
        yield b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'
        for _ in range(100):
            yield bytes(50_000)

    answer = client.post("/v1/index", content=endless(), headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert answer.status_code == 413
    for path in ("/v1/search", "/v1/similar"):
        kind = {"Content-Type": "application/json"}
        assert client.post(path, content=b" " * 2_000_000, headers=kind).status_code == 413
        assert client.post(path, content=(b" " * 50_000 for _ in range(100)), headers=kind).status_code in (400, 413)
    assert left(gallery_of(client)) == []


def test_pixels_are_counted_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(make_gallery(tmp_path, [0]), pixels=500) as client:
        wide, decoded = picture("PNG", (32, 16)), []
        load = Image.Image.load
        monkeypatch.setattr(Image.Image, "load", lambda self: decoded.append(self.size) or load(self))
        job = ended(client, send(client, ("a.png", wide)))
        assert "500" in job["skipped"][0]["reason"] and job["added"] == 0
        assert client.post("/v1/similar", files={"image": ("a.png", wide)}).status_code == 400
        assert (32, 16) not in decoded


def test_only_pixels_of_a_picture_are_indexed(client: TestClient) -> None:
    """Other content of a file is dropped, and files with the same pixels count as the same picture."""
    plain = picture("PNG", seed=7)
    image = Image.open(io.BytesIO(plain))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", exif=b"Exif\0\0secret place", compress_level=9)
    sent = buffer.getvalue() + b"trailing <script>secret</script>"
    assert ended(client, send(client, ("a.png", sent)))["added"] == 1
    again = ended(client, send(client, ("b.png", plain)))
    assert again["added"] == 0 and "1 were there already" in again["message"]
    for file in gallery_of(client).rglob("*"):
        assert not file.is_file() or b"secret" not in file.read_bytes()


def test_archives_with_metadata_and_columns_for_all(client: TestClient) -> None:
    lines = b'{"file_name": "a.jpg", "camera": "gate", "age": 5}\n{"file_name": "b.png"}\n'
    archive = zipped(**{"metadata.jsonl": lines, "a.jpg": picture(seed=1), "b.png": picture("PNG", seed=2)})
    answer = send(client, ("people.zip", archive), ("c.webp", picture("WEBP", seed=3)), camera="yard", metadata='{"team": "blue"}')
    job = ended(client, answer)
    assert (job["added"], job["done"], job["total"], job["state"]) == (3, 3, 3, "done")
    found = client.post("/v1/search", json={"texts": [{"text": "x"}], "equals": {"team": "blue"}}).json()["hits"]
    assert {hit["source"]: hit["camera"] for hit in found} == {
        "people.zip/a.jpg": "gate",
        "people.zip/b.png": "yard",
        "c.webp": "yard",
    }
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        assert len(opened.namelist()) == 3


def test_people_in_an_uploaded_video_are_indexed(tmp_path: Path) -> None:
    """They get the time and the camera of the form; the source contains no path of the sender."""
    frames, _ = film([Walker(3, 120, 60, tall=220, foot=300)], 21)
    content = write_film(tmp_path / "film.mp4", frames).read_bytes()
    with serving(make_gallery(tmp_path, [0])) as client:
        answer = send(client, ("C:\\films\\lobby.bin", content), camera="lobby", start="2024-05-01T08:30:00")
        job = ended(client, answer)
        assert job["state"] == "done" and job["added"] > 0 and job["skipped"] == []
        asked = {"texts": [{"text": "red"}], "where": "video = 'lobby.bin.mp4'"}
        found = client.post("/v1/search", json=asked).json()["hits"]
        assert len(found) == job["added"]
        for hit in found:
            assert hit["camera"] == "lobby" and "2024-05-01T08:30:00" <= hit["captured_at"] < "2024-05-01T08:30:03"
        detail = client.get(f"{found[0]['image']}/detail").json()
        assert detail["tracklet"] and len(detail["box"]) == 4 and found[0]["id"] in {m["id"] for m in detail["tracklet_members"]}


BAD_FIELDS: tuple[dict[str, str], ...] = (
    {"metadata": "[1]"},
    {"metadata": "{"},
    {"metadata": '{"age": NaN}'},
    {"metadata": "[" * 100_000},
    {"start": "yesterday"},
    {"other": "1"},
)


@pytest.mark.parametrize("data", BAD_FIELDS, ids=range(len(BAD_FIELDS)))
def test_invalid_fields_of_an_upload(client: TestClient, data: dict[str, str]) -> None:
    answer = send(client, ("a.jpg", picture()), **data)
    assert answer.status_code == 400 and answer.json()["error"]["message"]
    assert left(gallery_of(client)) == []


def test_a_failed_job_has_a_message(client: TestClient) -> None:
    film_like = b"\x00\x00\x00\x18ftypisom" + bytes(100)
    job = ended(client, send(client, ("a.mp4", film_like), ("b.mp4", film_like + b"b"), start="2024-05-01"))
    assert job["state"] == "failed" and "one recording" in job["message"]


def test_jobs_can_be_cancelled_are_bounded_and_belong_to_their_owner(tmp_path: Path) -> None:
    gallery = make_gallery(tmp_path, [0])
    lobby, yard = bearer(gallery, "curator", ("lobby",)), bearer(gallery, "curator", ("yard",))
    everything = bearer(gallery, "curator")
    with serving(gallery, jobs=3) as client:
        with lock(gallery):  # the running job waits for the lock of the gallery
            running = send(client, ("a.jpg", picture(seed=1)), headers=everything)
            first = send(client, ("b.jpg", picture(seed=2)), camera="lobby", headers=lobby)
            second = send(client, ("c.jpg", picture(seed=3)), camera="yard", headers=yard)
            more = send(client, ("d.jpg", picture(seed=4)), camera="yard", headers=yard)
            assert (more.status_code, int(more.headers["Retry-After"]) > 0) == (503, True)
            name = first.json()["job"]["id"]
            assert first.json()["job"]["state"] == "waiting"
            assert client.delete(f"/v1/index/{name}", headers=yard).status_code == 404
            assert client.delete(f"/v1/index/{name}", headers=lobby).json()["state"] == "cancelled"
        assert ended(client, running, headers=everything)["added"] == ended(client, second, headers=yard)["added"] == 1
        assert [job["id"] for job in client.get("/v1/index", headers=lobby).json()["jobs"]] == [name]
        assert len(client.get("/v1/index", headers=everything).json()["jobs"]) == 3
        assert left(gallery) == []
    deeds = [json.loads(line)["deed"] for line in (state_folder(gallery) / "audit.jsonl").read_text().splitlines()]
    assert sorted(deeds) == ["cancel", "indexed", "indexed", "indexed", "upload", "upload", "upload"]


def test_uploads_that_a_killed_service_left_are_removed(tmp_path: Path) -> None:
    gallery = make_gallery(tmp_path, [0])
    for part in ("jobs", "asked"):
        old = state_folder(gallery) / SPOOL / part / "0123456789abcdef01234567"
        old.mkdir(parents=True)
        (old / "0000").write_bytes(picture())
        (old / "0001.tar.gz").write_bytes(picture())
    state_folder(gallery).chmod(0o700)
    with serving(gallery) as client:
        assert left(gallery) == [] and client.get("/healthz").status_code == 200
    assert not (state_folder(gallery) / SPOOL).exists()


def test_erased_bytes_are_gone_from_disk(tmp_path: Path) -> None:
    """No uploaded byte of an erased person is left in the gallery or the state folder."""
    gallery = make_gallery(tmp_path, [0])
    sent = picture(seed=9)
    with serving(gallery) as client:
        answer = send(client, ("zebra-crossing.jpg", sent), camera="gate", metadata='{"identity": "quagga person"}')
        assert ended(client, answer)["added"] == 1
        asked = {"texts": [{"text": "red"}], "k": 5}
        (hit,) = [h for h in client.post("/v1/search", json=asked).json()["hits"] if h["identity"] == "quagga person"]
        shown = client.get(hit["image"]).content
        embedding = ColourEncoder().encode_images([Image.open(io.BytesIO(sent))])[0]
        needles = [b"zebra-crossing", b"quagga person", sent[-64:], shown[-64:]]
        places = [gallery, state_folder(gallery)]
        assert [needle for needle in needles if found(needle, places)] == [b"zebra-crossing", b"quagga person", shown[-64:]]
        assert client.post("/v1/forget", json={"identity": "quagga person"}).json()["images"] == 1
        assert client.get(hit["image"]).status_code == 404
        assert hit["id"] not in client.post("/v1/search", json=asked).text
        assert not any(found(needle, places) for needle in (*needles, embedding.tobytes()[:32]))
    assert not any(found(needle, places) for needle in needles)


def found(needle: bytes, places: list[Path]) -> bool:
    return any(needle in file.read_bytes() for place in places for file in place.rglob("*") if file.is_file())
