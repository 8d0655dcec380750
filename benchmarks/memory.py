"""Memory limit of benchmarks: 10 GiB for all processes together, checked before a benchmark starts and watched while it runs.

The machine may be shared: without a limit the system could kill the benchmark or other programs.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

GIB = 2**30
LIMIT = 10 * GIB
TOY = 2 * GIB
# Memory of each benchmark at full size, all processes together; others take at most 4 GiB.
NEEDS: Mapping[str, int] = {"side by side": LIMIT, "search": LIMIT, "gpu": LIMIT, "quality": LIMIT, "scaling": 6 * GIB}
_USUAL = 4 * GIB
_EVERY = 0.5  # seconds between checks


class TooLittleMemory(Exception):
    """The machine has less memory free than a benchmark needs."""


@dataclass
class Peak:
    """Largest memory of all processes together so far, in bytes."""

    most: int = 0


def needed(name: str, toy: bool) -> int:
    """Returns the bytes that a benchmark needs."""
    return TOY if toy else NEEDS.get(name, _USUAL)


def available(root: Path = Path("/")) -> int:
    """Returns the bytes that this process may still allocate on the machine and within its control groups.

    `root` holds proc/ and sys/fs/cgroup/.
    """
    found = [_machine(root)]
    for folder in _groups(root):
        for limit, taken in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            most, now = _number(folder / limit), _number(folder / taken)
            if most is not None and now is not None:
                found.append(max(0, most - now + _droppable(folder)))
    return min(found)


def require(name: str, toy: bool, root: Path = Path("/")) -> None:
    """Raises TooLittleMemory where less memory is available than the benchmark needs."""
    wanted, free = needed(name, toy), available(root)
    if free < wanted:
        raise TooLittleMemory(
            f"the benchmark {name!r} needs {wanted / GIB:.1f} GiB of memory, {free / GIB:.1f} GiB are available; "
            "end other programs, or use --toy for small sizes"
        )


@contextmanager
def within_limit(name: str, toy: bool, limit: int = LIMIT) -> Iterator[Peak]:
    """Checks the available memory, then watches the processes of the block; above `limit`, they are ended with a message."""
    require(name, toy)
    print(f"memory: {name} keeps to {limit / GIB:.0f} GiB in all, {available() / GIB:.1f} GiB are available", flush=True)
    peak, ended = Peak(), threading.Event()
    watch = threading.Thread(target=_watch, args=(name, peak, ended, limit), daemon=True)
    watch.start()
    try:
        yield peak
    finally:
        ended.set()
        watch.join()
        print(f"memory: {name} took {peak.most / GIB:.2f} GiB at most", flush=True)


def taken(root: int) -> int:
    """Returns the bytes of a process and its descendants; shared memory counts once (proportional set size)."""
    return sum(_proportional(process) for process in tree(root))


def tree(root: int) -> list[int]:
    """Lists a process and its descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found = [root]
    for process in found:
        found += children.get(process, [])
    return found


def _watch(name: str, peak: Peak, ended: threading.Event, limit: int) -> None:
    me = os.getpid()
    while not ended.wait(_EVERY):
        peak.most = max(peak.most, taken(me))
        if peak.most > limit:
            print(f"{name} took {peak.most / GIB:.1f} GiB, more than the {limit / GIB:.0f} GiB it keeps to: ended", file=sys.stderr)
            for process in reversed(tree(me)):
                if process != me:
                    with suppress(OSError):
                        os.kill(process, signal.SIGKILL)
            os._exit(2)


def _proportional(process: int) -> int:
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:  # the process has ended
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def _machine(root: Path) -> int:
    for line in (root / "proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return 1024 * int(line.split()[1])
    return 0


def _groups(root: Path) -> Iterator[Path]:
    """Yields the folders of this process's control groups and their parents (version 2, and the memory groups of version 1)."""
    mounted = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, kinds, path = line.split(":", 2)
        if kinds and "memory" not in kinds.split(","):
            continue
        base = mounted / "memory" if kinds else mounted
        here = base / path.lstrip("/")
        yield from [here, *(parent for parent in here.parents if parent.is_relative_to(base))]


def _number(file: Path) -> int | None:
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None  # "max" means no limit


def _droppable(folder: Path) -> int:
    """Returns the bytes of the file cache, which count as used but are released on demand."""
    try:
        lines = (folder / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    facts = dict(line.split() for line in lines if len(line.split()) == 2)
    return int(facts.get("inactive_file", facts.get("total_inactive_file", 0)))
