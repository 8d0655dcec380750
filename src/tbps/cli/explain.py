"""`tbps explain`: how much each word and each image region contributes to a score."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from tbps.cli.console import messages, note, output, plain
from tbps.cli.models import open_model
from tbps.cli.search import MINUS

if TYPE_CHECKING:
    from tbps.gallery import Word

_BAR = 24


def explain(
    gallery: Annotated[Path, typer.Argument(help="folder of the gallery")],
    query: Annotated[list[str], typer.Argument(help='descriptions in quotes, as for tbps search; "-backpack" is avoided')],
    id: Annotated[str, typer.Option("--id", help="id of the image, from `tbps search --json`")],
    out: Annotated[Path, typer.Option(help="image to write with the regions marked, .png")] = Path("why.png"),
    model: Annotated[str | None, typer.Option(help="model folder or id, if it is no longer where it was at indexing")] = None,
) -> None:
    """Explain the score of an image: the contribution of each word and of each region of the image.

    The contribution of a word is what the score loses without it. The contribution of a region is its share of the score's change
    from a grey image to this one.

    Example: tbps explain my-gallery "a woman in a red coat" --id 9a3ce997fb93425d4e0fd1ee --out why.png
    """
    from tbps.errors import SettingsError
    from tbps.gallery import Gallery, Query, phrase, recorded
    from tbps.storage import write_bytes

    if out.suffix.lower() != ".png":
        raise SettingsError(f"the image {out} must end in .png")
    asked = Query(texts=tuple(phrase(text.replace(MINUS, "-")) for text in query))
    recorded(gallery)
    opened = Gallery.open(gallery, open_model(model, gallery), create=False)
    found = opened.explain(asked, id)
    strongest = max((abs(word.weight) for word in found.words), default=0.0) or 1.0
    table = Table(title=f"score {found.score:.3f}", title_justify="left")
    for name in ("word", "carried", ""):
        table.add_column(name, justify="right" if name == "carried" else "left", overflow="fold")
    for word in found.words:
        table.add_row(plain(word.word), f"{word.weight:+.3f}", _bar(word, strongest))
    output.print(table)
    for notice in dict.fromkeys(found.notices):
        note(notice)
    from tbps.gallery import draw_explanation

    buffer = io.BytesIO()
    draw_explanation(found, opened.image(id).thumbnail).save(buffer, "PNG")
    write_bytes(out, buffer.getvalue())
    messages.print(plain(f"image: {out}"), soft_wrap=True)


def _bar(word: "Word", strongest: float) -> Text:
    length = round(_BAR * abs(word.weight) / strongest)
    return Text("\u2588" * length, style="green" if word.weight > 0 else "red")
