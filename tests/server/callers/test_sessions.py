"""Sessions: limit per key, end together with their key, cookie name per service."""

import re
from http.cookies import SimpleCookie
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tbps.server.callers.keys import Keys, Role
from tbps.server.callers.sessions import MOST_PER_KEY, Sessions, cookie_name
from tbps.server.state.layout import ID_FILE
from tests.support.served import bearer, make_gallery, service_of, serving


def test_sessions_per_key_are_bounded_and_the_idle_ones_end_first(tmp_path: Path) -> None:
    keys = Keys(tmp_path)
    _, viewer = keys.add("viewer", Role.viewer)
    _, other = keys.add("other", Role.administrator)
    sessions = Sessions(keys, 1.0)
    before = sessions.begin(other)
    tokens = [sessions.begin(viewer) for _ in range(MOST_PER_KEY)]
    assert sessions.key_of(tokens[0]) == viewer  # used: no longer the least recently used one
    more = [sessions.begin(viewer) for _ in range(20_000)]
    assert len(sessions) == MOST_PER_KEY + 1
    assert sessions.key_of(before) == other and sessions.key_of(sessions.begin(other)) == other
    assert all(sessions.key_of(token) == viewer for token in more[-MOST_PER_KEY:])
    assert [sessions.key_of(token) for token in tokens] == [None] * MOST_PER_KEY


def test_the_session_in_use_outlives_the_idle_ones(tmp_path: Path) -> None:
    keys = Keys(tmp_path)
    _, viewer = keys.add("viewer", Role.viewer)
    sessions = Sessions(keys, 1.0)
    used = sessions.begin(viewer)
    for _ in range(3 * MOST_PER_KEY):
        sessions.begin(viewer)
        assert sessions.key_of(used) == viewer


def test_sessions_end_in_time_and_with_their_key(tmp_path: Path) -> None:
    now, keys = [0.0], Keys(tmp_path)
    _, key = keys.add("a", Role.curator)
    _, stays = keys.add("b", Role.viewer)
    sessions = Sessions(keys, 1.0, lambda: now[0])
    token, other = sessions.begin(key), sessions.begin(stays)
    now[0] = 3599
    assert sessions.key_of(token) == key
    now[0] = 3600
    assert sessions.key_of(token) is None
    token = sessions.begin(key)
    keys.remove("a")
    assert sessions.key_of(token) is None and sessions.key_of(other) is None
    sessions.begin(stays)
    assert len(sessions) == 1, "ended sessions are not counted"
    again = sessions.begin(keys.add("a", Role.curator)[1])
    file = tmp_path / "keys.json"
    file.write_text(file.read_text().replace('"curator"', '"viewer"'))
    changed = sessions.key_of(again)
    assert changed is not None and changed.role is Role.viewer, "the role is the current one of the key"
    file.write_text(re.sub(r'"hash": "[0-9a-f]{64}"', f'"hash": "{"0" * 64}"', file.read_text()))
    assert sessions.key_of(again) is None, "a session does not belong to another key with the same id"


def test_many_sign_ins_with_one_key_lock_nobody_out(tmp_path: Path) -> None:
    gallery = make_gallery(tmp_path, [0])
    viewer, administrator = (bearer(gallery, role)["Authorization"].removeprefix("Bearer ") for role in ("viewer", "administrator"))
    with serving(gallery) as client:
        assert client.post("/v1/session", json={"key": administrator}).status_code == 200
        kept = dict(client.cookies)
        for _ in range(2 * MOST_PER_KEY):
            assert client.post("/v1/session", json={"key": viewer}).status_code == 200
        assert len(service_of(client).gate.sessions) == MOST_PER_KEY + 1
        client.cookies.clear()
        client.cookies.update(kept)
        assert client.get("/v1/session").json()["role"] == "administrator"
        client.cookies.clear()
        assert client.post("/v1/session", json={"key": administrator}).json()["role"] == "administrator"


def cookie_of(client: TestClient, secret: str) -> tuple[str, str]:
    answer = client.post("/v1/session", json={"key": secret})
    ((name, morsel),) = SimpleCookie(answer.headers["set-cookie"]).items()
    return name, morsel.value


def test_two_services_on_one_host_have_different_cookies(tmp_path: Path) -> None:
    """A browser sends the cookies of a host to all of its ports."""
    galleries = [make_gallery(tmp_path / name, [0]) for name in ("one", "two")]
    secrets = [bearer(gallery, "viewer")["Authorization"].removeprefix("Bearer ") for gallery in galleries]
    with serving(galleries[0]) as one, serving(galleries[1]) as two:
        jar = dict(cookie_of(client, secret) for client, secret in zip((one, two), secrets, strict=True))
        assert len(jar) == 2
        for client in (one, two):
            client.cookies.clear()
            client.cookies.update(jar)
            assert client.get("/v1/session").json()["name"] == "viewer of all"
        assert one.delete("/v1/session").status_code == 200
        assert two.get("/v1/session").status_code == 200
        (old,) = [token for name, token in jar.items() if name == service_of(two).gate.cookie]
        two.cookies.clear()
        two.cookies.update({"tbps_session": old})
        assert two.get("/v1/session").status_code == 401, "a cookie with the name of version 0.1 is ignored"


def test_the_cookie_name_survives_restarts_and_damaged_files(tmp_path: Path) -> None:
    name = cookie_name(tmp_path / "state")
    assert re.fullmatch(r"tbps_session_[0-9a-f]{16}", name) and cookie_name(tmp_path / "state") == name
    for damaged in (b"", b"x; Path=/", b"\xff" * 16, b"0" * 17):
        (tmp_path / "state" / ID_FILE).write_bytes(damaged)
        mended = cookie_name(tmp_path / "state")
        assert re.fullmatch(r"tbps_session_[0-9a-f]{16}", mended) and cookie_name(tmp_path / "state") == mended != name


@pytest.mark.parametrize(
    ("headers", "settings", "secure"),
    [
        ({}, {}, False),
        ({"Origin": "https://127.0.0.1:8400"}, {}, True),
        ({"X-Forwarded-Proto": "https"}, {}, False),
    ],
)
def test_the_cookie_of_a_page_behind_tls_is_for_tls_only(
    tmp_path: Path, headers: dict[str, str], settings: dict[str, object], secure: bool
) -> None:
    gallery = make_gallery(tmp_path, [0])
    secret = bearer(gallery, "viewer")["Authorization"].removeprefix("Bearer ")
    with serving(gallery, **settings) as client:
        answer = client.post("/v1/session", json={"key": secret}, headers=headers)
        assert ("Secure" in answer.headers["set-cookie"]) == secure
