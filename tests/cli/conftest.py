"""How the tests run a command: through the program's own entry."""

import io
import sys
from collections.abc import Callable

import pytest

from tbps.cli import main


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs `tbps` with arguments and an answer to its question: exit code, standard output, standard error."""
    monkeypatch.delenv("TBPS_MODEL", raising=False)

    def run_it(*arguments: object, answer: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tbps", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run_it
