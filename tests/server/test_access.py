"""Authorization: every route by role and camera, sessions, host names, cross-site requests, rate limits."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.routing import Route
from starlette.testclient import TestClient

from tbps.errors import SettingsError
from tbps.gallery.gallery import Gallery
from tbps.server.callers.keys import Keys, Role
from tbps.server.guard import Guard
from tbps.server.service import Service
from tbps.server.settings import ServiceSettings, state_folder
from tests.support.colour_encoder import ColourEncoder, write_pictures
from tests.support.served import ADDRESS, CAMERAS, CHANGES, COUNT, bearer, columns, make_gallery, service_of, serving

PUBLIC = {
    ("GET", "/"),
    ("GET", "/page/{name}"),
    ("GET", "/healthz"),
    ("GET", "/v1/openapi.json"),
    ("GET", "/v1/session"),
    ("POST", "/v1/session"),
    ("DELETE", "/v1/session"),
}
# Arguments of a valid request to each route; `{id}` and `{job}` are replaced by ids of an existing image and job.
ASKED: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", "/v1/search"): {"json": {"texts": [{"text": "red"}], "k": 100}},
    ("POST", "/v1/similar"): {"json": {"id": "{id}", "query": {"k": 100}}},
    ("POST", "/v1/feedback"): {"json": {"query": {"texts": [{"text": "red"}], "k": 100}, "right": ["{id}"]}},
    ("POST", "/v1/explain"): {"json": {"query": {"texts": [{"text": "red"}]}, "id": "{id}"}},
    ("GET", "/v1/images/{id}"): {},
    ("GET", "/v1/images/{id}/detail"): {},
    ("GET", "/v1/gallery"): {},
    ("POST", "/v1/index"): {"files": [("files", ("note.txt", b"no picture"))]},
    ("GET", "/v1/index"): {},
    ("GET", "/v1/index/{job}"): {},
    ("DELETE", "/v1/index/{job}"): {},
    ("POST", "/v1/forget"): {"json": {"ids": ["{id}"], "dry_run": True}},
    ("GET", "/metrics"): {},
}
NEEDS = (
    {path: Role.viewer for path in ASKED}
    | {key: Role.curator for key in ASKED if key[1].startswith("/v1/index")}
    | {("POST", "/v1/forget"): Role.administrator, ("GET", "/metrics"): Role.administrator}
)


def routes(app: FastAPI) -> Iterator[tuple[str, str, Route]]:
    """Method, path and route of all routes of the application."""
    waiting = list(app.routes)
    while waiting:
        route = waiting.pop()
        inner = getattr(route, "original_router", None)
        if inner is not None:
            waiting += inner.routes
            continue
        assert isinstance(route, Route), f"{route} is of a kind that this test does not know"
        for method in (route.methods or set()) - {"HEAD"}:
            yield method, route.path, route


def guards(dependant: Dependant) -> list[Guard]:
    found = [dependant.call] if isinstance(dependant.call, Guard) else []
    return found + [guard for inner in dependant.dependencies for guard in guards(inner)]


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_gallery(tmp_path_factory.mktemp("access"))


@pytest.fixture(scope="module")
def client(gallery: Path) -> Iterator[TestClient]:
    bearer(gallery, "administrator")  # keys are required from now on
    with serving(gallery, failures_per_minute=1000) as client:
        client.headers.pop("X-Tbps")
        yield client


@pytest.fixture(scope="module")
def callers(gallery: Path, client: TestClient) -> dict[tuple[str, tuple[str, ...] | None], dict[str, str]]:
    every = [("viewer", None), ("curator", None), ("administrator", None), ("viewer", ("lobby",)), ("curator", ("lobby",))]
    every.append(("viewer", ("lobby", "roof")))
    for key in Keys(state_folder(gallery)).all():
        Keys(state_folder(gallery)).remove(key.name)
    return {(role, cameras): bearer(gallery, role, cameras) for role, cameras in every}


@pytest.fixture(scope="module")
def ids(gallery: Path) -> dict[int, str]:
    hits = Gallery.open(gallery, ColourEncoder()).search("red", k=COUNT)
    return {int(hit.attributes["age"]): hit.id for hit in hits}  # type: ignore[arg-type]


def ask(client: TestClient, method: str, path: str, headers: dict[str, str], **names: str) -> Any:
    def filled(value: Any) -> Any:
        for name, given in names.items():
            value = value.replace(f"{{{name}}}", given)
        return value

    asked = {key: json.loads(filled(json.dumps(value))) if key == "json" else value for key, value in ASKED[method, path].items()}
    return client.request(method, filled(path), headers=headers, **asked)


def test_every_route_has_a_guard_or_shows_nothing_of_the_gallery(client: TestClient) -> None:
    app: Any = client.app
    guarded = {}
    for method, path, route in routes(app):
        found = guards(route.dependant) if isinstance(route, APIRoute) else []
        if (method, path) not in PUBLIC:
            assert len(found) == 1, f"{method} {path} has no guard"
            guarded[method, path] = found[0].role
    assert guarded == NEEDS, "add new routes to this table"


@pytest.mark.parametrize(("method", "path"), list(ASKED), ids=lambda value: value)
def test_route_by_role_by_camera(client: TestClient, callers: Any, ids: dict[int, str], method: str, path: str) -> None:
    job = "0" * 24  # there is no such job; callers with the role get 404
    assert ask(client, method, path, CHANGES, id=ids[0], job=job).status_code == 401
    assert ask(client, method, path, {"Authorization": "Bearer tbps_wrong"}, id=ids[0], job=job).status_code == 401
    takes_id = "{id}" in path or "{id}" in json.dumps(ASKED[method, path].get("json", ""))
    for (role, cameras), headers in callers.items():
        for number in (0, 1, 2):  # one image of each camera
            answer = ask(client, method, path, headers, id=ids[number], job=job)
            seen = cameras is None or CAMERAS[number] in cameras
            if Role(role).level < NEEDS[method, path].level:
                assert (answer.status_code, answer.json()["error"]["code"]) == (403, "role")
            elif takes_id and not seen:
                unknown = ask(client, method, path, headers, id="f" * 24, job=job)
                assert answer.status_code == unknown.status_code == 404
                assert answer.text == unknown.text.replace("f" * 24, ids[number]), (
                    "images of other cameras are answered like unknown ids"
                )
            else:
                expected = {"/v1/index/{job}": 404}.get(path, 200)
                if (method, path) == ("POST", "/v1/index"):
                    expected = 415 if cameras is None else 403  # no picture; no camera named
                assert answer.status_code == expected, answer.text
            check_cameras(answer, cameras)


@pytest.mark.parametrize(("method", "path"), list(ASKED), ids=lambda value: value)
def test_a_session_may_do_what_its_key_may(client: TestClient, callers: Any, ids: dict[int, str], method: str, path: str) -> None:
    """The session cookie authorizes requests, with the X-Tbps header if they change something. Basic authorization is ignored."""
    names = {"id": ids[0], "job": "0" * 24}
    for headers in callers.values():
        secret = headers["Authorization"].removeprefix("Bearer ")
        client.post("/v1/session", json={"key": secret}, headers=CHANGES)
        ((name, token),) = client.cookies.items()
        client.cookies.clear()
        cookie = {"Cookie": f"{name}={token}"}
        by_key = ask(client, method, path, headers, **names)
        for more in ({}, {"Authorization": "Basic dXNlcjpwYXNz"}):
            by_cookie = ask(client, method, path, {**cookie, **CHANGES, **more}, **names)
            assert (by_cookie.status_code, by_cookie.headers["content-type"]) == (
                by_key.status_code,
                by_key.headers["content-type"],
            )
            without = ask(client, method, path, {**cookie, **more}, **names)
            assert without.status_code == (by_key.status_code if method == "GET" else 403)
        assert ask(client, method, path, {"Cookie": f"tbps_session={token}", **CHANGES}, **names).status_code == 401
        assert client.delete("/v1/session", headers={**cookie, **CHANGES}).status_code == 200
        assert ask(client, method, path, {**cookie, **CHANGES}, **names).status_code == 401
        client.cookies.clear()
    assert ask(client, method, path, {**CHANGES, "Authorization": "Basic dXNlcjpwYXNz"}, **names).status_code == 401


def check_cameras(answer: Any, cameras: tuple[str, ...] | None) -> None:
    """No name, number, time or value of another camera occurs anywhere in the answers."""
    if cameras is None or "json" not in answer.headers["content-type"]:
        return
    allowed = [number for number in range(COUNT) if CAMERAS[number % 3] in cameras]
    others = [camera for camera in CAMERAS if camera not in cameras]
    assert not any(json.dumps(other) in answer.text for other in others)
    found = answer.json()
    if "hits" in found:
        assert {hit["attributes"]["age"] for hit in found["hits"]} == set(allowed)
        assert found["total"] == len(allowed)
    if "tracklet_members" in found:
        same = [number for number in allowed if f"t{number % 4}" == found["tracklet"]]
        assert len(found["tracklet_members"]) == len(same) > 1
    if "columns" in found:
        times = [columns(number)["captured_at"] for number in allowed]
        assert (found["images"], found["first_seen"], found["last_seen"]) == (len(allowed), min(times), max(times))
        ages = next(column for column in found["columns"] if column["name"] == "age")["values"]
        assert sorted(ages) == allowed


@pytest.mark.parametrize(
    "query",
    [
        {"where": "camera = 'yard'"},
        {"where": "camera = 'lobby' or camera = 'yard'"},
        {"where": "true) or (true"},
        {"where": "1 = 1 or camera is null"},
        {"cameras": ["yard"]},
        {"cameras": ["yard", "lobby"]},
        {"equals": {"camera": "yard"}},
        {"group": "identity", "where": "age >= 0"},
        {"group": "camera"},
        {"offset": 3},
    ],
    ids=str,
)
def test_no_condition_reaches_images_of_other_cameras(client: TestClient, callers: Any, query: dict[str, Any]) -> None:
    headers = callers["viewer", ("lobby",)]
    answer = client.post("/v1/search", json={"texts": [{"text": "red"}], "k": 100, **query}, headers=headers)
    if answer.status_code == 400:
        assert any(word in answer.text for word in ("bracket", "no camera 'yard'", "two values are compared")), answer.text
        return
    found = answer.json()
    assert found["total"] <= COUNT // 3
    assert all(hit["camera"] == "lobby" for hit in found["hits"])
    known = {
        hit["id"] for hit in client.post("/v1/search", json={"texts": [{"text": "a"}], "k": 100}, headers=headers).json()["hits"]
    }
    for hit in found["hits"]:
        assert hit["group"] is None or set(hit["group"]["ids"]) <= known
        assert hit["group"] is None or hit["group"]["count"] == len(hit["group"]["ids"])


def test_errors_do_not_depend_on_rows_of_other_cameras(client: TestClient, callers: Any) -> None:
    """A condition that would divide by zero at a row of another camera is refused for every caller alike."""
    assert CAMERAS[4 % 3] == "yard"
    asked = {"texts": [{"text": "red"}], "where": "1 / cast(age - 4 as int) < 2"}
    for cameras in (("lobby",), None):
        answer = client.post("/v1/search", json=asked, headers=callers["viewer", cameras])
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "query")
        assert "arithmetic (/) is not supported" in answer.text and ".rs" not in answer.text


def test_columns_with_values_on_other_cameras_only_are_unknown(tmp_path: Path) -> None:
    folder = make_gallery(tmp_path)
    pictures = write_pictures(tmp_path / "more", COUNT + 2)[COUNT:]
    bearer(folder, "administrator")
    asked = {"texts": [{"text": "red"}]}
    with serving(folder) as client:
        headers = bearer(folder, "viewer", ("lobby",))
        before = client.get("/v1/gallery", headers=headers).json()
        found = client.post("/v1/search", json=asked, headers=headers).json()
        rows = [{"camera": "yard", "fence": "red", "age": 1000}, {"camera": "vault", "guard": 2**60 + 1}]
        Gallery.open(folder, ColourEncoder()).add(list(pictures), rows)
        assert client.get("/v1/gallery", headers=headers).json() == before
        again = client.post("/v1/search", json=asked, headers=headers).json()
        assert {**again, "seconds": 0} == {**found, "seconds": 0}, "the version does not depend on images of other cameras"
        queries = [
            {"where": "fence = 'red'"},
            {"where": "fenc is null"},
            {"where": "guard > 3"},
            {"group": "fence"},
            {"group": "fenced"},
        ]
        queries += [{"equals": {"fence": "red"}}, {"equals": {"guards": 3}}, {"where": "age = 'x'"}, {"where": "nonsense ("}]
        queries += [{"cameras": ["vault"]}, {"cameras": ["valt"]}, {"cameras": ["lobyb"]}, {"equals": {"camera": "yard"}}]
        queries += [{"version": 1}, {"version": 2}, {"version": 3}]
        for query in queries:
            answer = client.post("/v1/search", json={**asked, **query}, headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "query"), answer.text
            message = answer.json()["error"]["message"]
            named = json.dumps(query)
            for name in ("fence", "guard", "vault", "yard", "newest"):
                assert f"did you mean {name!r}" not in message and f"{name} (" not in message, "no likely name, no list of columns"
                assert name in named or name not in message, message
        answer = client.post("/v1/search", json={**asked, "cameras": ["lobyb"]}, headers=headers)
        assert "no camera 'lobyb'; did you mean 'lobby'?" in answer.json()["error"]["message"]
        everything = client.get("/v1/gallery", headers=bearer(folder, "curator")).json()
        (guard,) = [column for column in everything["columns"] if column["name"] == "guard"]
        assert guard == {"name": "guard", "kind": "number", "values": [2**60 + 1]}
        nobody = bearer(folder, "viewer", ("cellar",))
        answer = client.post("/v1/search", json=asked, headers=nobody)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "empty")
        told = client.get("/v1/gallery", headers=nobody).json()
        assert (told["images"], told["columns"], told["cameras"]) == (0, [], [])


def test_whole_numbers_over_http(tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "photos", 3)
    serials = [2**53, 2**53 + 1, 2**53 + 2]
    Gallery.open(tmp_path / "gallery", ColourEncoder()).add(list(pictures), [{"serial": serial} for serial in serials])
    with serving(tmp_path / "gallery") as client:
        for serial in serials:
            for query in ({"equals": {"serial": serial}}, {"equals": {"serial": str(serial)}}, {"where": f"serial = {serial}"}):
                found = client.post("/v1/search", json={"texts": [{"text": "red"}], **query}).json()
                assert [hit["attributes"]["serial"] for hit in found["hits"]] == [serial]
            report = client.post("/v1/forget", json={"where": f"serial = {serial}", "dry_run": True}).json()
            assert report["images"] == 1
        groups = client.post("/v1/search", json={"texts": [{"text": "red"}], "group": "serial"}).json()["hits"]
        assert sorted(hit["group"]["value"] for hit in groups) == serials
        ids = [f"{number:024x}" for number in range(9_999)] + [groups[0]["id"]]
        assert client.post("/v1/forget", json={"ids": ids, "dry_run": True}).json()["images"] == 1
        for where in ("+".join(["1"] * 1000) + " > 0", "length(repeat('a', 2000000000)) > 1", "camera = $$x$$", "camera = N'a'"):
            for path, asked in (("search", {"texts": [{"text": "red"}]}), ("forget", {"dry_run": True})):
                answer = client.post(f"/v1/{path}", json={**asked, "where": where})
                assert (answer.status_code, answer.json()["error"]["code"]) == (400, "query")


@pytest.mark.parametrize("column", ["root", "ROOT", "`root`", "content_hash", "thumbnail", "model", "embedding"])
def test_columns_that_are_not_shown_cannot_be_filtered(client: TestClient, callers: Any, column: str) -> None:
    for cameras in (None, ("lobby",)):
        asked = {"texts": [{"text": "red"}], "where": f"{column} is not null"}
        answer = client.post("/v1/search", json=asked, headers=callers["viewer", cameras])
        assert answer.status_code == 400 and "unknown column" in answer.text


def test_a_curator_adds_to_their_own_cameras_only(client: TestClient, callers: Any, gallery: Path) -> None:
    headers = callers["curator", ("lobby",)]
    picture = next((gallery.parent / "photos").glob("*.jpg")).read_bytes()
    for data, code in (({"camera": "yard"}, 403), ({}, 403), ({"metadata": '{"camera": "yard"}', "camera": "lobby"}, 403)):
        answer = client.post("/v1/index", files=[("files", ("a.jpg", picture))], data=data, headers=headers)
        assert answer.status_code == code, answer.text


def test_a_removed_key_and_its_sessions_are_refused(client: TestClient, gallery: Path) -> None:
    headers = bearer(gallery, "viewer", ("yard",))
    signed_in = client.post("/v1/session", json={"key": headers["Authorization"].removeprefix("Bearer ")}, headers=CHANGES)
    assert signed_in.json() == {"name": "viewer of yard", "role": "viewer", "cameras": ["yard"], "open": False}
    cookie = signed_in.headers["set-cookie"]
    assert all(part in cookie for part in ("HttpOnly", "SameSite=strict", "Path=/"))
    assert client.get("/v1/session").status_code == client.get("/v1/gallery").status_code == 200
    asked = {"json": {"texts": [{"text": "red"}]}}
    assert client.post("/v1/search", **asked).json()["error"]["code"] == "header"
    assert client.post("/v1/search", **asked, headers=CHANGES).status_code == 200
    assert client.delete("/v1/session").status_code == 403
    kept = dict(client.cookies)
    assert client.delete("/v1/session", headers=CHANGES).status_code == 200
    client.cookies.update(kept)
    assert client.get("/v1/session").status_code == 401, "the cookie of an ended session is refused"
    client.cookies.clear()
    client.post("/v1/session", json={"key": headers["Authorization"].removeprefix("Bearer ")}, headers=CHANGES)
    assert client.get("/v1/session").status_code == 200
    Keys(state_folder(gallery)).remove("viewer of yard")
    assert client.get("/v1/session").status_code == 401, "a session ends with its key"
    assert client.get("/v1/gallery", headers=headers).status_code == 401
    client.cookies.clear()


def test_keys_are_stored_as_hashes_readable_by_their_owner_only(client: TestClient, callers: Any, gallery: Path) -> None:
    state = state_folder(gallery)
    secrets = [headers["Authorization"].removeprefix("Bearer ").encode() for headers in callers.values()]
    written = b"".join(file.read_bytes() for file in state.rglob("*") if file.is_file())
    assert not any(secret in written for secret in secrets)
    assert state.stat().st_mode & 0o777 == 0o700
    assert not state.is_relative_to(gallery)


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": "[::1"}, 403),
        ({"Host": "localhost:8400"}, 200),
        ({"Host": "[::1]:8400"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:9999"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://["}, 403),
        ({"Host": ""}, 403),
        ({"Host": "LOCALHOST"}, 200),
        ({"Origin": ADDRESS}, 200),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"}, 403),
        ({"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}, 200),
    ],
    ids=str,
)
def test_requests_of_other_sites_and_for_other_names_are_refused(tmp_path: Path, headers: dict[str, str], code: int) -> None:
    with serving(make_gallery(tmp_path, [0])) as client:
        assert client.get("/v1/gallery", headers=headers).status_code == code


def test_an_open_service_needs_the_header_and_closes_with_the_first_key(tmp_path: Path) -> None:
    gallery = make_gallery(tmp_path, [0, 1])
    with serving(gallery) as client:
        assert client.get("/v1/session").json() == {"name": "this machine", "role": "administrator", "cameras": None, "open": True}
        asked = {"json": {"texts": [{"text": "red"}]}}
        assert client.post("/v1/search", **asked).status_code == 200
        client.headers.pop("X-Tbps")
        assert client.post("/v1/search", **asked).status_code == 403
        headers = bearer(gallery, "viewer")
        assert client.get("/v1/gallery").status_code == 401
        assert client.get("/v1/gallery", headers=headers).status_code == 200
        Keys(state_folder(gallery)).remove("viewer of all")
        assert client.get("/v1/gallery").status_code == 401, "and stays closed"
    bearer(gallery, "curator")
    with serving(gallery) as client:
        Keys(state_folder(gallery)).remove("curator of all")
        assert client.get("/v1/gallery").status_code == 401


def test_a_service_that_others_can_reach_needs_keys(tmp_path: Path) -> None:
    gallery = make_gallery(tmp_path, [0])
    for settings in ({"host": "0.0.0.0"}, {"allow_hosts": ("search.example.org",)}):
        with pytest.raises(SettingsError, match="tbps keys add"):
            Service(gallery, ColourEncoder(), ServiceSettings.parse(settings))
    with pytest.raises(SettingsError, match="lies in the gallery"):
        Service(gallery, ColourEncoder(), ServiceSettings(), gallery / "state")
    headers = bearer(gallery, "viewer")
    with serving(gallery, allow_hosts=["search.example.org"]) as client:
        assert client.get("/v1/gallery", headers={**headers, "Host": "search.example.org"}).status_code == 200
        assert client.get("/v1/gallery", headers={**headers, "Host": "evil.example"}).status_code == 403


def test_searches_per_minute_are_limited(tmp_path: Path) -> None:
    gallery = make_gallery(tmp_path, [0])
    headers, other = bearer(gallery, "viewer"), bearer(gallery, "curator")
    with serving(gallery, searches_per_minute=3, failures_per_minute=2) as client:
        asked = {"json": {"texts": [{"text": "red"}]}}
        codes = [client.post("/v1/search", **asked, headers=headers) for _ in range(4)]
        assert [answer.status_code for answer in codes] == [200, 200, 200, 429]
        assert 1 <= int(codes[-1].headers["Retry-After"]) <= 21
        assert client.post("/v1/search", **asked, headers=other).status_code == 200
        wrong = [client.get("/v1/gallery", headers={"Authorization": "Bearer x"}).status_code for _ in range(4)]
        assert wrong == [401, 401, 429, 429]
        assert client.post("/v1/session", json={"key": "y"}).status_code == 429
        assert client.get("/v1/gallery", headers=headers).status_code == 200, "wrong keys of one address do not lock out valid ones"
        refused = (state_folder(gallery) / "audit.jsonl").read_text().count('"refused key"')
        assert refused == 2, "requests answered 429 leave no lines"


def test_an_administrator_sees_every_camera(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="sees every camera"):
        Keys(tmp_path).add("x", Role.administrator, ("lobby",))
    with pytest.raises(SettingsError, match="key name"):
        Keys(tmp_path).add("x\n", Role.viewer)
    Keys(tmp_path).add("x", Role.viewer)
    with pytest.raises(SettingsError, match="already"):
        Keys(tmp_path).add("x", Role.viewer)
    with pytest.raises(SettingsError, match="'x'"):
        Keys(tmp_path).remove("y")


def test_metrics_count_by_route_not_by_path(tmp_path: Path) -> None:
    with serving(make_gallery(tmp_path, [0])) as client:
        client.get("/v1/images/one")
        client.get("/v1/images/two")
        client.get("/no/such/path")
        text = client.get("/metrics").text
        assert 'tbps_requests_total{method="GET",route="/v1/images/{id}",status="404"} 2.0' in text
        assert "/no/such/path" not in text
        assert service_of(client).ready.wait(300) and client.get("/healthz").json() == {"status": "ready"}
