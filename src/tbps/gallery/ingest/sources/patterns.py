"""Patterns of `--exclude`: names of files and folders to leave out.

`*` matches any characters but "/", `?` one such character, `[abc]` one of the listed characters, `**` any characters including "/".
A pattern without "/" is compared with the name of each file and folder, at any depth; one with "/" with the whole path below the
indexed folder. A "/" at the end matches folders only. Leaving out a folder leaves out everything below it, members of archives too
("people.zip/drafts"). Matching is case-sensitive; composed and decomposed letters are equal.
"""

import re
from collections.abc import Sequence
from typing import final

from tbps.errors import SettingsError
from tbps.preprocess.names import file_key

_MOST = 1000


@final
class Patterns:
    """Matches names against several patterns. unused: the patterns that matched nothing so far."""

    def __init__(self, patterns: Sequence[str]) -> None:
        """Raises SettingsError on an empty or overlong pattern."""
        self._all = [(pattern, *_compiled(pattern)) for pattern in patterns]
        self._used: set[str] = set()

    def match(self, name: str, folder: bool = False) -> bool:
        """Whether a pattern matches a file or folder. name: below the indexed folder; folders above it are not matched."""
        key = file_key(name)
        base = key.rpartition("/")[2]
        for pattern, expression, whole, folders in self._all:
            if (folder or not folders) and expression.fullmatch(key if whole else base):
                self._used.add(pattern)
                return True
        return False

    def match_below(self, name: str) -> bool:
        """Whether a pattern matches a file or any folder above it."""
        if not self._all:
            return False
        parts = file_key(name).split("/")
        return any(self.match("/".join(parts[:end]), folder=end < len(parts)) for end in range(1, len(parts) + 1))

    @property
    def unused(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(pattern for pattern, *_ in self._all if pattern not in self._used))


def _compiled(pattern: str) -> tuple[re.Pattern[str], bool, bool]:
    """The pattern as a regular expression, whether it matches the whole name, and whether it matches folders only."""
    key = file_key(pattern.strip())
    bare = key.strip("/")
    if not bare or len(bare) > _MOST or "\0" in bare:
        raise SettingsError(
            f"--exclude {pattern[:80]!r} is not a valid pattern; write one such as '*.png', thumbnails or 'drafts/**'"
        )
    folders, whole = key.endswith("/"), "/" in bare or key.startswith("/")
    return re.compile(_expression(bare), re.DOTALL), whole, folders


def _expression(pattern: str) -> str:
    found, at = "", 0
    while at < len(pattern):
        if pattern.startswith("**/", at):
            found, at = found + "(?:.*/)?", at + 3
        elif pattern.startswith("**", at):
            found, at = found + ".*", at + 2
        elif pattern[at] == "*":
            found, at = found + "[^/]*", at + 1
        elif pattern[at] == "?":
            found, at = found + "[^/]", at + 1
        elif pattern[at] == "[" and (end := pattern.find("]", at + 2)) > 0:
            inner = pattern[at + 1 : end]
            sign, inner = ("^/", inner[1:]) if inner[:1] in ("!", "^") else ("", inner)
            found, at = f"{found}[{sign}{_set(inner)}]", end + 1
        else:
            found, at = found + re.escape(pattern[at]), at + 1
    return found


def _set(inner: str) -> str:
    """The inside of a set of characters, with everything but ranges escaped; a reversed range is three characters."""
    escaped = re.sub(r"([\\\[\]^&~|])", r"\\\1", inner)
    return re.sub(r"(.)-(.)", lambda part: part[0] if part[1] <= part[2] else f"{part[1]}\\-{part[2]}", escaped)
