"""`tbps gallery info`: describe a gallery."""

import json
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from tbps.cli.console import output, plain
from tbps.cli.gallery.arguments import Folder
from tbps.cli.gallery.retention import rules_of

if TYPE_CHECKING:
    from tbps.gallery import GalleryInfo


def info(folder: Folder, as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False) -> None:
    """Describe a gallery: images, model, columns, cameras and their times, versions, snapshots, retention.

    Example: tbps gallery info my-gallery --json
    """
    from tbps.gallery import describe

    found = describe(folder)
    if as_json:
        values = asdict(found) | {"path": str(folder), "retention": found.retention.model_dump()}
        typer.echo(json.dumps(values, indent=2, default=datetime.isoformat))
    else:
        _show(found)


def _show(found: "GalleryInfo") -> None:
    table = Table(show_header=False, title=plain(str(found.path)), title_justify="left")
    rules = found.retention
    facts: list[tuple[str, Any]] = [
        ("images", f"{found.images:,}"),
        ("bytes", f"{found.bytes:,}"),
        ("model", f"{found.model} ({found.fingerprint}, {found.dim} numbers)"),
        ("made", found.created),
        ("versions", found.versions),
        ("columns", ", ".join(f"{name} ({kind})" for name, kind in found.columns.items())),
        *(("camera", _span(c.camera, c.images, c.first, c.last)) for c in found.cameras),
        *(("snapshot", f"{s.name}, {s.taken}, {s.images:,} images, {s.model}") for s in found.snapshots),
        *(("kept", line) for line in rules_of(rules)),
    ]
    if found.reembedding is not None:
        facts.append(("unfinished", f"{found.reembedding.images:,} images embedded with {found.reembedding.model}"))
    if found.erasing:
        facts.append(("unfinished", "an erasure; the next command that opens or changes the gallery completes it"))
    table.add_column()
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(name, plain(str(value)))
    output.print(table)


def _span(camera: str | None, images: int, first: datetime | None, last: datetime | None) -> str:
    times = "no times" if first is None or last is None else f"{first.isoformat()} to {last.isoformat()}"
    return f"{camera or 'none'}, {images:,} images, {times}"
