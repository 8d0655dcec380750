"""Base class of all settings: frozen, validated, with dotted overrides and a fingerprint.

Unknown keys raise SettingsError, which suggests the most similar key. Settings are immutable:
`settings.override({"losses.r_itc.weight": "0.5"})` returns a new object.

Settings files written by older versions stay readable. When a setting is added to a class, the class lists it in `earlier`
with the value that reproduces the behaviour from before the setting existed: `parse_stored` fills in that value where a file lacks
the setting, and the fingerprint omits the setting while it has that value.
"""

import ast
import difflib
import hashlib
import inspect
import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Literal, Self, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from tbps.errors import SettingsError


class Settings(BaseModel):
    """Base class of settings: frozen, unknown keys refused, with dotted overrides and a fingerprint."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    earlier: ClassVar[Mapping[str, Any]] = {}
    """Maps each setting that older files lack to the value that reproduces the behaviour of the versions that wrote them."""

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
        """Returns validated settings from plain values. Raises SettingsError that names the first invalid key and, if the key is
        unknown, the most similar one.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            if first["type"] == "extra_forbidden":
                raise unknown_setting(key, cls.dotted()) from error
            raise SettingsError(f"setting {key!r} = {first.get('input')!r}: {first['msg']}") from error

    @classmethod
    def parse_stored(cls, values: Mapping[str, Any]) -> Self:
        """Returns settings from the values of a file; settings that the file lacks get their values from `earlier`."""
        return cls.parse(cls._completed(values))

    def as_earlier(self, stored: Mapping[str, Any]) -> Self:
        """Returns a copy in which every setting that `stored` (the content of a file) lacks has its value from `earlier`."""
        return type(self).parse(_filled(self, self.model_dump(), stored))

    def fingerprint(self) -> str:
        """Returns a hash of all values as 16 hexadecimal digits. Settings that equal their value in `earlier` are omitted."""
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


@dataclass(frozen=True, slots=True)
class DescribedSetting:
    """One setting as documentation and `--show-settings` print it.

    `name`: dotted key. `type`: type with its bounds, as text. `default`: value as JSON, empty for a required setting.
    `description`: first paragraph of the docstring under the field, on one line.
    """

    name: str
    type: str
    default: str
    description: str


def described(settings: type[Settings] | Settings) -> list[DescribedSetting]:
    """Describe every setting of a settings class, or of a settings object, whose values are then reported as the defaults.

    An optional group of settings has an entry of its own, followed by its settings; a required group is listed by its settings
    only. The settings of a group that is null are described with the defaults of the group's class.
    """
    return list(_described(settings, ""))


def _described(settings: type[Settings] | Settings, prefix: str) -> Iterator[DescribedSetting]:
    kind = settings if isinstance(settings, type) else type(settings)
    descriptions = _field_docstrings(kind)
    for name, field in kind.model_fields.items():
        group, value = _group(field.annotation), _default(settings, name)
        optional = NoneType in get_args(field.annotation)
        if group is None or optional:
            type_text = _type_text(field.annotation, field.metadata)
            default = "" if value is _NO_DEFAULT else json.dumps(_plain(value)) if group is None or value is None else "{...}"
            yield DescribedSetting(prefix + name, type_text, default, field.description or descriptions.get(name, ""))
        if group is not None:
            yield from _described(value if isinstance(value, Settings) else group, f"{prefix}{name}.")


_NO_DEFAULT = object()


def _default(settings: type[Settings] | Settings, name: str) -> Any:
    if not isinstance(settings, type):
        return getattr(settings, name)
    field = settings.model_fields[name]
    return _NO_DEFAULT if field.is_required() else field.get_default(call_default_factory=True, validated_data={})


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, Settings) else value


def _field_docstrings(kind: type[Settings]) -> dict[str, str]:
    """The first paragraph of the string below each field of a class, on one line."""
    found: dict[str, str] = {}
    for ancestor in reversed(kind.__mro__):
        if issubclass(ancestor, Settings) and ancestor is not Settings:
            found |= _own_field_docstrings(ancestor)
    return found


@cache
def _own_field_docstrings(kind: type[Settings]) -> dict[str, str]:
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(definition, ast.ClassDef)
    found: dict[str, str] = {}
    for field, below in zip(definition.body, definition.body[1:], strict=False):
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = " ".join(inspect.cleandoc(text).partition("\n\n")[0].split())
    return found


def _type_text(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """A type as text, such as "float >= 0, < 1 or null"."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type_text(arguments[0], [*arguments[1:], *metadata])
    if origin in (Union, UnionType):
        return " or ".join("null" if choice is NoneType else _type_text(choice, metadata) for choice in arguments)
    if origin is Literal:
        return " or ".join(json.dumps(choice) for choice in arguments)
    if origin is tuple:
        inside = [_type_text(argument) for argument in arguments if argument is not Ellipsis]
        return f"list of {inside[0]}" if Ellipsis in arguments else f"[{', '.join(inside)}]"
    name = "group" if _group(annotation) else getattr(annotation, "__name__", str(annotation))
    return " ".join([name, ", ".join(_bounds(metadata))]).strip()


def _bounds(metadata: Sequence[Any]) -> Iterator[str]:
    """The bounds that `Field(gt=, ge=, lt=, le=)` sets, as text such as ">= 0"."""
    constraints = [part for one in metadata for part in (one.metadata if isinstance(one, FieldInfo) else [one])]
    for constraint in constraints:
        for name, sign in (("gt", ">"), ("ge", ">="), ("lt", "<"), ("le", "<=")):
            if (bound := getattr(constraint, name, None)) is not None:
                yield f"{sign} {bound:g}"


def unknown_setting(key: str, known: Sequence[str]) -> SettingsError:
    """Returns the error for an unknown key, which suggests the most similar known key."""
    likely = difflib.get_close_matches(key, known, n=1, cutoff=0.4)
    return SettingsError(f"unknown setting {key!r}{f'; did you mean {likely[0]!r}?' if likely else ''}")


def _known_before(settings: Settings) -> dict[str, Any]:
    """Dumps settings without those that equal their value in `earlier`, at every depth."""
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
