"""What all verbs share on the terminal: one console a stream, progress bars, and errors as one line."""

import logging
import sys
import traceback
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from tbps.redact import redacted

OnProgress = Callable[[int, int], None]
OnTitledProgress = Callable[[str, str, int, int], None]

output = Console()  # results
messages = Console(stderr=True)  # progress, notices, errors


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed, unit = task.finished_speed or task.speed, task.fields["unit"]
        return Text("" if speed is None else f"{speed:,.0f} {unit}/s" if speed >= 10 else f"{speed:.1f} {unit}/s")


@contextmanager
def _bars() -> Iterator[Progress]:
    title = TextColumn("{task.description}", markup=False)
    columns = (title, BarColumn(), MofNCompleteColumn(), _RateColumn(), TimeRemainingColumn())
    with Progress(*columns, console=messages) as bars:
        yield bars


@contextmanager
def progress(title: str, unit: str) -> Iterator[OnProgress]:
    """A bar with count, rate and time left on standard error; yields the function that moves it: `(done, total)`."""
    with _bars() as bars:
        task = bars.add_task(title, total=None, unit=unit)
        yield lambda done, total: bars.update(task, completed=done, total=total)


@contextmanager
def titled_progress() -> Iterator[OnTitledProgress]:
    """Bars like that of `progress`, one a title, the last two in sight; yields `(title, unit, done, total)`."""
    with _bars() as bars:
        tasks: dict[str, TaskID] = {}

        def move(title: str, unit: str, done: int, total: int) -> None:
            if title not in tasks:
                tasks[title] = bars.add_task(plain(title).plain, total=None, unit=unit)
                for old in list(tasks.values())[:-2]:
                    bars.update(old, visible=False)
            bars.update(tasks[title], completed=done, total=total or None)

        yield move


def plain(text: str) -> Text:
    """For the terminal: no markup, one line, passwords of addresses removed, and control characters escaped, which could drive the
    terminal."""
    return Text("".join(ascii(c)[1:-1] if unicodedata.category(c) in {"Cc", "Cs"} else c for c in redacted(text)))


def fail(error: Exception, debug: bool) -> None:
    """Prints an error as one clear line, or with its traceback."""
    if debug:
        print_traceback(error)
    line = " ".join(str(error).split())
    messages.print(Text("error: ", style="bold red") + plain(line), soft_wrap=True)


def print_traceback(error: BaseException) -> None:
    """Prints the traceback of an error and of its causes; messages of other libraries may hold addresses with passwords."""
    sys.stderr.write(redacted("".join(traceback.format_exception(error))))


class _RedactingFormatter(logging.Formatter):
    """Log lines without passwords of addresses, tracebacks included."""

    def format(self, record: logging.LogRecord) -> str:
        return redacted(super().format(record))


def log_warnings() -> None:
    """Sends warnings and errors of the program's log to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(_RedactingFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)


def say(line: str) -> None:
    output.print(plain(line), soft_wrap=True)


def warn(line: str) -> None:
    messages.print(plain(f"warning: {line}"), soft_wrap=True)
