"""Processes that write to one gallery at the same time, and one that is killed with kill -9."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import lancedb
import numpy as np
import pytest

from tbps.gallery.gallery import Gallery
from tbps.gallery.lifecycle.compact import compact
from tbps.gallery.lifecycle.snapshots import snapshots
from tbps.gallery.search.versions import Versions
from tbps.gallery.store.manifest import recorded
from tbps.gallery.store.staleness import read_again
from tbps.gallery.store.table import Table
from tests.support.colour_encoder import ColourEncoder, write_pictures

COUNT = 600
ADD = """
import sys
from tests.support.colour_encoder import ColourEncoder
from tbps.gallery.gallery import Gallery
from tbps.gallery.ingest import commits

commits.COMMIT_ROWS = 32
folder, photos, first, last = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
paths = [f"{photos}/{n:04d}.jpg" for n in range(first, last)]
gallery = Gallery.open(folder, ColourEncoder(delay=0.005))
report = gallery.add(paths, [{"camera": sys.argv[3]}] * len(paths), batch_size=16)
print(report.added, report.skipped_existing, len(report.failed))
"""
COMPACT = """
import select, sys, time
from pathlib import Path
from tbps.gallery.lifecycle.compact import compact

folder, times = Path(sys.argv[1]), 0
while not any(folder.glob("images.lance/_versions/*.manifest")):
    time.sleep(0.005)
while not select.select([sys.stdin], [], [], 0.02)[0]:
    compact(folder)
    times += 1
print(times)
"""
CYCLE = """
import sys
from pathlib import Path
from tests.support.colour_encoder import ColourEncoder
from tbps.gallery.gallery import Gallery
from tbps.gallery.lifecycle.compact import compact
from tbps.gallery.lifecycle.reembed import reembed
from tbps.gallery.lifecycle.snapshots import remove_snapshot, take_snapshot

folder, photos, seed = Path(sys.argv[1]), sys.argv[2], 0
for n in range(1000):
    gallery = Gallery.open(folder, ColourEncoder(seed))
    gallery.add([f"{photos}/{i:04d}.jpg" for i in range(8 * n, 8 * n + 8)])
    print("added", n, flush=True)
    compact(folder)
    take_snapshot(folder, f"s{n % 2}")
    gallery.forget(f"source = '{8 * n + 3:04d}.jpg'")
    print("forgot", n, flush=True)
    seed = 1 - seed
    reembed(folder, ColourEncoder(seed))
    print("reembedded", seed, flush=True)
    if n:
        remove_snapshot(folder, f"s{1 - n % 2}")
"""


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Runs a program in a separate process, which is ended after the test."""
    started: list[subprocess.Popen[str]] = []

    def run(program: str, *arguments: object) -> subprocess.Popen[str]:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[3]), *sys.path])}
        command = [sys.executable, "-c", program, *map(str, arguments)]
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        with process:
            pass  # `with` waits for the process and closes its pipes


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("writers") / "photos"
    write_pictures(folder, COUNT)
    return folder


def test_nothing_is_lost_while_two_processes_add_and_one_compacts(start: Start, photos: Path, tmp_path: Path) -> None:
    """Two processes add 400 pictures each, 200 of them in common; a reader sees a growing gallery without duplicates."""
    folder = tmp_path / "gallery"
    adding = [start(ADD, folder, photos, first, first + 400) for first in (0, 200)]
    compacting = start(COMPACT, folder)
    gallery = Gallery.open(folder, ColourEncoder())
    sizes = []
    while any(process.poll() is None for process in adding):
        if len(gallery):
            hits = gallery.search_embedding(np.ones(24), k=COUNT)
            assert len({hit.id for hit in hits}) == len(hits)
            sizes.append(len(hits))
        time.sleep(0.005)
    compacted = int(compacting.communicate("\n")[0])
    reports = [[int(part) for part in process.communicate()[0].split()] for process in adding]
    assert [process.returncode for process in (*adding, compacting)] == [0, 0, 0]
    assert sizes == sorted(sizes) and len(set(sizes)) > 5
    assert compacted > 3
    assert reports[0][0] + reports[1][0] == COUNT
    assert all(added + skipped == 400 and failed == 0 for added, skipped, failed in reports)
    rows = lancedb.connect(folder).open_table("images").search().select(["source", "camera"]).to_arrow().to_pylist()
    assert sorted(row["source"] for row in rows) == [f"{n:04d}.jpg" for n in range(COUNT)]
    assert [sum(row["camera"] == camera for row in rows) for camera in ("0", "200")] == [report[0] for report in reports]


def test_a_reader_whose_version_is_removed_repeatedly_reads_the_newest(photos: Path, tmp_path: Path) -> None:
    """A writer adds and compacts whenever a version is opened, five times; the sixth version is read."""
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    gallery.add([photos / "0000.jpg"])
    folder = tmp_path / "gallery"
    table = Table.open(folder, recorded(folder).dim)
    assert table is not None
    looks: list[int] = []

    versions = Versions(table)

    @read_again
    def sources() -> set[str]:
        version = versions.newest()
        looks.append(version.rows.count)
        if len(looks) <= 5:
            gallery.add([photos / f"{len(looks):04d}.jpg"])
            compact(folder)
        return {hit.source for hit in version.hits(np.arange(version.rows.count), np.zeros(version.rows.count))}

    assert sources() == {f"{n:04d}.jpg" for n in range(6)}
    assert looks == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("wait", [0.05, 0.6])
def test_a_killed_writer_loses_nothing_that_it_acknowledged(wait: float, start: Start, photos: Path, tmp_path: Path) -> None:
    """The writer adds, compacts, takes snapshots, forgets and re-embeds in turn until it is killed."""
    folder = tmp_path / "gallery"
    process = start(CYCLE, folder, photos)
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(3)]
    time.sleep(wait)
    process.send_signal(signal.SIGKILL)
    lines += process.communicate()[0].splitlines()
    assert process.returncode == -signal.SIGKILL
    told = [(word, int(number)) for word, number in (line.split() for line in lines)]
    added, forgot = ([number for word, number in told if word == which] for which in ("added", "forgot"))

    seed = int(recorded(folder).encoder_fingerprint)
    gallery = Gallery.open(folder, ColourEncoder(seed))
    found = {hit.source: hit for hit in gallery.search_embedding(np.ones(24), k=COUNT)}
    acknowledged = {f"{8 * n + i:04d}.jpg" for n in added for i in range(8)}
    erased = {f"{8 * n + 3:04d}.jpg" for n in forgot}
    assert not erased & found.keys()
    unsure = {f"{8 * (added[-1] + 1) + i:04d}.jpg" for i in range(8)} | {f"{8 * added[-1] + 3:04d}.jpg"}
    assert acknowledged - erased - unsure <= found.keys() <= (acknowledged - erased) | unsure
    for hit in list(found.values())[:20]:
        assert gallery.search_image(photos / hit.source, k=1)[0].source == hit.source
    gallery.forget("source = 'none'")  # every write removes leftovers of killed writers
    names = {path.name for path in folder.iterdir()}
    assert names <= {".lock", "gallery.json", "reembed.json", "snapshots", *(name for name in names if name.startswith("images"))}
    assert sum(name.startswith("images") for name in names) == 1 + ("reembed.json" in names)
    assert len(snapshots(folder)) in (1, 2) and not list((folder / "snapshots").glob(".*"))
