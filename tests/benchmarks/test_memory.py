"""Benchmarks check the available memory before they start and are ended above 10 GiB."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import memory
import pytest
from everything import ALL
from measuring import apart
from memory import GIB, LIMIT, TooLittleMemory, available, needed, require, taken, tree

from tests.benchmarks.held_memory import die, hold

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def machine(folder: Path, free: int, **groups: str) -> Path:
    """Writes fake system files that report the available bytes; keywords add files of control groups, path_of_file=content."""
    (folder / "proc/self").mkdir(parents=True)
    (folder / "proc/meminfo").write_text(f"MemTotal: 99 kB\nMemAvailable:   {free // 1024} kB\n")
    (folder / "proc/self/cgroup").write_text("0::/outer/inner\n4:memory,cpu:/old\n3:cpuset:/elsewhere\n")
    for name, content in groups.items():
        file = folder / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return folder


def test_available_memory_is_the_minimum_of_machine_and_control_groups(tmp_path: Path) -> None:
    assert available(machine(tmp_path / "free", 12 * GIB)) == 12 * GIB
    two = {
        "outer/memory.max": f"{8 * GIB}\n",
        "outer/memory.current": f"{5 * GIB}\n",
        "outer/memory.stat": f"anon 1\ninactive_file {GIB}\n",
    }
    unlimited = {"outer/inner/memory.max": "max\n", "outer/inner/memory.current": f"{5 * GIB}\n"}
    assert available(machine(tmp_path / "two", 12 * GIB, **two, **unlimited)) == 4 * GIB
    one = {"memory/old/memory.limit_in_bytes": f"{3 * GIB}", "memory/old/memory.usage_in_bytes": f"{GIB}"}
    assert available(machine(tmp_path / "one", 12 * GIB, **one)) == 2 * GIB
    assert available(machine(tmp_path / "full", GIB, **two)) == GIB


def test_this_machine_has_memory() -> None:
    assert 0 < available() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.mark.parametrize("name", [*ALL, "gpu", "quality"])
def test_no_benchmark_needs_more_than_10_gib_and_all_require_memory(name: str, tmp_path: Path) -> None:
    for toy in (True, False):
        wanted = needed(name, toy)
        assert 0 < wanted <= LIMIT == 10 * GIB
        require(name, toy, machine(tmp_path / f"enough {toy}", wanted))
        with pytest.raises(TooLittleMemory, match=rf"needs {wanted / GIB:.1f} GiB of memory, 0\.5 GiB are available.*--toy"):
            require(name, toy, machine(tmp_path / f"little {toy}", GIB // 2))


@pytest.mark.parametrize("file", ["floor.py", "side_by_side.py", "everything.py", "quality.py"])
def test_too_little_memory_is_reported_in_one_line(file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda root=None: 0)
    monkeypatch.setattr(sys, "argv", [file, "--toy", "--folder", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(BENCHMARKS / file), run_name="__main__")
    message = ended.value.code  # the interpreter prints a text on standard error and ends with code 1
    assert isinstance(message, str) and len(message.splitlines()) == 1
    assert message.startswith("error: the benchmark ") and "0.0 GiB are available" in message
    assert not list(tmp_path.iterdir())


def test_memory_includes_child_processes() -> None:
    hold = "import subprocess, sys; held = b'x' * {0}; {1}; print('ready', flush=True); sys.stdin.read()"
    inner = f"[sys.executable, '-c', {hold.format(64 * 2**20, 'pass')!r}]"
    outer = hold.format(
        32 * 2**20, f"below = subprocess.Popen({inner}, stdin=sys.stdin, stdout=subprocess.PIPE); below.stdout.readline()"
    )
    with subprocess.Popen([sys.executable, "-c", outer], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline() == b"ready\n"
        found, processes = taken(process.pid), tree(process.pid)
        process.communicate()
    assert len(processes) == 2
    assert 96 * 2**20 <= found < 96 * 2**20 + 100 * 2**20


def test_processes_are_ended_above_the_limit() -> None:
    code = """
import memory, os, subprocess, sys
with memory.within_limit("floor", True, limit=64 * 2**20):
    hold = "import time; held = b'x' * (100 * 2**20); time.sleep(600)"
    below = subprocess.Popen([sys.executable, "-c", hold])
    print("below", below.pid, flush=True)
    below.wait()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(BENCHMARKS)},
    )  # fmt: skip
    assert "more than the 0 GiB it keeps to: ended" in done.stderr
    (number,) = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("below")]
    assert not Path(f"/proc/{number}/cmdline").exists() or not Path(f"/proc/{number}/cmdline").read_bytes()


def test_separate_runs_never_hold_memory_at_the_same_time() -> None:
    """Each run sees no other run among the children of the measuring process."""
    before = len(tree(os.getpid()))
    found = apart({name: hold for name in "abc"}, 1)
    assert all(each.outcome <= before + 2 for each in found.values())  # itself, and the resource tracker of multiprocessing
    assert all(each.seconds[0] > 0 and each.megabytes[0] > 30 for each in found.values())
    assert len(tree(os.getpid())) <= before + 1


def test_a_separate_run_that_dies_is_named() -> None:
    with pytest.raises(RuntimeError, match="ended with 7"):
        apart({"dies": die}, 1)
