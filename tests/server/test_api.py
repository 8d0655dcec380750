"""The API compared with the gallery and with its own OpenAPI description."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance
from starlette.testclient import TestClient

from tbps.gallery.gallery import Gallery
from tbps.gallery.search.query import Query
from tbps.server.service import Service
from tbps.server.settings import ServiceSettings
from tests.support.colour_encoder import ColourEncoder
from tests.support.served import COUNT, columns, listening, make_gallery, service_of, serving

ASKED = {"texts": [{"text": "a red coat"}], "k": 5}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with serving(make_gallery(tmp_path_factory.mktemp("api"))) as client:
        yield client


@pytest.fixture(scope="module")
def gallery(client: TestClient) -> Gallery:
    return Gallery.open(service_of(client).gallery.path, ColourEncoder())


def expected(gallery: Gallery, query: dict[str, Any], pictures: Any = ()) -> list[tuple[str, float]]:
    return [(hit.id, pytest.approx(hit.score, abs=1e-6)) for hit in gallery.find(Query.parse(query), pictures).hits]


def got(answer: Any) -> list[tuple[str, float]]:
    assert answer.status_code == 200, answer.text
    return [(hit["id"], hit["score"]) for hit in answer.json()["hits"]]


@pytest.mark.parametrize(
    "query",
    [
        ASKED,
        {"texts": [{"text": "red"}, {"text": "bag", "weight": -0.5}], "cameras": ["lobby"], "since": "2024-05-04"},
        {"texts": [{"text": "red"}], "group": "identity", "k": 3},
        {"texts": [{"text": "red"}], "where": "age between 3 and 9", "rerank": 5},
    ],
    ids=str,
)
def test_search_answers_what_the_gallery_finds(client: TestClient, gallery: Gallery, query: dict[str, Any]) -> None:
    answer = client.post("/v1/search", json=query)
    assert got(answer) == expected(gallery, query)
    found, page = answer.json(), gallery.find(Query.parse(query))
    for mine, theirs in zip(found["hits"], page.as_dict()["hits"], strict=True):
        assert mine.pop("image") == f"/v1/images/{mine['id']}"
        theirs.pop("path")
        assert {**mine, "score": 0} == json.loads(json.dumps({**theirs, "score": 0}))
    assert (found["total"], found["query"]["k"]) == (page.total, query.get("k", 10))


def test_pages_continue_each_other(client: TestClient, gallery: Gallery) -> None:
    query: dict[str, Any] | None = {**ASKED, "k": 7}
    seen = []
    while query is not None:
        answer = client.post("/v1/search", json=query).json()
        seen += [hit["id"] for hit in answer["hits"]]
        query = answer["next"]
    assert seen == [hit.id for hit in gallery.search("a red coat", k=COUNT)]


def test_similar(client: TestClient, gallery: Gallery) -> None:
    (first, *_) = gallery.search("red")
    asked = client.post("/v1/similar", json={"id": first.id, "query": {"k": 4}})
    assert got(asked) == expected(gallery, {"like": [{"id": first.id}], "k": 4})
    files = sorted((gallery.path.parent / "photos").glob("*.jpg"))[:2]
    sent = [("image", (file.name, file.read_bytes())) for file in files]
    query = {"texts": [{"text": "red", "weight": 0.5}], "k": 4}
    assert got(client.post("/v1/similar", files=sent, data={"query": json.dumps(query)})) == expected(gallery, query, files)
    for wrong in ({"query": "{"}, {"query": '{"kk": 3}'}):
        assert client.post("/v1/similar", files=sent, data=wrong).status_code == 422
    assert client.post("/v1/similar", data={"query": "{}"}, files=[]).status_code == 415
    assert client.post("/v1/similar", json={"id": "f" * 24}).status_code == 404


def test_feedback_merges_marks(client: TestClient, gallery: Gallery) -> None:
    ids = [hit.id for hit in gallery.search("red", k=4)]
    query = {**ASKED, "right": [ids[0]], "wrong": [ids[1]], "offset": 5}
    answer = client.post("/v1/feedback", json={"query": query, "right": [ids[1], ids[2]], "wrong": [ids[3], ids[0]]})
    merged = answer.json()["query"]
    assert (set(merged["right"]), set(merged["wrong"]), merged["offset"]) == ({ids[1], ids[2]}, {ids[3], ids[0]}, 0)
    assert got(answer) == expected(gallery, merged)


def test_images_by_id_only(client: TestClient, gallery: Gallery) -> None:
    for hit in gallery.search("red", k=COUNT):
        answer = client.get(f"/v1/images/{hit.id}")
        assert (answer.content, answer.headers["content-type"]) == (hit.thumbnail, "image/jpeg")
        assert answer.headers["cache-control"] == "private, no-store"
    for name in ("0000.jpg", "..%2f..%2fgallery.json", "%2e%2e", "a" * 24, "%00", "id' or 'a'='a", hit.id[:-1], hit.id + "x"):
        assert client.get(f"/v1/images/{name}").status_code == 404


def test_detail(client: TestClient, gallery: Gallery) -> None:
    for hit in gallery.search("red", k=5):
        number = int(hit.attributes["age"])  # type: ignore[arg-type]
        found = client.get(f"/v1/images/{hit.id}/detail").json()
        assert (found["box"], found["frame"], found["tracklet"]) == ([number, 2, 16, 32], 100 - number, f"t{number % 4}")
        same = [n for n in range(COUNT) if n % 4 == number % 4]
        assert [member["captured_at"] for member in found["tracklet_members"]] == [columns(n)["captured_at"] for n in same]
        assert [member["box"][0] for member in found["tracklet_members"]] == same


def test_paths_of_the_machine_never_leave(client: TestClient, gallery: Gallery, caplog: pytest.LogCaptureFixture) -> None:
    (hit, *_) = gallery.search("red")
    answers = [
        client.post("/v1/search", json=ASKED),
        client.post("/v1/search", json={**ASKED, "version": 9999}),
        client.post("/v1/search", json={**ASKED, "where": "nonsense ("}),
        client.post("/v1/search", json={**ASKED, "group": "root"}),
        client.post("/v1/search", json={**ASKED, "equals": {"root": "x"}}),
        client.get(f"/v1/images/{hit.id}/detail"),
        client.get("/v1/gallery"),
        client.get("/v1/openapi.json"),
        client.get("/metrics"),
        client.post("/v1/forget", json={"where": "root is not null", "dry_run": True}),
    ]
    manifest = gallery.path / "gallery.json"
    kept = manifest.read_text()
    try:
        manifest.write_text("{")
        answers.append(client.post("/v1/search", json=ASKED))
    finally:
        manifest.write_text(kept)
    assert answers[-1].status_code == 503 and str(manifest) in caplog.text, "the log names the file"
    for answer in answers:
        assert str(gallery.path.parent) not in answer.text and "tmp" not in answer.text, answer.text


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ({}, "nothing is sought"),
        ({"texts": [{"text": "..."}]}, "no word"),
        ({**ASKED, "k": 201}, "201 hits"),
        ({**ASKED, "offset": 10_001}, "10,001"),
        ({"texts": [{"text": "red"}] * 17}, "17 descriptions"),
        ({**ASKED, "rerank": 500}, "500"),
        ({**ASKED, "cameras": [], "where": "colour = 'red'"}, "unknown column 'colour'"),
        ({**ASKED, "group": "colour"}, "unknown column 'colour'"),
        ({**ASKED, "since": "yesterday"}, "yesterday"),
        ({**ASKED, "right": ["x"]}, "'x'"),
    ],
    ids=str,
)
def test_invalid_queries_are_refused_with_the_reason(client: TestClient, query: dict[str, Any], says: str) -> None:
    answer = client.post("/v1/search", json=query)
    assert 400 <= answer.status_code < 500
    assert says in answer.json()["error"]["message"]


NO_QUERIES = ("", "[]", "{", '{"texts": [{"text": "\\ud800"}]}', '{"unknown": 1}', '{"k": 0}', "[" * 9000)


@pytest.mark.parametrize("content", NO_QUERIES, ids=range(len(NO_QUERIES)))
def test_malformed_queries(client: TestClient, content: str) -> None:
    answer = client.post("/v1/search", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422) and answer.json()["error"]["message"]


def test_every_answer_has_the_security_headers(client: TestClient) -> None:
    paths = ("/", "/page/app.js", "/nowhere", "/healthz", "/v1/gallery", "/v1/images/x")
    for answer in (*map(client.get, paths), client.put("/v1/search")):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
        assert (answer.headers["x-content-type-options"], answer.headers["referrer-policy"]) == ("nosniff", "no-referrer")
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert client.get("/").headers["content-type"].startswith("text/html")
    assert client.get("/page/app.js").headers["content-type"].startswith("text/javascript")
    assert client.get("/page/..%2f..%2fapp.py").status_code == client.get("/page/app.py").status_code == 404
    assert client.get("/docs").status_code == client.get("/redoc").status_code == 404


def test_unexpected_errors_are_described_in_the_log_only(client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("secret detail")

    with monkeypatch.context() as patch:
        patch.setattr(service_of(client).gallery, "find", broken)
        answer = client.post("/v1/search", json=ASKED)
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal")
    assert "secret" not in answer.text and "Traceback" not in answer.text and "secret detail" in caplog.text
    assert "content-security-policy" in answer.headers
    assert "tbps_failures_total 1.0" in client.get("/metrics").text


def test_an_empty_gallery(tmp_path: Path) -> None:
    gallery = make_gallery(tmp_path, [0])
    with serving(gallery) as client:
        (hit,) = client.post("/v1/search", json=ASKED).json()["hits"]
        assert client.post("/v1/forget", json={"ids": [hit["id"]]}).json()["images"] == 1
        assert client.post("/v1/search", json=ASKED).json()["error"]["code"] == "empty"
        assert client.get(hit["image"]).status_code == 404
        assert client.get("/v1/gallery").json()["images"] == 0


@pytest.fixture(scope="module")
def description(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    gallery = make_gallery(tmp_path_factory.mktemp("described"))
    with listening(Service(gallery, ColourEncoder(), ServiceSettings(batch_window=0))) as address:
        yield schemathesis.openapi.from_url(f"{address}/v1/openapi.json", timeout=600)


def test_answers_to_generated_requests_match_the_openapi_description(description: Any) -> None:
    """No 5xx, and no status or body that the description does not contain."""
    known = []
    for found in description.get_all_operations():
        operation = found.ok()

        @given(case=operation.as_strategy())
        @settings(max_examples=8, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
        def holds(case: Any) -> None:
            answer = case.call(headers={"X-Tbps": "1"}, timeout=600)
            assert answer.status_code < 500, answer.text
            case.validate_response(answer, checks=[status_code_conformance, response_schema_conformance])

        holds()
        known.append(operation.label)
    assert len(known) == 17, known
