"""Secrets in addresses are removed from text and from every error; other text is unchanged."""

import pickle

import pytest

from tbps.errors import DataError, RequestError
from tbps.redact import is_address, redacted

WORD = "s3cr3t"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rtsp://admin:s3cr3t@10.0.0.5:554/ch1", "rtsp://***@10.0.0.5:554/ch1"),
        ("/work/rtsp:/admin:s3cr3t@h/ch", "/work/rtsp:/***@h/ch"),  # pathlib removes the second slash
        ("rtsp://admin:p@ss/s3cr3t#1@10.0.0.5/a", "rtsp://***@10.0.0.5/a"),
        ("rtsp://admin:1234/s3cr3t@h/x", "rtsp://***@h/x"),
        ("rtsp://admin:/s3cr3t@h/x", "rtsp://***@h/x"),
        ("rtsp://admin:a?s3cr3t@h/x", "rtsp://***@h/x"),
        ("rtsp://admin:my s3cr3t@h/x", "rtsp://***@h/x"),
        ("rtsp://admin:it's s3cr3t@h/x", "rtsp://***@h/x"),
        ('rtsp://admin:"s3cr3t@h/x', "rtsp://***@h/x"),
        ("rtsp://adm%69n:s3cr3t%40@[fe80::1]:554/x", "rtsp://***@[fe80::1]:554/x"),
        ("FTP://s3cr3t@H/x", "FTP://***@H/x"),
        ("rtsp://:s3cr3t@h", "rtsp://***@h"),
        ("//admin:s3cr3t@nas/share", "//***@nas/share"),
        (r"rtsp:\/\/admin:s3cr3t@h", r"rtsp:\/\/***@h"),
        ("rtsp%3A%2F%2Fadmin%3As3cr3t%40h", "rtsp%3A%2F%2F***%40h"),
        ("http://h/x?password=s3cr3t&a=b", "http://h/x?***"),
        ("http://h/x?user=a&pwd=s3cr3t: 401", "http://h/x?*** 401"),
        ("https://h/x#access_token=s3cr3t", "https://h/x#***"),
        ("https://h/?next=rtsp%3A%2F%2Fadmin%3As3cr3t%40h", "https://h/?***"),
        ("rtsp://10.0.0.2/user=admin&password=s3cr3t&channel=1", "rtsp://10.0.0.2/user=***&password=***&channel=1"),
        ("rtsp://10.0.0.2/user=admin_password=s3cr3t_channel=1", "rtsp://10.0.0.2/user=***"),
        ("with url: /api?X-Amz-Signature=s3cr3t (Caused by", "with url: /api?X-Amz-Signature=*** (Caused by"),
        ("http://u:s3cr3t@proxy:3128, then http://v:s3cr3t@p2:1", "http://***@proxy:3128, then http://***@p2:1"),
        ("rtsp://admin:s3cr3t", "rtsp://***"),  # a shell cuts the argument admin:s3cr3t&1@h at &
        ("rtsp://admin:s3cr3t%40h:554/x", "rtsp://***/x"),
        ("cannot open rtsp://admin:12s3cr3t: no such file", "cannot open rtsp://*** no such file"),
        ("rtsp://a:s3cr3t@h/x\nrtsp://b:s3cr3t@h/y", "rtsp://***@h/x\nrtsp://***@h/y"),
    ],
)
def test_secrets_of_addresses_are_removed(text: str, expected: str) -> None:
    assert redacted(text) == expected
    assert redacted(expected) == expected
    assert WORD not in redacted(text, queries=False)


@pytest.mark.parametrize(
    "text",
    [
        "C:/users/a@b/c.jpg",
        "the service is at http://HOST:PORT/, not at (http://[::1]:80) or http://h:8400.",
        "see https://example.org/@scope/package for more",
        "http://127.0.0.1:8400/",
        "it is at http://127.0.0.1:8400; write to me@example.org",
        "where camera = 'a' and password = 'x'",
        "/data/a@b/c.jpg and a@b.c",
        "https://huggingface.co/openai/clip@main",
    ],
)
def test_other_text_is_unchanged(text: str) -> None:
    assert redacted(text) == text


def test_queries_without_secrets_are_kept_in_data() -> None:
    assert redacted("https://h/photo?id=3&token=x#top", queries=False) == "https://h/photo?id=3&token=***#top"


def test_addresses_are_distinguished_from_paths() -> None:
    assert all(map(is_address, ("rtsp://h", "rtsp:/h", "https://h/x", "S3://b/x")))
    assert not any(map(is_address, ("C:/x", "C:\\x", "photos", "/rtsp://h", "a b://x", "shard-{000..012}.tar")))


def test_errors_contain_no_secrets() -> None:
    for error in (DataError(f"rtsp://a:{WORD}@h"), RequestError(400, "x", f"http://h?token={WORD}")):
        assert WORD not in str(error) + repr(error) and "***" in str(error)
    again = pickle.loads(pickle.dumps(DataError(f"rtsp://a:{WORD}@h")))
    assert str(again) == "rtsp://***@h"
