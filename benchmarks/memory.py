"""Memory of a benchmark: 10 GiB at most for all of its processes together, looked for before it starts and watched while it runs.

The machine is shared: a benchmark that takes what others need is killed by the system, or they are.
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
# What each benchmark takes at its full size, its processes together; those not named take no more than 4 GiB.
NEEDS: Mapping[str, int] = {"side by side": LIMIT, "search": LIMIT, "gpu": LIMIT, "quality": LIMIT, "scaling": 6 * GIB}
_USUAL = 4 * GIB
_EVERY = 0.5  # seconds between looks at the processes


class TooLittleMemory(Exception):
    """The machine has less memory free than a benchmark needs."""


@dataclass
class Peak:
    """The most that the processes took together so far, in bytes."""

    most: int = 0


def needed(name: str, toy: bool) -> int:
    """Bytes of a benchmark."""
    return TOY if toy else NEEDS.get(name, _USUAL)


def available(root: Path = Path("/")) -> int:
    """Bytes that can still be taken: of the machine's, and of what the control groups of this process allow.

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
    """Raises TooLittleMemory where a benchmark does not fit beside what runs already."""
    wanted, free = needed(name, toy), available(root)
    if free < wanted:
        raise TooLittleMemory(
            f"the benchmark {name!r} needs {wanted / GIB:.1f} GiB of memory, {free / GIB:.1f} GiB are available; "
            "end other programs, or see with --toy that it runs"
        )


@contextmanager
def within_limit(name: str, toy: bool, limit: int = LIMIT) -> Iterator[Peak]:
    """Requires the memory, then watches the processes of the block; beyond `limit` they are ended with a line that says so."""
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
    """Bytes of a process and all below it; what several of them share is counted once (proportional set size)."""
    return sum(_proportional(process) for process in tree(root))


def tree(root: int) -> list[int]:
    """A process and all below it."""
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
    except OSError:  # it has ended
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def _machine(root: Path) -> int:
    for line in (root / "proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return 1024 * int(line.split()[1])
    return 0


def _groups(root: Path) -> Iterator[Path]:
    """The folders of this process's control groups and of those around them, of version 2 and of version 1's memory."""
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
    return int(text) if text.isdigit() else None  # "max": no limit


def _droppable(folder: Path) -> int:
    """Bytes of files in memory, which count as taken and are given up when others need them."""
    try:
        lines = (folder / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    facts = dict(line.split() for line in lines if len(line.split()) == 2)
    return int(facts.get("inactive_file", facts.get("total_inactive_file", 0)))
