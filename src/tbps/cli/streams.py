"""Standard output and standard error of the program: what they cannot write ends in one clear line, never in a traceback."""

import codecs
import io
import os
import sys
from typing import Any, TextIO, final

CLOSED_PIPE = 141  # the exit code that a shell shows for a program ended by SIGPIPE: 128 + 13

_STANDARD_INPUT, _STANDARD_OUTPUT, _STANDARD_ERROR = 0, 1, 2
_READABLE = "tbps.readable"
# What tables, bars and the project's own sentences use beyond ASCII, in ASCII.
_ASCII = (
    dict.fromkeys("─━╌╍┄┅┈┉═╴╶╸╺╼╾▁", "-")
    | dict.fromkeys("│┃┆┇┊┋║╎╏╷╹╻╵", "|")
    | dict.fromkeys("┌┍┎┏┐┑┒┓└┕┖┗┘┙┚┛├┝┞┟┠┡┢┣┤┥┦┧┨┩┪┫┬┭┮┯┰┱┲┳┴┵┶┷┸┹┺┻┼┽┾┿╀╁╂╃╄╅╆╇╈╉╊╋╞╡╪╭╮╯╰╔╗╚╝╠╣╦╩╬", "+")
    | {"█": "#", "•": "*", "…": "...", "\u2013": "-", "\u2019": "'"}
)


@final
class OutputError(Exception):
    """Standard output does not take what is written; no OSError, since those are caught where files are written."""

    def __init__(self, message: str, closed_pipe: bool = False) -> None:
        super().__init__(message)
        self.closed_pipe = closed_pipe


@final
class _Output(io.FileIO):
    """Standard output: a refused write becomes an OutputError, and all that follows goes nowhere."""

    def write(self, content: Any, /) -> int:
        try:
            return super().write(content)
        except OSError as error:
            _point_nowhere(_STANDARD_OUTPUT, os.O_WRONLY)  # else the interpreter tries once more when it ends, and complains
            told = f"standard output cannot be written ({error.strerror}); what it has received so far is incomplete"
            raise OutputError(told, isinstance(error, BrokenPipeError)) from error


@final
class _Messages(io.FileIO):
    """Standard error: there is no place left to report a refused write, and work under way is worth more than a message."""

    def write(self, content: Any, /) -> int:
        try:
            return super().write(content)
        except OSError:
            return memoryview(content).nbytes


def prepare() -> None:
    """Wraps the two streams of this process, unless somebody else (a test) has put others in their place.

    Raises OutputError where standard output is closed: the first file that a program opens would else become its standard output.
    """
    codecs.register_error(_READABLE, _readable)
    closed = [number for number in (_STANDARD_INPUT, _STANDARD_OUTPUT, _STANDARD_ERROR) if not _is_open(number)]
    for number in closed:
        _point_nowhere(number, os.O_RDONLY if number == _STANDARD_INPUT else os.O_WRONLY)
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
    """Writes what standard output still holds back. Raises OutputError when it is refused."""
    if sys.stdout is not None:
        sys.stdout.flush()


def _wrapped(raw: io.FileIO, before: TextIO | None, line_buffering: bool) -> TextIO:
    encoding = (before.encoding if before is not None else None) or "utf-8"
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding=encoding, errors=_READABLE, line_buffering=line_buffering)


def _readable(error: UnicodeError) -> tuple[str, int]:
    """The handler of characters that an encoding lacks: those of tables in ASCII, all others as backslash escapes."""
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


def _point_nowhere(number: int, flags: int) -> None:
    """Lets a file descriptor lead to /dev/null."""
    nowhere = os.open(os.devnull, flags)
    if nowhere != number:
        os.dup2(nowhere, number)
        os.close(nowhere)
