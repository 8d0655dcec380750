"""Terminal output of all commands: results on standard output; progress, notes and errors on standard error."""

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
    """Units per second: the final average once a task is finished."""

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
    """Show a progress bar with count, rate and time left; yields a function `(done, total)` that updates it."""
    with _bars() as bars:
        task = bars.add_task(title, total=None, unit=unit)
        yield lambda done, total: bars.update(task, completed=done, total=total)


@contextmanager
def titled_progress() -> Iterator[OnTitledProgress]:
    """Show progress bars, one per title, of which the newest two are visible.

    Yields a function `(title, unit, done, total)` that updates or adds one.
    """
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
    """Make a text safe to print: passwords in addresses removed, control characters escaped, markup not interpreted."""
    return Text("".join(ascii(c)[1:-1] if unicodedata.category(c) in {"Cc", "Cs"} else c for c in redacted(text)))


def fail(error: Exception, debug: bool) -> None:
    """Print an error as one line; debug: print its traceback first."""
    if debug:
        print_traceback(error)
    line = " ".join(str(error).split())
    messages.print(Text("error: ", style="bold red") + plain(line), soft_wrap=True)


def print_traceback(error: BaseException) -> None:
    """Print the traceback of an error and of its causes, without passwords in addresses."""
    sys.stderr.write(redacted("".join(traceback.format_exception(error))))


class _RedactingFormatter(logging.Formatter):
    """Removes passwords in addresses from log lines and their tracebacks."""

    def format(self, record: logging.LogRecord) -> str:
        return redacted(super().format(record))


def log_warnings() -> None:
    """Send log records from level WARNING to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(_RedactingFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)


def say(line: str) -> None:
    """Print a line of the result."""
    output.print(plain(line), soft_wrap=True)


def note(line: str) -> None:
    """Print a remark that needs no action."""
    messages.print(Text("note: ", style="yellow") + plain(line), soft_wrap=True)


def warn(line: str) -> None:
    """Print a remark that may need action."""
    messages.print(plain(f"warning: {line}"), soft_wrap=True)
