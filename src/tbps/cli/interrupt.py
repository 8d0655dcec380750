"""Handling of Ctrl-C in long runs: the first requests a stop after the current update, the second stops at once."""

import signal
from types import FrameType
from typing import Self, final

from tbps.cli.console import messages


@final
class Interrupt:
    """Context manager: the first SIGINT prints `notice` and makes `wished()` true, the second raises KeyboardInterrupt."""

    def __init__(self, notice: str) -> None:
        self._notice = notice
        self._wished = False

    def wished(self) -> bool:
        """Whether Ctrl-C has been pressed."""
        return self._wished

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGINT, self._interrupt)
        return self

    def __exit__(self, *error: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._wished:
            raise KeyboardInterrupt
        self._wished = True
        messages.print(self._notice)
