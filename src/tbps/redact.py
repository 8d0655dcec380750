"""Removal of passwords and other secrets from text with network addresses, before it is printed, stored or logged.

`redacted` removes the user and password of `scheme://user:password@host`, the query and fragment of an address (cameras and cloud
services put passwords, tokens and signatures there), and values such as `password=...` inside a path, as video recorders use them:

    rtsp://admin:pa@ss@10.0.0.5/ch1?token=x         ->  rtsp://***@10.0.0.5/ch1?***
    rtsp://10.0.0.2/user=admin&password=x&channel=1 ->  rtsp://10.0.0.2/user=***&password=***&channel=1

A scheme of one letter is a Windows drive. Addresses whose two slashes became one (`pathlib`) or were escaped (JSON) are recognised.
"""

import re

HIDDEN = "***"

_SCHEME = r"[A-Za-z][A-Za-z0-9+.\-]{1,20}:[\\/]{1,8}|(?<![\w:.\\/])[\\/]{2}"
_IN_TOKEN = r"[^\s\"'<>`]"  # an address ends at a blank, a quote or an angle bracket
_ADDRESS = re.compile(rf"({_SCHEME})({_IN_TOKEN}+)")
# A password may contain blanks and quotes: match all text up to an @ on the same line, unless the colon precedes a port number.
_WITH_BLANKS = re.compile(
    r"([A-Za-z][A-Za-z0-9+.\-]{1,20}:[\\/]{1,8})[^\s\"'<>`@:/\\\[]{0,200}:(?!\d+[\"'`]|\d*(?:[\s/?#,.;)\]]|$))[^\n@]{0,400}@"
)
_ENCODED = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]{1,20}%3A(?:%2F){1,2})([^\s\"'<>`%]|%(?!40))*%40", re.IGNORECASE)
_NAMES = (
    r"pass(?:word|wd|phrase|code)?|pwd|psw|pw|loginpas|loginuse|user(?:name|id)?|usr|uname|login|account"
    r"|(?:access_?|refresh_?|id_?|auth_?|security_?|session_?)?token|jwt|auth(?:orization)?|bearer|signature|sig|sign"
    r"|(?:api_?|access_?|secret_?|private_?|stream_?)?key|(?:client_?)?secret|credentials?|session(?:_?id)?|sid|jsessionid"
)
_VALUE = re.compile(rf"(?<![A-Za-z])((?:[A-Za-z\-]+-)?(?:{_NAMES})=)([^&/;?#\s\"'<>`]+)", re.IGNORECASE)
_QUERY_VALUE = re.compile(rf"([?&;](?:[A-Za-z\-_]{{1,30}})?(?:{_NAMES})=)([^&;#\s\"'<>`]+)", re.IGNORECASE)
# `user:password` without an @: a shell cut the address at & or #, or the @ was written %40. `host:port` does not match.
_CUT_SHORT = re.compile(r"[^\[\]:]*:(?!PORT\b)(?!\d*[.,;:)\]}*]*$)[^\[\]]*", re.DOTALL)
_IS_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]+:[\\/]")


def redacted(text: str, queries: bool = True) -> str:
    """Returns `text` with the secrets of every address replaced by `***`; applying it again changes nothing.

    `queries`: if True, replace queries and fragments completely; if False, replace only values whose names denote a secret.
    """
    if "@" not in text and "=" not in text and "%" not in text and ":/" not in text:
        return text
    text = _ENCODED.sub(rf"\1{HIDDEN}%40", text)
    text = _WITH_BLANKS.sub(rf"\1{HIDDEN}@", text)
    text = _ADDRESS.sub(lambda found: _redacted_address(found, queries), text)
    return _QUERY_VALUE.sub(rf"\1{HIDDEN}", text)


def is_address(place: str) -> bool:
    """Returns whether `place` is a network address (`rtsp://...`) rather than a path."""
    return _IS_ADDRESS.match(place) is not None


def _redacted_address(found: re.Match[str], queries: bool) -> str:
    scheme, rest = found[1], found[2]
    first = re.split(r"[/\\?#]", rest, maxsplit=1)[0]
    # A password may contain / ? # and @ unescaped; in that case the text before the first of them is not host and port.
    secret = "@" in first or re.fullmatch(r"[\w.\-]*|\[[0-9A-Fa-f:.%]*\]|[\w.\-]+:\d*[.,;:)\]]*", first) is None
    if "@" in rest and (secret or re.fullmatch(r"[\w.\-]+:\d*", first)):
        rest = f"{HIDDEN}@{_after_user(rest)}"
    elif _CUT_SHORT.fullmatch(first):
        rest = HIDDEN + rest[len(first) :]
    if not queries:
        return scheme + _VALUE.sub(rf"\1{HIDDEN}", rest)
    place, mark, _ = _cut(rest)
    return scheme + _VALUE.sub(rf"\1{HIDDEN}", place) + (mark + HIDDEN if mark else "")


def _after_user(rest: str) -> str:
    """Returns the part after user and password: after the last @ before the query, else after the last @."""
    before = rest.partition("?")[0]
    return rest[(before if "@" in before else rest).rindex("@") + 1 :]


def _cut(rest: str) -> tuple[str, str, str]:
    """Splits an address into the part before query and fragment, the character that begins them, and them."""
    found = re.search(r"[?#]", rest)
    if found is None or found.end() == len(rest):
        return rest, "", ""
    return rest[: found.start()], found[0], rest[found.end() :]
