"""Writes the pages of the reference that come from the program itself: command line, settings, HTTP API.

`make docs` runs it before it builds the site. The pages are not committed, so they cannot go stale.
"""

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import NoneType, SimpleNamespace
from typing import Any, get_args

from typer.main import get_command

from tbps.cli import app
from tbps.config import described
from tbps.gallery import FootageSettings
from tbps.server.app import make_app
from tbps.server.settings import ServiceSettings
from tbps.training.settings import TrainSettings

BACKSLASH = chr(92)
REFERENCE = Path(__file__).parent / "reference"
SETTINGS = {
    "Training": (
        TrainSettings,
        "`tbps train RECIPE --set KEY=VALUE`, and the rows of a study. A recipe derives from these defaults.",
    ),
    "Indexing scenes and videos": (FootageSettings, "Options of `tbps index`; `tbps.gallery.FootageSettings` in Python."),
    "The service": (ServiceSettings, "The common ones are options of `tbps serve`; all of them are fields of the class in Python."),
}


def main() -> None:
    """Writes all three pages."""
    pages = {"command-line": command_line(), "settings": settings(), "http-api": http_api()}
    for name, lines in pages.items():
        (REFERENCE / f"{name}.md").write_text("\n".join(lines) + "\n")


def command_line() -> Iterator[str]:
    """Every command with its arguments and options, from the parser itself."""
    yield from ("# Command line", "", "Made from the parser: what `tbps COMMAND --help` prints.", "")
    yield from _table(("before the command", ""), _parameters(get_command(app)))
    for path, command in _commands(get_command(app), ()):
        yield from (f"## tbps {' '.join(path)}", "")
        arguments = [param for param in command.params if param.param_type_name == "argument"]
        usage = " ".join(["tbps", *path, *(_usage(param) for param in arguments), "[OPTIONS]"])
        yield from ("```text", usage, "```", "", *_help(command.help or ""), "")
        yield from _table(("argument or option", ""), _parameters(command))


