"""Host, Origin and forwarding headers of requests."""

from pathlib import Path
from typing import Any

import pytest

from tbps.errors import SettingsError
from tbps.server.audit import entries
from tbps.server.callers.addresses import Addresses, Host, allowed_host, group_of, parse_host, parse_origin
from tbps.server.settings import ServiceSettings, state_folder
from tests.support.served import bearer, make_gallery, serving

NAMED = Addresses(("search.example.org", "other.example.org:8443", "2001:db8::1"), (), any_name=False)
ANY = Addresses((), (), any_name=True)


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("localhost", Host("localhost")),
        ("LocalHost:8400", Host("localhost", 8400)),
        ("search.example.org.", Host("search.example.org")),
        ("search.example.org.:443", Host("search.example.org", 443)),
        ("search.example.org:", Host("search.example.org")),
        ("[::1]:8400", Host("::1", 8400)),
        ("[0:0:0:0:0:0:0:1]", Host("::1")),
        ("[2001:DB8::1]:443", Host("2001:db8::1", 443)),
        ("bücher.example", Host("xn--bcher-kva.example")),
        ("127.0.0.1", Host("127.0.0.1")),
        ("my_host", Host("my_host")),
        ("", None),
        (".", None),
        ("..", None),
        ("a..b", None),
        ("::1", None),
        ("[::1", None),
        ("[::1]x", None),
        ("[::1]:x", None),
        ("[localhost]", None),
        ("localhost:65536", None),
        ("localhost:-1", None),
        ("localhost:8400:1", None),
        ("localhost:\u0661", None),
        ("evil@localhost", None),
        ("localhost/x", None),
        ("localhost#", None),
        ("local host", None),
        ("localhost, evil.example", None),
        ("localhost\0", None),
        ("*", None),
    ],
)
def test_parsing_of_hosts(text: str, host: Host | None) -> None:
    assert parse_host(text) == host


@pytest.mark.parametrize(
    ("host", "origin", "passes"),
    [
        ("search.example.org", None, True),
        ("search.example.org:443", "https://search.example.org", True),
        ("search.example.org", "https://search.example.org:443", True),
        ("search.example.org:80", "http://search.example.org", True),
        ("SEARCH.example.org.", "https://search.example.org", True),
        ("search.example.org:8443", "https://search.example.org:8443", True),
        ("127.0.0.1:8400", "https://search.example.org", True),  # a proxy that puts its own name for the service
        ("other.example.org", "https://other.example.org:8443", True),  # a proxy that leaves out the port
        ("127.0.0.1:8400", "https://other.example.org:8443", True),
        ("[2001:db8::1]:443", "https://[2001:DB8:0::1]", True),
        ("127.0.0.1:8400", "http://127.0.0.1:8400", True),
        ("[::1]:8400", "http://[::1]:8400", True),
        ("search.example.org", "https://search.example.org:8443", False),
        ("other.example.org:443", "http://other.example.org", False),
        ("other.example.org", "https://other.example.org", True),
        ("127.0.0.1:8400", "https://other.example.org", False),
        ("127.0.0.1:8400", "http://127.0.0.1", False),
        ("127.0.0.1:8400", "http://127.0.0.1:9999", False),
        ("127.0.0.1:8400", "http://localhost:8400", False),
        ("127.0.0.1:8400", "http://evil.example", False),
        ("127.0.0.1:8400", "null", False),
        ("127.0.0.1:8400", "", False),
        ("127.0.0.1:8400", "http://127.0.0.1:8400, http://evil.example", False),
        ("127.0.0.1:8400", "ftp://127.0.0.1:8400", False),
        ("127.0.0.1:8400", "http://127.0.0.1:8400/x", False),
        ("127.0.0.1:8400", "http://evil@127.0.0.1:8400", False),
        ("evil.example", None, False),
        ("evil.example", "http://evil.example", False),  # DNS rebinding
        ("search.example.org.evil.example", None, False),
        ("", None, False),
        ("search.example.org, evil.example", None, False),
    ],
)
def test_origins_that_are_accepted(host: str, origin: str | None, passes: bool) -> None:
    headers = {"host": host} | ({} if origin is None else {"origin": origin})
    assert (NAMED.refusal(headers) is None) == passes


def test_the_origin_is_checked_also_if_any_host_is_accepted() -> None:
    assert ANY.refusal({"host": "whatever.example:9000", "origin": "http://whatever.example:9000"}) is None
    assert ANY.refusal({"host": "whatever.example:9000", "origin": "http://evil.example"}) is not None
    assert ANY.refusal({"host": "whatever.example", "sec-fetch-site": "same-site", "sec-fetch-mode": "cors"}) is not None
    assert parse_origin("null") is None


