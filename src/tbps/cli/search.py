"""`tbps search`: people in a gallery by description or by picture."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from tbps.cli.console import messages, output, plain
from tbps.cli.models import open_to_ask

if TYPE_CHECKING:
    from tbps.search.hits import Hit

_Result = tuple[str, "list[Hit]"]
_SHEETS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


def search(
    gallery: Annotated[Path, typer.Argument(help="gallery folder made by `tbps index`")],
    query: Annotated[list[str] | None, typer.Argument(help="descriptions, each in quotes")] = None,
    image: Annotated[list[Path] | None, typer.Option(help="search with a picture; may be repeated")] = None,
    k: Annotated[int, typer.Option("-k", "--k", min=1, help="hits for each query")] = 10,
    where: Annotated[str | None, typer.Option(help="SQL condition on the metadata columns")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    sheet: Annotated[Path | None, typer.Option(help="draw queries and hits into this picture (.png, .jpg, .webp)")] = None,
    model: Annotated[str | None, typer.Option(help="model folder or id, if it is no longer where it was at indexing")] = None,
) -> None:
    """Find the people of a gallery who fit a description, best first, with the cosine similarity as score.

    Filters are SQL conditions on camera, captured_at, identity, source and every simple column of the metadata; an unknown
    column is answered with the list of columns. Times are UTC.

    Example: tbps search my-gallery "a woman in a red coat with a black backpack" -k 5 --sheet hits.png

    Example: tbps search my-gallery "a man with an umbrella" --where "camera = 'lobby' and captured_at >= '2024-05-01'" --json
    """
    from tbps.errors import QueryError, SettingsError

    texts, pictures = query or [], image or []
    if not texts and not pictures:
        raise QueryError("no query: describe the person in quotes, or give a picture with --image")
    if sheet is not None and sheet.suffix.lower() not in _SHEETS:
        raise SettingsError(f"the contact sheet {sheet} must end in .png, .jpg or .webp")
    from tbps.search.manifest import recorded

    recorded(gallery)
    from tbps.search.gallery import Gallery

    asked = open_to_ask(model, gallery)
    opened = Gallery.open(gallery, asked, create=False)
    results: list[_Result] = []
    for text in texts:
        results.append((text, opened.search(text, k, where)))
        if asked.is_cut(text):
            note = f"note: the query is longer than the {asked.context_length} tokens the model reads; its end was not used"
            messages.print(plain(note), soft_wrap=True)
    results += [(str(picture), opened.search_image(picture, k, where)) for picture in pictures]
    if as_json:
        typer.echo(json.dumps([{"query": name, "hits": [_as_json(hit) for hit in hits]} for name, hits in results], indent=2))
    else:
        for name, hits in results:
            output.print(_table(name, hits))
    if sheet is not None:
        _draw(results, sheet)
        messages.print(plain(f"contact sheet: {sheet}"), soft_wrap=True)


def _as_json(hit: "Hit") -> dict[str, Any]:
    return {
        "rank": hit.rank,
        "score": hit.score,
        "id": hit.id,
        "source": hit.source,
        "path": None if hit.path is None else str(hit.path),
        "camera": hit.camera,
        "captured_at": hit.captured_at,
        "identity": hit.identity,
        "attributes": dict(hit.attributes),
    }


def _table(name: str, hits: "Sequence[Hit]") -> Table:
    table = Table(title=plain(name), title_justify="left", caption=None if hits else plain("no image passes the filter"))
    for column in ("rank", "score"):
        table.add_column(column, justify="right")
    for column in ("source", "camera", "captured at"):
        table.add_column(column, overflow="fold")
    for hit in hits:
        table.add_row(str(hit.rank), f"{hit.score:.3f}", plain(hit.source), plain(hit.camera or ""), hit.captured_at or "")
    return table


def _draw(results: Sequence[_Result], file: Path) -> None:
    from PIL import Image

    from tbps.errors import SettingsError
    from tbps.sheet import SheetRow, Tile, contact_sheet
    from tbps.storage import write_bytes

    rows = [
        SheetRow(name, tuple(Tile(Image.open(io.BytesIO(hit.thumbnail)), f"{hit.rank}   {hit.score:.3f}") for hit in hits))
        for name, hits in results
    ]
    buffer = io.BytesIO()
    drawn = contact_sheet(rows)
    try:
        drawn.save(buffer, _SHEETS[file.suffix.lower()])
    except (OSError, ValueError) as error:  # JPEG ends at 65,500 pixels a side, WebP at 16,383
        raise SettingsError(
            f"a contact sheet of {drawn.width} x {drawn.height} pixels is too large for {file.suffix}; ask for fewer hits (-k) "
            "or write a .png"
        ) from error
    write_bytes(file, buffer.getvalue())
