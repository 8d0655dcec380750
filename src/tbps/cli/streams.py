"""Standard output and standard error of the program: a failed write is reported as a one-line error, never as a traceback."""

import codecs
import io
import os
import sys
from typing import Any, TextIO, final

CLOSED_PIPE = 141  # the exit code that a shell shows for a program ended by SIGPIPE: 128 + 13

_STANDARD_INPUT, _STANDARD_OUTPUT, _STANDARD_ERROR = 0, 1, 2
_READABLE = "tbps.readable"
# ASCII replacements of the other characters in tables, progress bars and messages.
_ASCII = (
    dict.fromkeys("─━╌╍┄┅┈┉═╴╶╸╺╼╾▁", "-")
    | dict.fromkeys("│┃┆┇┊┋║╎╏╷╹╻╵", "|")
    | dict.fromkeys("┌┍┎┏┐┑┒┓└┕┖┗┘┙┚┛├┝┞┟┠┡┢┣┤┥┦┧┨┩┪┫┬┭┮┯┰┱┲┳┴┵┶┷┸┹┺┻┼┽┾┿╀╁╂╃╄╅╆╇╈╉╊╋╞╡╪╭╮╯╰╔╗╚╝╠╣╦╩╬", "+")
    | {"█": "#", "•": "*", "…": "...", "\u2013": "-", "\u2019": "'"}
)


@final
class OutputError(Exception):
    """Standard output cannot be written. Not an OSError, because callers catch those as errors of their own files."""

    def __init__(self, message: str, closed_pipe: bool = False) -> None:
        super().__init__(message)
        self.closed_pipe = closed_pipe


@final
class _Output(io.FileIO):
    """Standard output that raises OutputError on a failed write and discards all later writes."""

    def write(self, content: Any, /) -> int:
        try:
            return super().write(content)
        except OSError as error:
            _redirect_to_null(_STANDARD_OUTPUT, os.O_WRONLY)  # otherwise the interpreter's last flush fails and prints a message
            message = f"standard output cannot be written ({error.strerror}); what it has received so far is incomplete"
            raise OutputError(message, isinstance(error, BrokenPipeError)) from error


@final
class _Messages(io.FileIO):
    """Standard error that ignores failed writes: they cannot be reported anywhere, and should not end the command."""

    def write(self, content: Any, /) -> int:
        try:
            return super().write(content)
        except OSError:
            return memoryview(content).nbytes


def prepare() -> None:
    """Replace `sys.stdout` and `sys.stderr` by streams that handle failed writes, unless a test has already replaced them.

    Descriptors 0 to 2 that are closed are opened on /dev/null, since the next opened file would take their number.
    Raises OutputError if standard output was closed.
    """
    codecs.register_error(_READABLE, _readable)
    closed = [number for number in (_STANDARD_INPUT, _STANDARD_OUTPUT, _STANDARD_ERROR) if not _is_open(number)]
    for number in closed:
        _redirect_to_null(number, os.O_RDONLY if number == _STANDARD_INPUT else os.O_WRONLY)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _wrapped(_Messages(_STANDARD_ERROR, "wb", closefd=False), sys.stderr, line_buffering=True)
    if _STANDARD_OUTPUT in closed:
        raise OutputError("standard output is closed, so that no result could be shown; send it to a file or to /dev/null")
    if sys.stdout is sys.__stdout__:
        stream = sys.stdout
        sys.stdout = _wrapped(
            _Output(_STANDARD_OUTPUT, "wb", closefd=False), stream, line_buffering=bool(stream and stream.isatty())
        )


def finish() -> None:
    """Flush standard output. Raises OutputError if that fails."""
    if sys.stdout is not None:
        sys.stdout.flush()


def _wrapped(raw: io.FileIO, before: TextIO | None, line_buffering: bool) -> TextIO:
    """A text stream on `raw` with the encoding of the stream `before` that it replaces."""
    encoding = (before.encoding if before is not None else None) or "utf-8"
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding=encoding, errors=_READABLE, line_buffering=line_buffering)


def _readable(error: UnicodeError) -> tuple[str, int]:
    """Codec error handler for characters that the encoding lacks: ASCII for those of tables, else backslash escapes."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    characters = error.object[error.start : error.end]
    return "".join(_ASCII.get(c) or c.encode("ascii", "backslashreplace").decode("ascii") for c in characters), error.end


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _redirect_to_null(number: int, flags: int) -> None:
    """Point file descriptor `number` to /dev/null."""
    null = os.open(os.devnull, flags)
    if null != number:
        os.dup2(null, number)
        os.close(null)
