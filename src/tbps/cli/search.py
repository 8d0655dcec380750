"""`tbps search`: find people in a gallery by description, by image, or by earlier hits."""

import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from typer.core import TyperCommand, TyperOption

from tbps.cli.console import messages, note, output, plain
from tbps.cli.models import open_for_search

if TYPE_CHECKING:
    from rich.text import Text

    from tbps.gallery import Cutoff, Hit, Page

_SHEETS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
MINUS = "\0-"  # replaces the "-" of a description to avoid; arguments of a process cannot contain a zero byte
# Neither an option nor a single letter, which is more likely a mistyped option.
_AVOIDED = re.compile(r"-(?!-|k\d*$|[A-Za-z]$).+", re.DOTALL)


class SearchCommand(TyperCommand):
    """Command that reads "-backpack" as a description to avoid, not as the options -b, -a, -c and so on."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Replace the minus of descriptions to avoid with `MINUS`: arguments after the gallery, neither options nor values."""
        options = [each for each in self.params if isinstance(each, TyperOption)]
        with_value = {name for each in options if not each.is_flag for name in each.opts}
        marked, gallery_given = list[str](), False
        for number, argument in enumerate(args):
            if argument == "--":  # what follows is positional anyway
                return super().parse_args(ctx, [*marked, *args[number:]])
            is_value = number > 0 and args[number - 1] in with_value
            avoided = gallery_given and not is_value and _AVOIDED.fullmatch(argument)
            marked.append(MINUS + argument[1:] if avoided else argument)
            gallery_given |= not is_value and not argument.startswith("-")
        return super().parse_args(ctx, marked)