@pytest.mark.parametrize(
    ("wrong", "likely"),
    [
        ("https://search.example.org", "'search.example.org'"),
        ("HTTP://search.example.org/x", "'search.example.org'"),
        ("search.example.org/", "'search.example.org'"),
        ("*", "search.example.org"),
        ("", "search.example.org"),
        ("a b", "search.example.org"),
        ("search.example.org:99999", "search.example.org"),
    ],
)
def test_invalid_allow_host(wrong: str, likely: str) -> None:
    with pytest.raises(SettingsError, match=likely):
        ServiceSettings(allow_hosts=(wrong,)).addresses()
    assert allowed_host("2001:db8::1") == allowed_host("[2001:db8::1]") == Host("2001:db8::1")


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("127.0.0.1", [], "127.0.0.1"),
        ("127.0.0.1", ["203.0.113.7"], "203.0.113.7"),
        ("127.0.0.1", ["6.6.6.6, 203.0.113.7"], "203.0.113.7"),  # entries that the client wrote itself are ignored
        ("127.0.0.1", ["6.6.6.6, 203.0.113.7, 10.1.2.3"], "203.0.113.7"),
        ("127.0.0.1", ["6.6.6.6", "203.0.113.7"], "203.0.113.7"),
        ("127.0.0.1", ["203.0.113.7:5123"], "203.0.113.7"),
        ("127.0.0.1", ["[2001:db8::7]:5123"], "2001:db8::7"),
        ("127.0.0.1", ["2001:db8::7"], "2001:db8::7"),
        ("::ffff:127.0.0.1", ["203.0.113.7"], "203.0.113.7"),
        ("127.0.0.1", ["::ffff:203.0.113.7"], "203.0.113.7"),
        ("127.0.0.1", ["nonsense"], "127.0.0.1"),
        ("127.0.0.1", ["203.0.113.7, nonsense"], "127.0.0.1"),
        ("127.0.0.1", ["nonsense, 10.1.2.3"], "10.1.2.3"),
        ("127.0.0.1", [""], "127.0.0.1"),
        ("127.0.0.1", [",,,"], "127.0.0.1"),
        ("127.0.0.1", ["unknown"], "127.0.0.1"),
        ("127.0.0.1", ["10.1.1.1, 10.2.2.2"], "10.1.1.1"),
        ("192.0.2.1", ["203.0.113.7"], "192.0.2.1"),  # not a trusted proxy
        ("testclient", ["203.0.113.7"], "testclient"),
    ],
)
def test_client_address_behind_trusted_proxies(peer: str, forwarded: list[str], client: str) -> None:
    trusting = Addresses((), ("127.0.0.1", "10.0.0.0/8"), any_name=False)
    assert trusting.client(peer, forwarded) == client
    assert Addresses((), (), any_name=False).client(peer, forwarded) == peer, (
        "forwarding headers are trusted without trusted proxies"
    )


def test_scheme_behind_a_trusted_proxy() -> None:
    trusting = Addresses((), ("::1",), any_name=False)
    assert trusting.scheme("::1", ["https"], "http") == "https"
    assert trusting.scheme("::1", ["http, HTTPS"], "http") == "https"
    for peer, forwarded in (("127.0.0.1", ["https"]), ("::1", []), ("::1", ["gopher"]), ("::1", ["https, "])):
        assert trusting.scheme(peer, forwarded, "http") == "http"


@pytest.mark.parametrize("wrong", ["localhost", "127.0.0.1:80", "10.0.0.0/33", "", "*"])
def test_invalid_trusted_proxy(wrong: str) -> None:
    with pytest.raises(SettingsError, match="trusted-proxy"):
        ServiceSettings(trusted_proxies=(wrong,)).addresses()


def test_addresses_of_one_ipv6_network_are_counted_together() -> None:
    assert group_of("2001:db8:1:2::3") == group_of("2001:db8:1:2:ffff::9") != group_of("2001:db8:1:3::3")
    assert (group_of("::ffff:192.0.2.1"), group_of("192.0.2.1"), group_of("?")) == ("192.0.2.1", "192.0.2.1", "?")


def refused_addresses(gallery: Path) -> list[Any]:
    return [entry["address"] for entry in entries(state_folder(gallery)) if entry["deed"] == "refused key"]


def test_forwarded_addresses_count_for_throttling_only_where_a_proxy_is_trusted(tmp_path: Path) -> None:
    """A client that could choose its own address could try keys without limit."""
    gallery = make_gallery(tmp_path, [0])
    bearer(gallery, "viewer")
    wrong = {"Authorization": "Bearer x"}
    with serving(gallery, failures_per_minute=2) as client:
        codes = [client.get("/v1/gallery", headers={**wrong, "X-Forwarded-For": f"203.0.113.{n}"}).status_code for n in range(4)]
    assert codes == [401, 401, 429, 429] and set(refused_addresses(gallery)) == {"testclient"}
