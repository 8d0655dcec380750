"""What all verbs share on the terminal: one console a stream, progress bars, and errors as one line."""

import sys
import traceback
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

OnProgress = Callable[[int, int], None]

output = Console()  # results
messages = Console(stderr=True)  # progress, notices, errors


class _RateColumn(ProgressColumn):
    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f} {self._unit}/s" if speed >= 10 else f"{speed:.1f} {self._unit}/s")


@contextmanager
def progress(title: str, unit: str) -> Iterator[OnProgress]:
    """A bar with count, rate and time left on standard error; yields the function that moves it: `(done, total)`."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _RateColumn(unit), TimeRemainingColumn())
    with Progress(*columns, console=messages) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def plain(text: str) -> Text:
    """For the terminal, as it stands: no markup, one line, and control characters, which could drive the terminal, escaped."""
    return Text("".join(ascii(c)[1:-1] if unicodedata.category(c) in {"Cc", "Cs"} else c for c in text))


def fail(error: Exception, debug: bool) -> None:
    """Prints an error as one clear line, or with its traceback."""
    if debug:
        traceback.print_exception(error, file=sys.stderr)
    line = " ".join(str(error).split())
    messages.print(Text("error: ", style="bold red") + plain(line), soft_wrap=True)
