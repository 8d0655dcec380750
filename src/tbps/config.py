"""The strict base of every settings object.

Settings are frozen, refuse unknown keys by naming the likely one, and are changed only by deriving a new object
(`settings.override({"losses.r_itc.weight": "0.5"})`). Nothing edits one after it is made.
"""

import difflib
import hashlib
import json
from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from tbps.errors import SettingsError


class Settings(BaseModel):
    """Frozen settings with dotted overrides and a fingerprint."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    def override(self, changes: Mapping[str, Any]) -> Self:
        """A copy with dotted keys replaced; string values are read as JSON where they parse as such.

        Raises SettingsError that names an unknown key and the likely one, or the value that does not fit.
        """
        tree = self.model_dump()
        for key, value in changes.items():
            self._set(tree, key, _parse(value))
        return type(self).parse(tree)

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """Validated settings from plain values; raises SettingsError naming the first offending key."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            raise SettingsError(f"setting {key!r} = {first.get('input')!r}: {first['msg']}") from error

    def fingerprint(self) -> str:
        """16 hexadecimal digits that depend on every value."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def keys(self) -> list[str]:
        """Every dotted key that `override` accepts."""
        return _leaves(self.model_dump(), "")

    def _set(self, tree: dict[str, Any], key: str, value: Any) -> None:
        *parents, last = key.split(".")
        node: Any = tree
        for parent in parents:
            node = node.get(parent) if isinstance(node, dict) else None
        if not isinstance(node, dict) or last not in node:
            likely = difflib.get_close_matches(key, self.keys(), n=1, cutoff=0.4)
            hint = f"; did you mean {likely[0]!r}?" if likely else ""
            raise SettingsError(f"unknown setting {key!r}{hint}")
        node[last] = value


def _parse(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value


def _leaves(tree: Mapping[str, Any], prefix: str) -> list[str]:
    found: list[str] = []
    for key, value in tree.items():
        found.append(prefix + key)
        if isinstance(value, dict):
            found.extend(_leaves(value, f"{prefix}{key}."))
    return found
