"""`tbps audit`: what was asked of a service and shown, and whether the log of it is whole."""

import json
from collections import deque
from pathlib import Path
from typing import Annotated

import typer

from tbps.cli.console import messages, output, plain

audit = typer.Typer(name="audit", help="The audit log of the service (`tbps serve`).", no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(help="gallery folder")]
State = Annotated[Path | None, typer.Option(help="folder of the log, if it is not GALLERY.service")]


@audit.command()
def verify(
    gallery: Folder,
    noted: Annotated[str | None, typer.Option(help="number:hash, as an earlier verification printed it")] = None,
    state: State = None,
) -> None:
    """Check that no line was changed, removed, added or moved, and print number:hash of the last; exit code 1 if one was.

    Whoever may write to the folder can make the whole log anew. Keep number:hash somewhere else and give it with --noted later:
    then that shows too, up to that line.

    Example: tbps audit verify my-gallery
    """
    from tbps.server import verify as verify_log

    verdict = verify_log(_place(gallery, state), noted)
    if verdict.wrong is not None:
        messages.print(plain(f"the audit log is not as it was written: {verdict.wrong}"), soft_wrap=True)
        raise typer.Exit(1)
    output.print(plain(f"{verdict.lines:,} lines are as they were written; the last is"), soft_wrap=True)
    typer.echo(f"{verdict.lines}:{verdict.hash}")


@audit.command()
def show(
    gallery: Folder,
    last: Annotated[int, typer.Option(min=1, help="so many of the newest lines")] = 20,
    who: Annotated[str | None, typer.Option(help="only of this name")] = None,
    deed: Annotated[str | None, typer.Option(help="only this, such as search or forget")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print whole lines as JSON")] = False,
    state: State = None,
) -> None:
    """Print the newest lines of the log, oldest of them first. It verifies nothing.

    Example: tbps audit show my-gallery --deed search --last 50
    """
    from tbps.server import entries

    found = (
        entry
        for entry in entries(_place(gallery, state))
        if (who is None or entry.get("who") == who) and (deed is None or entry.get("deed") == deed)
    )
    for entry in deque(found, last):
        if as_json:
            typer.echo(json.dumps(entry))
            continue
        known = ("number", "at", "who", "key", "deed", "previous", "hash", "shown")
        more = {name: value for name, value in entry.items() if name not in known}
        shown = f", {len(entry['shown'])} shown" if "shown" in entry else ""
        line = f"{entry.get('number')}  {str(entry.get('at'))[:19]}  {entry.get('who')}  {entry.get('deed')}{shown}"
        output.print(plain(f"{line}  {json.dumps(more) if more else ''}".rstrip()), soft_wrap=True)


def _place(gallery: Path, state: Path | None) -> Path:
    """The state folder, once it is known to be that of the gallery."""
    from tbps.server import known_state, state_folder

    return known_state(state or state_folder(gallery), gallery)
