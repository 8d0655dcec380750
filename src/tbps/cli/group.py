"""Command group that removes passwords from what it reports about wrong arguments and unexpected errors."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from tbps.cli import console
from tbps.redact import redacted


class RedactingGroup(TyperGroup):
    """Redacts passwords in addresses (rtsp://user:password@...), in messages of usage errors and in tracebacks."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        with _without_secrets():
            return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        with _without_secrets():
            return super().invoke(ctx)


@contextmanager
def _without_secrets() -> Iterator[None]:
    """Redact the message of a usage error; print an unexpected error with a redacted traceback and exit with code 1."""
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
