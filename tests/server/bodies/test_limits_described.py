"""Limits in the OpenAPI description match the service: values at a limit are accepted, values above it are refused."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.support.hostile import picture
from tests.support.served import make_gallery, serving

Schema = dict[str, Any]
ASKED: Schema = {"texts": [{"text": "red"}]}
# Required fields of each body besides the one under test.
BASES: dict[str, Schema] = {
    "/v1/search": ASKED,
    "/v1/similar": {"id": "f", "query": ASKED},
    "/v1/feedback": {"query": ASKED},
    "/v1/explain": {"query": ASKED, "id": "f"},
    "/v1/forget": {"dry_run": True, "identity": "nobody"},
    "/v1/session": {"key": "x"},
}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    gallery = make_gallery(tmp_path_factory.mktemp("limits"), range(6))
    with serving(gallery, upload_files=7) as client:
        yield client


@pytest.fixture(scope="module")
def description(client: TestClient) -> Schema:
    found: Schema = client.get("/v1/openapi.json").json()
    return found


def resolved(schema: Schema, description: Schema) -> Schema:
    while "$ref" in schema:
        schema = description["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def fitting(schema: Schema, description: Schema) -> Any:
    """A small valid value for a schema."""
    schema = resolved(schema, description)
    if "anyOf" in schema:
        return fitting(schema["anyOf"][0], description)
    kinds: dict[str, Any] = {"string": "x", "integer": 1, "number": 0.5, "boolean": True, "array": [], "null": None}
    if schema["type"] == "object":
        return {name: fitting(schema["properties"][name], description) for name in schema.get("required", ())}
    return kinds[schema["type"]]


Tried = Iterator[tuple[str, Any, Any]]


def tried(schema: Schema, description: Schema) -> Tried:
    """Name of each limit in a schema, a value at the limit and one above it."""
    schema = resolved(schema, description)
    for choice in schema.get("anyOf", ()):
        yield from tried(choice, description)
    yield from tried_numbers(schema)
    if "maxLength" in schema:
        yield "maxLength", "1" * schema["maxLength"], "1" * (schema["maxLength"] + 1)
    if "maxItems" in schema:
        item = fitting(schema["items"], description)
        yield "maxItems", [item] * schema["maxItems"], [item] * (schema["maxItems"] + 1)
    for name, at, beyond in tried(schema["items"], description) if "items" in schema else ():
        yield f"items.{name}", [at], [beyond]
    yield from tried_fields(schema, description)


def tried_numbers(schema: Schema) -> Tried:
    for name, step in (("maximum", 1), ("minimum", -1)):
        if name in schema:
            yield name, schema[name], schema[name] + step
    for name, step in (("exclusiveMaximum", -1e-9), ("exclusiveMinimum", 1e-9)):
        if name in schema:
            yield name, schema[name] + step, schema[name]


def tried_fields(schema: Schema, description: Schema) -> Tried:
    if "maxProperties" in schema:
        many = {f"column{number}": 1 for number in range(schema["maxProperties"] + 1)}
        yield "maxProperties", dict(list(many.items())[1:]), many
    for name, at, beyond in tried(schema["propertyNames"], description) if "propertyNames" in schema else ():
        yield f"propertyNames.{name}", {at: 1}, {beyond: 1}
    values = schema.get("additionalProperties")
    for name, at, beyond in tried(values, description) if isinstance(values, dict) else ():
        yield f"values.{name}", {"column": at}, {"column": beyond}
    for key, inner in schema.get("properties", {}).items():
        for name, at, beyond in tried(inner, description):
            base = fitting(schema, description)
            yield f"{key}.{name}", {**base, key: at}, {**base, key: beyond}


def merged(base: Any, change: Any) -> Any:
    """`base` with the fields of `change`; lists and values are replaced."""
    if isinstance(base, dict) and isinstance(change, dict):
        return {**base, **{key: merged(base.get(key), value) for key, value in change.items()}}
    return change


def test_the_described_limits_of_bodies_are_exact(client: TestClient, description: Schema) -> None:
    checked = []
    for path, base in BASES.items():
        content = description["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        for name, at, beyond in tried(content["schema"], description):
            taken = client.post(path, json=merged(base, at))
            assert taken.status_code in (200, 400, 401, 404, 429), (path, name, taken.status_code, taken.text[:300])
            if taken.status_code == 400:  # refused for its content, not for its size
                assert "more than" not in taken.text and "at most" not in taken.text, (path, name, taken.text[:300])
            refused = client.post(path, json=merged(base, beyond))
            assert refused.status_code == 422, (path, name, refused.status_code, refused.text[:300])
            checked.append(f"{path} {name}")
    for each in ("k.maximum", "rerank.maximum", "offset.maximum", "texts.maxItems", "version.maximum", "equals.maxProperties"):
        assert f"/v1/search {each}" in checked and f"/v1/feedback query.{each}" in checked
    assert len(checked) > 100, len(checked)


def test_the_described_limits_of_paths_are_exact(client: TestClient, description: Schema) -> None:
    checked = 0
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            for parameter in operation.get("parameters", ()):
                assert parameter["in"] == "path"
                for _, at, beyond in tried(parameter["schema"], description):
                    name = "{" + parameter["name"] + "}"
                    assert client.request(method, path.replace(name, at)).status_code == 404
                    assert client.request(method, path.replace(name, beyond)).status_code == 422
                    checked += 1
    assert checked == 4


def test_the_described_limits_of_forms_are_exact(client: TestClient, description: Schema) -> None:
    forms = {
        path: operations["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
        for path, operations in description["paths"].items()
        if "multipart/form-data" in operations.get("post", {}).get("requestBody", {}).get("content", {})
    }
    assert {path: set(fields) for path, fields in forms.items()} == {
        "/v1/similar": {"image", "query"},
        "/v1/index": {"files", "camera", "start", "detect", "metadata"},
    }
    files = ("a.jpg", picture())
    most = forms["/v1/similar"]["image"]["maxItems"]
    assert client.post("/v1/similar", files=[("image", files)] * most).status_code == 200
    assert client.post("/v1/similar", files=[("image", files)] * (most + 1)).status_code == 413
    assert forms["/v1/index"]["files"]["maxItems"] == 7
    assert client.post("/v1/index", files=[("files", files)] * 7).status_code == 202
    assert client.post("/v1/index", files=[("files", files)] * 8).status_code == 413
    longest = forms["/v1/index"]["camera"]["maxLength"]
    assert client.post("/v1/index", files=[("files", files)], data={"camera": "x" * longest}).status_code == 202
    assert client.post("/v1/index", files=[("files", files)], data={"camera": "x" * (longest + 1)}).status_code == 400
    for detect in forms["/v1/index"]["detect"]["enum"]:
        assert client.post("/v1/index", files=[("files", files)], data={"detect": detect}).status_code == 202
    assert client.post("/v1/index", files=[("files", files)], data={"detect": "yes"}).status_code == 400
    longest = forms["/v1/index"]["start"]["maxLength"]
    time = "2024-05-01T08:30:00.000000+00:00".ljust(longest)
    assert client.post("/v1/index", files=[("files", files)], data={"start": time}).status_code == 202
    assert client.post("/v1/index", files=[("files", files)], data={"start": time + " "}).status_code == 400


def test_limits_on_sums_of_fields(client: TestClient) -> None:
    words = "red " * 2500  # 10,000 characters
    for count, code in ((2, 200), (3, 422)):
        assert client.post("/v1/search", json={"texts": [{"text": words}] * count}).status_code == code
    (hit,) = client.post("/v1/search", json={**ASKED, "k": 1}).json()["hits"]
    ids = [f"x{number}" for number in range(201)]
    for right, wrong, code in ((ids[:100], ids[100:200], 404), (ids[:100], ids[100:201], 422), ([hit["id"]] * 200, [], 200)):
        assert client.post("/v1/search", json={**ASKED, "right": right, "wrong": wrong}).status_code == code
        asked = {"query": {**ASKED, "wrong": wrong}, "right": right}
        assert client.post("/v1/feedback", json=asked).status_code == code


def test_no_next_page_beyond_the_largest_offset(client: TestClient) -> None:
    """An answer must not contain the query of a page that would be refused."""
    answer = client.post("/v1/search", json={**ASKED, "offset": 4, "k": 1}).json()
    assert answer["next"]["offset"] == 5 and client.post("/v1/search", json=answer["next"]).status_code == 200
    assert client.post("/v1/search", json={**ASKED, "offset": 10_000}).json()["next"] is None


def test_the_largest_allowed_bodies_are_accepted(client: TestClient) -> None:
    """This includes bodies in which every character is escaped."""
    query = {
        "texts": [{"text": "é" * 1250}] * 16,
        "where": "camera = '" + "é" * 9980 + "'",
        "right": ["f" * 24] * 200,
        "cameras": ["lobby"] * 1000,
    }
    content = json.dumps(query).encode()
    assert len(content) < 2**18
    answer = client.post("/v1/search", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 404) and "size" not in answer.text, answer.text[:200]
    asked = {"ids": [f"{number:024x}" for number in range(10_000)], "dry_run": True}
    assert client.post("/v1/forget", json=asked).json()["images"] == 0


def test_a_notice_replaces_a_next_page_that_would_be_refused(tmp_path: Path) -> None:
    from tbps.gallery.search.page import Page
    from tbps.server.bodies.answers import search_answer
    from tbps.server.bodies.requests import Query, Text

    query = Query(texts=(Text(text="red"),), offset=9_990, k=20)
    page = Page((), 20_000, 1, query.model_copy(update={"offset": 10_010, "version": 1}), None, False, ())
    answer = search_answer(query, page, 0.0)
    assert answer.next is None and "10,000" in answer.notices[0]
    assert search_answer(query, Page((), 9, 1, query, None, False, ()), 0.0).next == query.model_copy(update={"version": None})