def search(
    gallery: Annotated[Path, typer.Argument(help="gallery folder made by `tbps index`")],
    query: Annotated[
        list[str] | None, typer.Argument(help='descriptions in quotes; "-backpack" is avoided, "a red coat^2" has weight 2')
    ] = None,
    image: Annotated[list[Path] | None, typer.Option(help="image of the person to find; may be repeated")] = None,
    like: Annotated[
        list[str] | None, typer.Option(help="id of an image of the gallery, to find similar ones; may be repeated")
    ] = None,
    right: Annotated[list[str] | None, typer.Option(help="id of a hit that was right; may be repeated")] = None,
    wrong: Annotated[list[str] | None, typer.Option(help="id of a hit that was wrong; may be repeated")] = None,
    k: Annotated[int, typer.Option("-k", "--k", min=1, help="hits to show")] = 10,
    offset: Annotated[int, typer.Option(min=0, help="hits to skip, for further pages")] = 0,
    group: Annotated[str | None, typer.Option(help="show one hit per value of this column, such as tracklet or identity")] = None,
    camera: Annotated[list[str] | None, typer.Option(help="only this camera; may be repeated")] = None,
    since: Annotated[
        str | None, typer.Option(help="only images taken at or after this time, such as 2024-05-01T08:30 (UTC)")
    ] = None,
    until: Annotated[str | None, typer.Option(help="only images taken before this time")] = None,
    equals: Annotated[list[str] | None, typer.Option("--is", help="only where COLUMN=VALUE; may be repeated")] = None,
    where: Annotated[str | None, typer.Option(help="filter on the metadata columns, such as: age >= 30")] = None,
    rerank: Annotated[bool, typer.Option("--rerank", help="re-rank the best hundred hits by their mutual similarity")] = False,
    each: Annotated[bool, typer.Option("--each", help="one search per description and image, instead of one for all")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    sheet: Annotated[Path | None, typer.Option(help="write a contact sheet of queries and hits (.png, .jpg, .webp)")] = None,
    model: Annotated[str | None, typer.Option(help="model folder or id, if it is no longer where it was at indexing")] = None,
) -> None:
    """Find the images of a gallery that fit a description best, ranked by cosine similarity.

    Descriptions, images and marked hits are combined into one query, unless --each is given. Images that fit a description with a
    minus before it rank lower; a backslash before the minus searches for the text itself. The ids that --like, --right and --wrong
    take are in the output of --json.

    Filters (--where) compare columns with values by = <> < <= > >=, between, in (...), like and is null, joined by and, or, not
    and brackets. Columns are camera, captured_at, identity, source and the columns of the metadata that hold texts, numbers,
    truth values or times. Texts and times are written in single quotes; times are UTC. In a like pattern '%' matches any characters
    and '_' matches one; matching is case-sensitive. Errors list the known columns or the most similar camera.

    Example: tbps search my-gallery "a woman in a red coat" "-backpack" --camera lobby --group identity -k 5 --sheet hits.png

    Example: tbps search my-gallery "a man with an umbrella" --where "camera = 'lobby' and captured_at >= '2024-05-01'" --json
    """
    from tbps.errors import QueryError, SettingsError

    texts, pictures = query or [], image or []
    if not (texts or pictures or like or right):
        raise QueryError("no query: describe the person in quotes, give an image with --image, or an id with --like")
    if sheet is not None and sheet.suffix.lower() not in _SHEETS:
        raise SettingsError(f"the contact sheet {sheet} must end in .png, .jpg or .webp")
    from tbps.gallery import RERANKED, Query, phrase, recorded

    conditions = {"cameras": camera or (), "since": since, "until": until, "equals": _pairs(equals or []), "where": where}
    page = {"k": k, "offset": offset, "group": group, "rerank": RERANKED if rerank else 0}
    marked = {"like": [{"id": name} for name in like or ()], "right": right or (), "wrong": wrong or ()}
    described = [phrase(text.replace(MINUS, "-")) for text in texts]
    common = Query.parse(conditions | page | marked)
    recorded(gallery)
    from tbps.gallery import Gallery

    opened = Gallery.open(gallery, open_for_search(model, gallery), create=False)
    asked: list[tuple[str, Query, list[Path]]] = []
    if each:
        asked += [(text.text, common.model_copy(update={"texts": (text,)}), []) for text in described]
        asked += [(str(picture), common, [picture]) for picture in pictures]
    else:
        title = ", ".join([*(text.replace(MINUS, "-") for text in texts), *map(str, pictures), *(like or ()), *(right or ())])
        asked.append((title, common.model_copy(update={"texts": tuple(described)}), pictures))
    results = [(title, opened.find(part, files, thumbnails=sheet is not None)) for title, part, files in asked]
    if as_json:
        typer.echo(json.dumps([{"query": title, **found.as_dict()} for title, found in results], indent=2))
    else:
        for title, found in results:
            output.print(_table(title, found))
    for notice in dict.fromkeys(notice for _, found in results for notice in found.notices):
        note(notice)
    if sheet is not None:
        _draw([(title, found.hits) for title, found in results], sheet)
        messages.print(plain(f"contact sheet: {sheet}"), soft_wrap=True)


def _pairs(texts: Sequence[str]) -> dict[str, str]:
    """Split COLUMN=VALUE texts into a dictionary. Raises QueryError if one has no "="."""
    from tbps.errors import QueryError

    pairs = {}
    for text in texts:
        column, sign, value = text.partition("=")
        if not sign:
            raise QueryError(f"--is {text!r} is not of the form COLUMN=VALUE, such as upper_colour=red")
        pairs[column.strip()] = value.strip()
    return pairs


def _table(title: str, page: "Page") -> Table:
    table = Table(title=plain(title), title_justify="left", caption=None if page.hits else plain("no image passes the filter"))
    estimated, grouped = page.line is not None, any(hit.group for hit in page.hits)
    times = [("images", True), ("first seen", False), ("last seen", False)] if grouped else [("captured at", False)]
    columns = [("rank", True), ("score", True), ("source", False), ("camera", False), *times, *[("right", True)] * estimated]
    for name, is_number in columns:
        table.add_column(name, justify="right" if is_number else "left", overflow="fold")
    for hit in page.hits:
        table.add_row(*_cells(hit, estimated), end_section=page.line is not None and hit.rank == page.line.hits)
    if page.line is not None and page.hits:
        table.caption = plain(_claim(page.line))
    return table


def _cells(hit: "Hit", estimated: bool) -> "list[str | Text]":
    group = hit.group
    times = [hit.captured_at] if group is None else [f"{group.count:,}", group.first_seen, group.last_seen]
    chance = [one_in(hit.chance or 0.0)] if estimated else []
    return [str(hit.rank), f"{hit.score:.3f}", plain(hit.source), plain(hit.camera or ""), *(time or "" for time in times), *chance]


def _claim(line: "Cutoff") -> str:
    if not line.hits:
        return f"even the best is right only {one_in(line.share)} times, by the model's calibration"
    return f"about {one_in(line.share)} of the first {line.hits} is right, by the model's calibration"


def one_in(chance: float) -> str:
    """Formats a probability: 0.34 is "1 in 3", 0.75 is "3 in 4"."""
    if chance > 0.5:
        of = min(round(1 / max(1 - chance, 0.01)), 100)
        return f"{of - 1} in {of}"
    return f"1 in {min(round(1 / max(chance, 1e-9)), 1000)}" if chance > 0.001 else "under 1 in 1000"


def _draw(results: "Sequence[tuple[str, Sequence[Hit]]]", file: Path) -> None:
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
    except (OSError, ValueError) as error:  # JPEG is limited to 65,500 pixels per side, WebP to 16,383
        raise SettingsError(
            f"a contact sheet of {drawn.width} x {drawn.height} pixels is too large for {file.suffix}; ask for fewer hits (-k) "
            "or write a .png"
        ) from error
    write_bytes(file, buffer.getvalue())
