"""Base class of all settings: frozen, validated, with dotted overrides and a fingerprint.

Settings refuse unknown keys and name the likely one. They never change: `settings.override({"losses.r_itc.weight": "0.5"})` returns
a new object.

Settings files written by older versions stay readable. A class that gains a setting lists it in `earlier` with the value that
reproduces the behaviour before the setting existed: `parse_stored` fills in that value where a file lacks the setting, and the
fingerprint leaves the setting out while it has that value.
"""

import difflib
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, ClassVar, Self, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from tbps.errors import SettingsError


class Settings(BaseModel):
    """Base class of settings: frozen, unknown keys refused, with dotted overrides and a fingerprint."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    earlier: ClassVar[Mapping[str, Any]] = {}
    """Settings that older files lack -> the value that reproduces the behaviour of the versions that wrote those files."""

    def override(self, changes: Mapping[str, Any]) -> Self:
        """Returns a copy with the values of dotted keys replaced; strings are parsed as JSON where they are valid JSON.

        A key inside an optional group that is null (`lora.rank` where `lora` is null) creates the group with its defaults first.
        Raises SettingsError for an unknown key, naming the likely one, and for an invalid value.
        """
        tree = self.model_dump()
        for key, value in changes.items():
            self._set(tree, key, _parse(value))
        return type(self).parse(tree)

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """Returns validated settings from plain values. Raises SettingsError that names the first invalid key."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            raise SettingsError(f"setting {key!r} = {first.get('input')!r}: {first['msg']}") from error

    @classmethod
    def parse_stored(cls, values: Mapping[str, Any]) -> Self:
        """Returns settings from the values of a file; settings that an older version did not write get their
        values of `earlier`.
        """
        return cls.parse(cls._completed(values))

    def as_earlier(self, stored: Mapping[str, Any]) -> Self:
        """Returns a copy in which every setting that `stored` (the content of a file) lacks has its value of `earlier`."""
        return type(self).parse(_filled(self, self.model_dump(), stored))

    def fingerprint(self) -> str:
        """Returns 16 hexadecimal digits over all values. A setting that equals its value of `earlier` is left out."""
        text = json.dumps(_known_before(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def keys(self) -> list[str]:
        """Returns every dotted key that `override` accepts."""
        return self.dotted()

    @classmethod
    def dotted(cls) -> list[str]:
        """Returns every dotted key of this class."""
        return list(_keys(cls, ""))

    @classmethod
    def _completed(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        completed = {name: value for name, value in cls.earlier.items() if name not in values} | dict(values)
        for name, field in cls.model_fields.items():
            group = _group(field.annotation)
            if group is not None and isinstance(completed.get(name), Mapping):
                completed[name] = group._completed(completed[name])
        return completed

    def _set(self, tree: dict[str, Any], key: str, value: Any) -> None:
        if key not in (known := self.keys()):
            raise unknown_setting(key, known)
        *parents, last = key.split(".")
        node = tree
        for parent in parents:
            if node.get(parent) is None:
                node[parent] = {}
            node = node[parent]
            if not isinstance(node, dict):
                raise SettingsError(f"setting {key!r}: {parent} = {node!r} holds no settings")
        node[last] = value


def unknown_setting(key: str, known: Sequence[str]) -> SettingsError:
    """Returns the error for an unknown key; it names the most similar of the known keys."""
    likely = difflib.get_close_matches(key, known, n=1, cutoff=0.4)
    return SettingsError(f"unknown setting {key!r}{f'; did you mean {likely[0]!r}?' if likely else ''}")


def _known_before(settings: Settings) -> dict[str, Any]:
    """Dumps settings without those that equal their value of `earlier`, at every depth."""
    dump: dict[str, Any] = settings.model_dump(mode="json")
    for name, value in settings:
        if name in settings.earlier and value == settings.earlier[name]:
            del dump[name]
        elif isinstance(value, Settings):
            dump[name] = _known_before(value)
    return dump


def _filled(settings: Settings, dump: dict[str, Any], stored: Mapping[str, Any]) -> dict[str, Any]:
    for name, value in settings:
        if name in settings.earlier and name not in stored:
            dump[name] = settings.earlier[name]
        elif isinstance(value, Settings) and isinstance(stored.get(name), Mapping):
            dump[name] = _filled(value, dump[name], stored[name])
    return dump


def _group(annotation: Any) -> type[Settings] | None:
    """Returns the Settings class among the types that an annotation allows, None where there is none."""
    for choice in (annotation, *get_args(annotation)):
        if isinstance(choice, type) and issubclass(choice, Settings):
            return choice
    return None


def _parse(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value


@cache
def _keys(group: type[Settings], prefix: str) -> tuple[str, ...]:
    """Returns the dotted keys of a group, depth first."""
    found: list[str] = []
    for name, field in group.model_fields.items():
        found.append(prefix + name)
        inner = _group(field.annotation)
        if inner is not None:
            found.extend(_keys(inner, f"{prefix}{name}."))
    return tuple(found)
