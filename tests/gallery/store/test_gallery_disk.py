"""Full and read-only disks, with small file systems that the tests mount if the machine permits."""

import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tbps.errors import StorageError
from tbps.gallery.gallery import Gallery
from tests.support.colour_encoder import ColourEncoder, write_pictures


def _mount(*arguments: str) -> bool:
    try:
        return subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if not _mount("-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)):
        pytest.skip("mounting a small disk needs the right to mount")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_that_fills_up_keeps_what_was_committed(small_disk: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    write_pictures(photos, 1500, size=(40, 80))
    gallery = Gallery.open(small_disk / "gallery", ColourEncoder())
    acknowledged = [0]
    with pytest.raises(StorageError, match=r"the disk of gallery .* is full; every image committed so far is kept"):
        gallery.add(photos, on_progress=lambda done, total: acknowledged.append(done))
    kept = len(Gallery.open(small_disk / "gallery", ColourEncoder()))
    assert 0 < acknowledged[-1] <= kept < 1500
    assert len(gallery.search("someone", k=2000)) == kept
    assert _mount("-o", "remount,size=40m", str(small_disk))
    report = gallery.add(photos)
    assert (report.skipped_existing, report.added + kept, len(gallery)) == (kept, 1500, 1500)


def test_a_disk_without_space_for_the_manifest(small_disk: Path, tmp_path: Path) -> None:
    write_pictures(tmp_path / "photos", 2)
    with (small_disk / "ballast").open("wb") as ballast, pytest.raises(OSError):
        while True:
            ballast.write(bytes(65536))
            ballast.flush()
    with pytest.raises(StorageError, match="full"):
        Gallery.open(small_disk / "gallery", ColourEncoder()).add(tmp_path / "photos")


def test_a_read_only_disk_can_be_searched_but_not_added_to(small_disk: Path, tmp_path: Path) -> None:
    write_pictures(tmp_path / "photos", 3)
    Gallery.open(small_disk / "gallery", ColourEncoder()).add(tmp_path / "photos")
    write_pictures(tmp_path / "photos", 5)
    assert _mount("-o", "remount,ro", str(small_disk))
    gallery = Gallery.open(small_disk / "gallery", ColourEncoder())
    assert len(gallery.search("someone")) == 3
    with pytest.raises(StorageError, match="cannot be written"):
        gallery.add(tmp_path / "photos")
    with pytest.raises(StorageError, match="cannot be written"):
        Gallery.open(small_disk / "another", ColourEncoder())


def test_a_disk_without_space_for_an_erasure(small_disk: Path, tmp_path: Path) -> None:
    """An erasure does not begin without enough space; one that runs out of space is completed later."""
    folder = small_disk / "gallery"
    write_pictures(tmp_path / "photos", 300, size=(40, 80))
    gallery = Gallery.open(folder, ColourEncoder())
    gallery.add(tmp_path / "photos")
    ballast = small_disk / "ballast"
    with ballast.open("wb") as file:
        file.write(bytes(shutil.disk_usage(small_disk).free - 100_000))
    with pytest.raises(StorageError, match=r"nothing was forgotten: .* needs [\d,]+ bytes, but [\d,]+ are free"):
        gallery.forget("source = '0003.jpg'")
    assert len(gallery.search("someone", k=999)) == 300
    (folder / "erasure.json").write_text(json.dumps([hit.id for hit in gallery.search("x", 2)]))
    for _ in range(2):
        with pytest.raises(StorageError, match=r"could not be erased and are still on disk: .* is full"):
            Gallery.open(folder, ColourEncoder())
    ballast.unlink()
    assert len(Gallery.open(folder, ColourEncoder()).search("someone", k=999)) == len(gallery) == 298
    assert not (folder / "erasure.json").exists()


def test_a_limit_on_file_size_is_reported_as_a_full_disk(tmp_path: Path) -> None:
    """Works without permission to mount: the system limits the files of a child process to 400 kB."""
    write_pictures(tmp_path / "photos", 1200, size=(40, 80))
    program = (
        "import sys\n"
        "from tests.support.colour_encoder import ColourEncoder\n"
        "from tbps.errors import StorageError\n"
        "from tbps.gallery.gallery import Gallery\n"
        "gallery = Gallery.open(sys.argv[1], ColourEncoder())\n"
        "try:\n"
        "    gallery.add(sys.argv[2], batch_size=1000)\n"
        "except StorageError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "gallery"), str(tmp_path / "photos")],
        env={"PYTHONPATH": str(Path(__file__).parents[3]), "PATH": "/usr/bin:/bin"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000)),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "is full; every image committed so far is kept" in done.stdout
    assert Gallery.open(tmp_path / "gallery", ColourEncoder()).add(tmp_path / "photos").added == 1200


def test_a_file_in_the_place_of_the_gallery_is_refused(tmp_path: Path) -> None:
    (tmp_path / "gallery").write_text("x")
    with pytest.raises(StorageError, match="a file with that name exists; move it away"):
        Gallery.open(tmp_path / "gallery" / "deep", ColourEncoder())
