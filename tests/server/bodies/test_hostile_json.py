"""Malicious JSON for every route that reads JSON: it is refused with a short message, logged, and never causes a 5xx."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from tbps.server.audit import entries, verify
from tbps.server.settings import state_folder
from tests.support.hostile import picture
from tests.support.served import bearer, make_gallery, service_of, serving

RED = '"texts": [{"text": "red"}]'
# Each is combined with a valid description, so that nothing else in the query is invalid.
WITHIN: dict[str, str] = {
    "nan in equals": '"equals": {"age": NaN}',
    "infinity in equals": '"equals": {"age": Infinity}',
    "too large in equals": '"equals": {"age": 1e999}',
    "too small in equals": '"equals": {"age": -1e999}',
    "nan as weight": '"picture_weight": NaN',
    "too large as weight": '"picture_weight": 1e400',
    "nan as share": '"share": NaN',
    "nan deep": '"like": [{"id": "a", "weight": NaN}]',
    "half a pair in a condition": '"where": "camera = \'\\ud800\'"',
    "half a pair in equals": '"equals": {"camera": "\\ud800"}',
    "half a pair in a key of equals": '"equals": {"\\udfff": "x"}',
    "half a pair as camera": '"cameras": ["\\ud800"]',
    "half a pair as group": '"group": "\\ud800"',
    "half a pair as time": '"since": "\\ud800"',
    "half a pair as id": '"right": ["\\ud800"]',
    "nul in a condition": '"where": "camera = \'\\u0000\'"',
    "nul in equals": '"equals": {"camera": "lobby\\u0000"}',
    "nul in a key": '"equals": {"camera\\u0000": "lobby"}',
    "nul as camera": '"cameras": ["lobby\\u0000"]',
    "nul as id": '"like": [{"id": "ID\\u0000"}]',
    "nul as mark": '"right": ["ID\\u0000"]',
    "nul as time": '"until": "2024-05-01\\u0000"',
    "integer beyond 64 bits": '"equals": {"age": 9223372036854775808}',
    "integer of 5,000 digits": '"equals": {"age": ' + "1" * 5000 + "}",
    "hits of 5,000 digits": '"k": ' + "1" * 5000,
    "version of 60 digits": '"version": ' + "1" * 60,
    "version below zero": '"version": -1',
    "hits below one": '"k": 0',
    "hits as text": '"k": "many"',
    "hits as a list": '"k": []',
    "too many hits": '"k": 201',
    "offset below zero": '"offset": -1',
    "key twice": '"k": 1, "k": 2',
    "texts twice": '"texts": []',
    "key twice in equals": '"equals": {"age": 1, "age": 2}',
    "object as value": '"equals": {"age": {"a": 1}}',
    "list as value": '"equals": {"age": [1]}',
    "unknown field": '"\\u007b": 1',
    "long unknown field": f'"{"x" * 50_000}": 1',
    "many unknown fields": ", ".join(f'"x{number}": 1' for number in range(2000)),
    "many conditions": '"equals": {' + ", ".join(f'"x{number}": 1' for number in range(65)) + "}",
    "many cameras": '"cameras": [' + '"lobby", ' * 1000 + '"lobby"]',
    "many marks": '"right": [' + '"a", ' * 200 + '"a"]',
    "many marks together": '"right": ["a0"], "wrong": [' + ", ".join(f'"a{n}"' for n in range(1, 201)) + "]",
    "ones as cameras": '"cameras": [' + "1, " * 900 + "1]",
    "deep": '"equals": ' + '{"a": ' * 40 + "1" + "}" * 40,
    "long camera": f'"cameras": ["{"x" * 1001}"]',
    "long condition": f'"where": "{"x" * 10_001}"',
}
WHOLE: dict[str, bytes] = {
    "empty": b"",
    "blank": b"   ",
    "null": b"null",
    "true": b"true",
    "number": b"1",
    "text": b'"red"',
    "list": b"[]",
    "list of lists": b"[[]]",
    "half": b'{"texts": [{"te',
    "ones": b'{"texts": [' + b"1," * 100_000 + b"1]}",
    "objects": b'{"like": [' + b"{}," * 80_000 + b"{}]}",
    "brackets": b"[" * 200_000,
    "closed brackets": b"[" * 9000 + b"]" * 9000,
    "utf-16": '{"k": 1}'.encode("utf-16"),
    "no text": bytes(range(256)),
    "raw half a pair": b'{"texts": [{"text": "\xed\xa0\x80"}]}',
    "half a pair in a key": b'{"\\ud800": 1}',
    "17 descriptions": b'{"texts": [' + b'{"text": "red"},' * 16 + b'{"text": "red"}]}',
    "half a pair as description": b'{"texts": [{"text": "\\ud800"}]}',
    "nul in a description": b'{"texts": [{"text": "red\\u0000"}]}',
    "long descriptions": json.dumps({"texts": [{"text": "red " * 4000}] * 2}).encode(),
    "prototype": b'{"__proto__": {"k": 1}}',
}
SHAPES: dict[str, bytes] = {name: f"{{{RED}, {part}}}".encode() for name, part in WITHIN.items()} | WHOLE
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_gallery(tmp_path_factory.mktemp("hostile"), range(6))


@pytest.fixture(scope="module")
def client(gallery: Path) -> Iterator[TestClient]:
    with serving(gallery) as client:
        yield client


@pytest.fixture(scope="module")
def name(client: TestClient) -> str:
    """The id of an image."""
    return str(client.post("/v1/search", json={"texts": [{"text": "red"}], "k": 1}).json()["hits"][0]["id"])


def bodies(shape: bytes, name: str) -> dict[str, bytes]:
    """Body per route: a malicious query, wrapped as the route expects it."""
    shape = shape.replace(b"ID", name.encode())
    within = b'{"query": ' + (shape or b" ") + b', "id": "' + name.encode() + b'"}'
    return {
        "/v1/search": shape,
        "/v1/similar": within,
        "/v1/explain": within,
        "/v1/feedback": b'{"query": ' + (shape or b" ") + b"}",
        "/v1/forget": shape,
        "/v1/session": shape,
    }


@pytest.mark.parametrize("kind", list(SHAPES))
def test_hostile_json_is_refused_and_logged(client: TestClient, gallery: Path, name: str, kind: str) -> None:
    for path, content in bodies(SHAPES[kind], name).items():
        before = list(entries(state_folder(gallery)))
        answer = client.post(path, content=content, headers=JSON)
        assert answer.status_code in (400, 413, 422), (path, answer.status_code, answer.text[:200])
        assert len(answer.content) < 5000 and answer.json()["error"]["message"]
        lines = list(entries(state_folder(gallery)))[len(before) :]
        if path == "/v1/session":
            assert lines == []
            continue
        (line,) = lines
        assert (line["deed"], line["ended"], line["status"]) == (path[4:], "refused", answer.status_code)
        assert path == "/v1/forget" or "asked" in line or answer.status_code == 413 or line["bytes"] == len(content)
        assert len(json.dumps(line)) < 5000
    files = [("image", ("a.jpg", picture()))]
    content = SHAPES[kind].replace(b"ID", name.encode())
    answer = client.post("/v1/similar", files=[*files, ("query", (None, content))])
    if content:
        assert answer.status_code in (400, 413, 422), answer.text[:200]
    assert len(answer.content) < 5000 or answer.status_code == 200
    assert verify(state_folder(gallery)).wrong is None


UNFIT = ("nan", "infinity", "too large in", "too small", "too large as", "half a pair", "nul", "twice", "deep", "5,000", "utf-16")


@pytest.mark.parametrize("kind", list(SHAPES))
def test_hostile_json_as_metadata_of_an_upload(client: TestClient, gallery: Path, kind: str) -> None:
    """Metadata that a gallery cannot store is refused before the files are checked; the uploaded file is not a picture."""
    answer = client.post("/v1/index", files=[("files", ("a.txt", b"none")), ("metadata", (None, SHAPES[kind] or b" "))])
    unfit = any(word in kind for word in UNFIT)
    assert answer.status_code in ((400,) if unfit else (400, 413, 415)), answer.text[:300]
    assert len(answer.content) < 5000


def test_bodies_of_other_content_types_are_refused(client: TestClient, gallery: Path) -> None:
    """A page of another site may send text/plain without a preflight request."""
    content = json.dumps({"texts": [{"text": "red"}]}).encode()
    for media in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", "application/jsonp"):
        for path in ("/v1/search", "/v1/feedback", "/v1/explain", "/v1/forget", "/v1/session"):
            answer = client.post(path, content=content, headers={"Content-Type": media})
            assert answer.status_code == 415 and answer.json()["error"]["code"] == "media"
    for media in ("application/json; charset=utf-8", "Application/JSON", "application/problem+json"):
        assert client.post("/v1/search", content=content, headers={"Content-Type": media}).status_code == 200


def test_nul_characters_in_paths_and_queries(client: TestClient, name: str) -> None:
    assert client.get(f"/v1/images/{name}").status_code == 200
    for path in (f"/v1/images/{name}%00", f"/v1/images/{name}%00/detail", "/v1/index/a%00", f"/%00/v1/images/{name}"):
        answer = client.get(path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found") and "NUL" in answer.text
    assert client.delete("/v1/index/a%00").status_code == 404
    assert client.get(f"/v1/images/{name}?a=%00").status_code == 400
    assert client.get(f"/v1/images/{'f' * 65}").status_code == 422
    for odd in ("%ed%a0%80", "%ff", "%0a", "%7f", "a%20b"):
        assert client.get(f"/v1/images/{odd}").status_code == 404


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ([("camera", b"lobby\0")], "NUL"),
        ([("camera", b"\xed\xa0\x80")], "UTF-8"),
        ([("camera", b"x" * 1001)], "1,001 characters"),
        ([("start", b"2024-05-01\0")], "NUL"),
        ([("start", b"x" * 65)], "65 characters"),
        ([("detect", b"perhaps")], "true or false"),
        ([("camera", b"lobby"), ("camera", b"yard")], "twice"),
        ([("metadata", b"{}"), ("metadata", b'{"camera": "yard"}')], "twice"),
        ([("metadata", b'{"camera": "lobby", "camera": "yard"}')], "'camera' twice"),
        ([("metadata", b'{"age": 1e999}')], "1e999"),
        ([("metadata", b'{"note": "\\ud800"}')], "surrogate"),
        ([("metadata", b'{"no\\u0000te": 1}')], "NUL"),
        ([("metadata", b'{"number": ' + b"1" * 5000 + b"}")], "5,000 digits"),
        ([("metadata", b"[" * 5000)], "metadata"),
        ([("metadata", b'{"a":' * 100 + b"1" + b"}" * 100)], "deeper"),
    ],
    ids=str,
)
def test_malformed_fields_of_forms(client: TestClient, fields: list[tuple[str, bytes]], says: str) -> None:
    sent: list[Any] = [("files", ("a.jpg", picture())), *((name, (None, value)) for name, value in fields)]
    answer = client.post("/v1/index", files=sent)
    assert answer.status_code == 400 and says in answer.json()["error"]["message"], answer.text[:300]
    assert not list((state_folder(service_of(client).gallery.path) / "spool" / "jobs").iterdir())


def test_other_authorization_schemes_count_as_no_key(tmp_path: Path) -> None:
    """Passwords for a proxy reach the service as Authorization: Basic."""
    gallery = make_gallery(tmp_path, [0])
    with serving(gallery) as client:
        for scheme in ("Basic dXNlcjpwYXNz", "Digest username=x", "Negotiate abc", "Basic", "tbps_abc", "Bearer", "Bearer "):
            assert client.get("/v1/gallery", headers={"Authorization": scheme}).status_code == 200
        secret = bearer(gallery, "viewer")["Authorization"].removeprefix("Bearer ")
        for number in range(30):  # more than the allowed number of wrong keys
            answer = client.get("/v1/gallery", headers={"Authorization": f"Basic {number}"})
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "signed_out")
        assert client.post("/v1/session", json={"key": secret}, headers={"Authorization": "Basic x"}).status_code == 200
        for headers, code in (({"X-Tbps": "1"}, 200), ({}, 403)):
            client.headers.pop("X-Tbps", None)
            asked = {"texts": [{"text": "red"}]}
            answer = client.post("/v1/search", json=asked, headers={"Authorization": "Basic x", **headers})
            assert answer.status_code == code, "with a cookie the header is needed"
        assert client.get("/v1/gallery", headers={"Authorization": "Bearer x"}).status_code == 401
        client.cookies.clear()
        for written in (f"bearer {secret}", f"BEARER   {secret} "):
            assert client.get("/v1/gallery", headers={"Authorization": written}).status_code == 200
    assert [entry["deed"] for entry in entries(state_folder(gallery))].count("refused key") == 1
