"""Uploads by curators who are restricted to cameras: added for these cameras, without revealing pictures of others."""

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from tbps.gallery.gallery import Gallery
from tbps.gallery.ingest.footage import Footage, FootageSettings
from tbps.gallery.search.query import Query, Text
from tbps.server.callers.keys import Keys, Role
from tbps.server.settings import state_folder
from tests.support.colour_encoder import ColourEncoder
from tests.support.hostile import picture
from tests.support.served import bearer, ended, make_gallery, send, serving
from tests.support.walkers import Walker, film, write_film


def told(job: dict[str, Any]) -> dict[str, Any]:
    """A job without fields that differ between any two jobs."""
    return {name: value for name, value in job.items() if name not in ("id", "created_at", "rate", "seconds_left")}


def upload(client: TestClient, content: bytes, camera: str, headers: dict[str, str], **data: str) -> dict[str, Any]:
    return told(ended(client, send(client, ("a.bin", content), camera=camera, headers=headers, **data), headers=headers))


def seen(client: TestClient, headers: dict[str, str]) -> list[dict[str, Any]]:
    asked = {"texts": [{"text": "red"}], "k": 100}
    answer = client.post("/v1/search", json=asked, headers=headers)
    return list(answer.json().get("hits", []))


def scene(seed: int) -> bytes:
    """A photograph of a scene with people."""
    frames, _ = film([Walker(3, 120, 60, tall=220, foot=300)], 1 + seed)
    Image.fromarray(frames[seed]).save(buffer := io.BytesIO(), "PNG")
    return buffer.getvalue()


def video(folder: Path, seed: int) -> bytes:
    frames, _ = film([Walker(seed, 120, 60, tall=220, foot=300)], 11)
    return write_film(folder / f"film {seed}.mp4", frames).read_bytes()


@pytest.mark.parametrize("kind", ["picture", "scene", "video"])
def test_pictures_of_another_camera_are_added_as_if_they_were_new(tmp_path: Path, kind: str) -> None:
    make = {"picture": lambda n: picture(seed=n), "scene": scene, "video": lambda n: video(tmp_path, n + 3)}[kind]
    content, detect = make(1), {"detect": "true"} if kind == "scene" else {}
    gallery = make_gallery(tmp_path, [0])
    everything, yard, lobby = (
        bearer(gallery, "curator"),
        bearer(gallery, "curator", ("yard",)),
        bearer(gallery, "curator", ("lobby",)),
    )
    with serving(gallery) as client:
        held = upload(client, content, "yard", everything, **detect)
        mine = upload(client, content, "roof", bearer(gallery, "curator", ("roof",)), **detect)
        first = upload(client, content, "lobby", lobby, **detect)
        assert held["added"] and first == mine == held, "as if no camera had it"
        again = upload(client, content, "lobby", lobby, **detect)
        assert again["added"] == 0 and "there already" in again["message"]
        same = upload(client, content, "yard", yard, **detect)
        assert same["added"] == 0 and "there already" in same["message"], "its own camera has it"
        ids = {camera: {hit["id"] for hit in seen(client, everything) if hit["camera"] == camera} for camera in ("yard", "roof")}
        own = {hit["id"] for hit in seen(client, lobby)}
        assert len(ids["yard"]) == len(ids["roof"]) == held["added"] and not ids["yard"] & ids["roof"]
        assert not own & (ids["yard"] | ids["roof"])
        for name in ids["yard"] | ids["roof"] | {"0" * 24}:
            answer = client.get(f"/v1/images/{name}", headers=lobby)
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_id")
            assert answer.json()["error"]["message"].replace(name, "") == client.get(
                "/v1/images/" + "1" * 24, headers=lobby
            ).json()["error"]["message"].replace("1" * 24, "")
        later = upload(client, content, "lobby", everything, **detect)
        assert later["added"] == 0, "callers who may see the camera learn that it has the picture"


def test_ids_of_scoped_uploads_do_not_reveal_content(tmp_path: Path) -> None:
    """Ids contain the camera, so that they cannot be compared with ids of other cameras."""
    gallery = make_gallery(tmp_path, [0])
    lobby, everything = bearer(gallery, "curator", ("lobby",)), bearer(gallery, "curator")
    content = picture("PNG", seed=8)
    with serving(gallery) as client:
        assert upload(client, content, "lobby", lobby)["added"] == 1
        pixels = Image.open(io.BytesIO(content)).convert("RGB")
        plain = hashlib.sha256(f"RGB {pixels.size} ".encode() + pixels.tobytes()).hexdigest()[:24]
        own = {hit["id"] for hit in seen(client, lobby)}
        assert plain not in own
        assert upload(client, content, "yard", everything)["added"] == 1
        assert {hit["id"] for hit in seen(client, lobby)} == own
        assert plain in {hit["id"] for hit in seen(client, everything)}
        assert client.get(f"/v1/images/{plain}", headers=lobby).status_code == 404


def test_rows_of_two_cameras_are_erased_and_searched_by_themselves(tmp_path: Path) -> None:
    gallery = make_gallery(tmp_path, [0])
    keys = {camera: bearer(gallery, "curator", (camera,)) for camera in ("lobby", "yard")}
    administrator = bearer(gallery, "administrator")
    with serving(gallery) as client:
        for camera, headers in keys.items():
            assert upload(client, picture(seed=3), camera, headers, metadata=json.dumps({"identity": camera}))["added"] == 1
        assert client.post("/v1/forget", json={"identity": "lobby"}, headers=administrator).json()["images"] == 1
        assert [hit["identity"] for hit in seen(client, keys["yard"]) if hit["identity"] == "yard"] == ["yard"]
        assert upload(client, picture(seed=3), "lobby", keys["lobby"])["added"] == 1


def test_the_same_photograph_indexed_for_two_cameras_is_kept_once_and_named(tmp_path: Path) -> None:
    """This applies to callers who may see all cameras, such as `tbps index`: one row per content, and duplicates are reported."""
    gallery = make_gallery(tmp_path, [0])
    opened = Gallery.open(gallery, ColourEncoder())
    photo = tmp_path / "twice.png"
    photo.write_bytes(picture("PNG", seed=5))
    assert opened.add(photo, footage=Footage(FootageSettings(), camera="lobby")).added == 1
    again = opened.add(photo, footage=Footage(FootageSettings(), camera="yard"))
    assert (again.added, again.skipped_existing) == (0, 1)
    assert again.corrected == (("twice.png", "was indexed with other metadata (camera)"),)
    found = opened.find(Query(texts=(Text(text="x"),), equals={"camera": "lobby"})).hits
    assert "twice.png" in {hit.source for hit in found}


@pytest.mark.parametrize(
    ("of_key", "given", "stored"), [("7.0", "7", "7"), ("7", "7.0", "7"), ("e\u0301tage", "\u00e9tage", "\u00e9tage")]
)
def test_all_spellings_of_a_camera_are_recognised(tmp_path: Path, of_key: str, given: str, stored: str) -> None:
    gallery = make_gallery(tmp_path, [0])
    secret, _ = Keys(state_folder(gallery)).add("desk", Role.curator, (of_key,))
    curator = {"Authorization": f"Bearer {secret}"}
    with serving(gallery) as client:
        job = upload(client, picture(seed=3), given, curator)
        assert (job["state"], job["added"]) == ("done", 1)
        assert [hit["camera"] for hit in seen(client, curator)] == [stored]
        assert send(client, ("a.bin", picture(seed=4)), camera="8", headers=curator).status_code == 403
