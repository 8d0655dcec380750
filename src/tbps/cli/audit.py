"""`tbps audit`: verify and show the audit log of a service."""

import json
from collections import deque
from typing import Annotated

import typer

from tbps.cli.console import messages, output, plain
from tbps.cli.service_state import Gallery, State, known_state_of

audit = typer.Typer(name="audit", help="Verify and show the audit log of a service (`tbps serve`).", no_args_is_help=True)


@audit.command()
def verify(
    gallery: Gallery,
    noted: Annotated[str | None, typer.Option(help="number:hash that an earlier verification printed")] = None,
    state: State = None,
) -> None:
    """Check that no line of the log was changed, removed, added or moved; exit code 1 if one was.

    Prints number and hash of the last line. Somebody with write access to the folder could replace the whole log: keep number:hash
    elsewhere and pass it with --noted later, to detect that for the lines up to it.

    Example: tbps audit verify my-gallery
    """
    from tbps.server import verify as verify_log

    verdict = verify_log(known_state_of(gallery, state), noted)
    if verdict.wrong is not None:
        messages.print(plain(f"the audit log was altered: {verdict.wrong}"), soft_wrap=True)
        raise typer.Exit(1)
    output.print(plain(f"{verdict.lines:,} lines are unaltered; number and hash of the last one:"), soft_wrap=True)
    typer.echo(f"{verdict.lines}:{verdict.hash}")


@audit.command()
def show(
    gallery: Gallery,
    last: Annotated[int, typer.Option(min=1, help="number of lines")] = 20,
    who: Annotated[str | None, typer.Option(help="only lines of the key holder of this name")] = None,
    deed: Annotated[str | None, typer.Option(help="only this action, such as search or forget")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print whole lines as JSON")] = False,
    state: State = None,
) -> None:
    """Print the newest lines of the log, oldest first, without verifying them.

    Example: tbps audit show my-gallery --deed search --last 50
    """
    from tbps.server import entries

    found = (
        entry
        for entry in entries(known_state_of(gallery, state))
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
