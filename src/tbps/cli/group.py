"""The group of all commands: what it reports of wrong arguments and of unexpected errors holds no passwords of addresses."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from tbps.cli import console
from tbps.redact import redacted


class RedactingGroup(TyperGroup):
    """Removes secrets from the messages of usage errors, and from the tracebacks of errors that nothing else handles."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        with _without_secrets():
            return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        with _without_secrets():
            return super().invoke(ctx)


@contextmanager
def _without_secrets() -> Iterator[None]:
    try:
        yield
    except TyperException as error:
        if isinstance(message := getattr(error, "message", None), str):
            error.message = redacted(message)
        raise
    except (typer.Exit, typer.Abort, EOFError, BrokenPipeError):
        raise
    except Exception as error:
        if type(error).__module__.partition(".")[0] == "tbps":  # handled by `main`
            raise
        console.print_traceback(error)
        raise typer.Exit(1) from None
