"""Importing `tbps` has no side effects: no module opens a file, starts a process, connects, or changes the environment.

Side effects are detected by Python's audit events while all modules are imported. An event counts if a line of `tbps` caused it,
directly or through the standard library. Events of other packages do not count: pydantic, for example, looks for plugins.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import tbps

WATCH = """
import json, pkgutil, sys
WORK = ("open", "os.putenv", "os.unsetenv", "os.mkdir", "subprocess.Popen", "os.posix_spawn", "os.fork",
        "socket.connect", "socket.getaddrinfo")
found = []
home = sys.argv[1]

def watch(event, arguments):
    if event not in WORK:
        return
    frame = sys._getframe(1)
    while frame is not None and not any(part in frame.f_code.co_filename for part in ("<frozen importlib", "site-packages")):
        if frame.f_code.co_filename.startswith(home):
            found.append([event, str(arguments[0]), frame.f_code.co_filename[len(home):]])
            return
        frame = frame.f_back

sys.addaudithook(watch)
import importlib
import tbps
every = [module.name for module in pkgutil.walk_packages(tbps.__path__, "tbps.") if not module.name.endswith("__main__")]
names = sys.argv[2:] or every
for name in names:
    importlib.import_module(name)
print(json.dumps([len(names), found]))
"""
# lancedb's native library reads its log level from the environment once, when it is imported, so `tbps` sets it before.
NEEDED = [["os.putenv", "b'LANCE_LOG'", "gallery/store/database.py"]]


def work(source: Path, *names: str) -> tuple[int, list[list[str]]]:
    environment = {name: value for name, value in os.environ.items() if name != "LANCE_LOG"}
    done = subprocess.run(
        [sys.executable, "-c", WATCH, f"{source}/", *names], capture_output=True, text=True, check=True, env=environment
    )
    count, found = json.loads(done.stdout)
    return count, found


def test_importing_every_module_has_no_side_effects() -> None:
    count, found = work(Path(tbps.__file__).parent)
    assert count > 90
    assert found == NEEDED


@pytest.mark.parametrize(
    ("line", "event"),
    [
        ("from pathlib import Path; Path(__file__).read_text()", "open"),
        ("import os; os.environ['TBPS_X'] = '1'", "os.putenv"),
        ("import _socket; _socket.socket().connect_ex(('127.0.0.1', 9))", "socket.connect"),
        ("import subprocess; subprocess.run(['true'])", "subprocess.Popen"),
    ],
)
def test_side_effects_are_detected(line: str, event: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "busy.py").write_text(line)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    _, found = work(tmp_path, "busy")
    assert event in [entry[0] for entry in found]