def _commands(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if not hasattr(command, "commands"):
        yield path, command
        return
    for name, child in sorted(command.commands.items()):
        yield from _commands(child, (*path, name))


def _usage(param: Any) -> str:
    name = param.name.upper()
    name = f"{name}..." if param.nargs == -1 else name
    return name if param.required else f"[{name}]"


def _help(text: str) -> Iterator[str]:
    """The help text; its examples become code."""
    for line in text.replace("\f", "").splitlines():
        command = line.strip().removeprefix("Example:").strip().strip("`")
        if line.strip().startswith("Example:"):
            yield from ("```sh", command, "```")
        else:
            yield _escaped(line)


def _parameters(command: Any) -> Iterator[tuple[str, str]]:
    for param in command.params:
        if param.name == "help":
            continue
        is_argument = param.param_type_name == "argument"
        named = param.name.upper() if is_argument else ", ".join((*param.opts, *param.secondary_opts))
        value = "" if is_argument or param.is_flag else f" {_kind(param.type_descriptor.annotation)}"
        yield f"`{named}{value}`", " ".join(part for part in (_sentence(param.help), _default(param), _environment(param)) if part)


def _kind(annotation: Any) -> str:
    """What an option takes, as one word."""
    (inner, *_) = [each for each in get_args(annotation) if each is not NoneType] or [annotation]
    inner = get_args(inner)[0] if get_args(inner) else inner
    return {Path: "PATH", str: "TEXT", int: "NUMBER", float: "NUMBER"}.get(inner, "VALUE")


def _sentence(text: str | None) -> str:
    plain = " ".join((text or "").split())
    return f"{plain[:1].upper()}{plain[1:].rstrip('.')}." if plain else ""


def _default(param: Any) -> str:
    if param.required:
        return "Required."
    value = param.default
    if value in (None, False, "", ()) or callable(value) or "UNSET" in repr(value):
        return ""
    return f"Default: `{value}`."


def _environment(param: Any) -> str:
    return f"Environment: `{param.envvar}`." if getattr(param, "envvar", None) else ""


def settings() -> Iterator[str]:
    """Every setting with type, default and description, from the settings classes."""
    yield from ("# Settings", "", "Made from the settings classes. Dotted names are the keys of `--set`; values are JSON.", "")
    for title, (kind, where) in SETTINGS.items():
        yield from (f"## {title}", "", where, "", *_paragraphs(kind.__doc__ or ""), "")
        rows = (
            (f"`{each.name}`", f"`{each.type}`", f"`{each.default}`" if each.default else "", each.description)
            for each in described(kind)
        )
        yield from _table(("setting", "type", "default", "meaning"), rows)


def _paragraphs(text: str) -> list[str]:
    return [_escaped(line.strip()) for line in text.strip().splitlines()]


def http_api() -> Iterator[str]:
    """Every route with its parameters, bodies and answers, from the OpenAPI description of the application."""
    service: Any = SimpleNamespace(settings=ServiceSettings())  # a description needs no gallery and no model
    document = make_app(service).openapi()
    yield from ("# HTTP API", "", f"{document['info']['description']} Made from the OpenAPI description, which a running service")
    yield from ("gives at `/v1/openapi.json`. Bodies and answers are JSON where nothing else is said.", "")
    yield from (
        "Send a key as `Authorization: Bearer KEY`. A service without keys asks programs for the header `X-Tbps: 1` instead.",
        "Roles: viewers search and look, curators also upload, administrators also erase; see [Keys and roles](../how-to/keys.md).",
        "",
        "```sh",
        "curl -H \"Authorization: Bearer $KEY\" -H 'Content-Type: application/json' \\",
        '  -d \'{"texts": [{"text": "a woman in a red coat"}], "k": 5}\' http://127.0.0.1:8400/v1/search',
        "```",
        "",
    )
    for path, methods in document["paths"].items():
        for method, route in methods.items():
            yield from _route(f"{method.upper()} {path}", route)
    yield from ("## Objects", "")
    for name, schema in sorted(document["components"]["schemas"].items()):
        yield from _object(name, schema)


def _route(title: str, route: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"## {title}", "", route.get("description", ""), "")
    rows = (
        (f"`{each['name']}` ({each['in']})", _type(each["schema"]), each.get("description", ""))
        for each in route.get("parameters", ())
    )
    yield from _table(("parameter", "type", ""), rows)
    for media, content in route.get("requestBody", {}).get("content", {}).items():
        yield from (f"Body, `{media}`: {_type(content['schema'])}", "")
        yield from _table(("field", "type", ""), _fields(content["schema"]))
    yield from _table(("status", "answer"), _answers(route["responses"]))


def _answers(responses: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Each kind of answer, with all the statuses that come with it."""
    statuses: dict[str, list[str]] = {}
    for status, answer in responses.items():
        content = answer.get("content", {}).items()
        kind = ", ".join(f"{_type(each.get('schema', {}))} (`{media}`)" for media, each in content)
        statuses.setdefault(kind, []).append(f"`{status}`")
    for kind, found in statuses.items():
        yield ", ".join(found), kind


def _object(name: str, schema: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"### {name}", "", schema.get("description", ""), "")
    if "enum" in schema:
        yield from (f"One of {', '.join(f'`{value}`' for value in schema['enum'])}.", "")
    yield from _table(("field", "type", ""), _fields(schema))


def _fields(schema: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    needed = schema.get("required", ())
    for name, field in schema.get("properties", {}).items():
        default = "required" if name in needed else f"default `{json.dumps(field['default'])}`" if "default" in field else ""
        about = " ".join(part for part in (field.get("description", ""), default) if part)
        yield f"`{name}`", _type(field), about


_BOUNDS = {
    "minimum": "at least {}", "exclusiveMinimum": "above {}", "maximum": "at most {}", "exclusiveMaximum": "below {}",
    "minLength": "at least {} characters", "maxLength": "at most {} characters",
    "minItems": "at least {}", "maxItems": "at most {}",
}  # fmt: skip


def _type(schema: Mapping[str, Any]) -> str:
    """A schema in a few words, with links to the objects that it names."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return f"[{name}](#{name.lower()})"
    if options := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(dict.fromkeys(_type(option) for option in options))
    if "enum" in schema:
        return " or ".join(f"`{json.dumps(value)}`" for value in schema["enum"])
    kind = schema.get("type", "any value")
    kind = " or ".join(kind) if isinstance(kind, list) else kind
    if kind == "array":
        kind = f"list of {_type(schema.get('items', {}))}"
    kind = "file" if schema.get("format") == "binary" else kind
    bounds = [text.format(f"{schema[key]:,}") for key, text in _BOUNDS.items() if key in schema]
    return f"{kind} ({', '.join(bounds)})" if bounds else str(kind)


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """A Markdown table, nothing where there are no rows."""
    lines = [f"| {' | '.join(_escaped(' '.join(cell.split())).replace('|', BACKSLASH + '|') for cell in row)} |" for row in rows]
    if lines:
        yield from (f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}", *lines, "")


def _escaped(text: str) -> str:
    """The text with its <, > and * as they are, not as marks; code in backticks is left alone."""
    parts = text.split("`")
    return "`".join(part if number % 2 else re.sub(r"([<>*])", r"\\\1", part) for number, part in enumerate(parts))


if __name__ == "__main__":
    sys.exit(main())
