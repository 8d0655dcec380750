"""A process that adds pictures is killed with kill -9, or the gallery is searched meanwhile: no acknowledged row is lost, searches
see whole commits, and a second run completes the gallery."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tbps.gallery.gallery import Gallery
from tests.support.colour_encoder import ColourEncoder, write_pictures

PROGRAM = """
import sys
from pathlib import Path
from tests.support.colour_encoder import ColourEncoder
from tbps.gallery.gallery import Gallery

def acknowledge(done, total):
    print(done, flush=True)

gallery = Gallery.open(sys.argv[1], ColourEncoder(delay=0.02))
print("open", flush=True)
gallery.add(sys.argv[2], on_progress=acknowledge, batch_size=32)
"""
COUNT = 1500


def _start(gallery: Path, photos: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-c", PROGRAM, str(gallery), str(photos)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def _contents(gallery: Gallery) -> dict[str, tuple[str, float]]:
    hits = gallery.search_embedding(np.ones(24), k=COUNT + 1)
    return {hit.id: (hit.source, round(hit.score, 5)) for hit in hits}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killed") / "photos"
    write_pictures(folder, COUNT)
    return folder


@pytest.fixture(scope="module")
def uninterrupted(photos: Path) -> dict[str, tuple[str, float]]:
    gallery = Gallery.open(photos.parent / "uninterrupted", ColourEncoder())
    gallery.add(photos, batch_size=32)
    return _contents(gallery)


@pytest.mark.parametrize(("acknowledged", "wait"), [(None, 0.0), (0, 0.02), (1, 0.0), (512, 0.13), (1400, 0.05)])
def test_kill_9_loses_no_acknowledged_row(
    acknowledged: int | None, wait: float, photos: Path, uninterrupted: dict[str, tuple[str, float]], tmp_path: Path
) -> None:
    process = _start(tmp_path / "gallery", photos)
    assert process.stdout is not None
    seen = 0
    for line in process.stdout:
        if line.strip() != "open":
            seen = int(line)
        if acknowledged is None or (line.strip() != "open" and seen >= acknowledged):
            break
    time.sleep(wait)
    process.send_signal(signal.SIGKILL)
    rest = [int(line) for line in process.stdout.read().split()]
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL
    seen = max([seen, *rest])

    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    assert seen <= len(gallery) < COUNT + 1
    report = gallery.add(photos, batch_size=32)
    assert report.skipped_existing >= seen
    assert report.added + report.skipped_existing == COUNT == len(gallery)
    assert _contents(gallery) == uninterrupted
    leftovers = [path.name for path in (tmp_path / "gallery").iterdir()]
    assert sorted(leftovers) == [".lock", "gallery.json", "images.lance"]


def test_searches_during_indexing_see_whole_commits(
    photos: Path, uninterrupted: dict[str, tuple[str, float]], tmp_path: Path
) -> None:
    process = _start(tmp_path / "gallery", photos)
    assert process.stdout is not None
    while process.stdout.readline().strip() in ("open", "0"):  # until the first commit
        pass
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder(), create=False)
    sizes = []
    while process.poll() is None:
        seen = _contents(gallery)
        assert seen.items() <= uninterrupted.items()
        sizes.append(len(seen))
    process.stdout.close()
    assert process.returncode == 0
    assert sizes == sorted(sizes) and sizes[0] >= 32
    assert _contents(gallery) == uninterrupted
