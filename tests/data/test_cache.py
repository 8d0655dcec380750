import multiprocessing
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tbps.data import cache as cache_module
from tbps.data.cache import ImageCache, cache_folder, cached_files, erase_cache, near
from tbps.data.records import PersonDataset, PersonImage
from tbps.errors import DataError, ImageError, StorageError
from tbps.preprocess.image import ImageSpec, open_image, to_array

SPEC = ImageSpec(height=12, width=8)


def dataset_of(folder: Path, count: int) -> PersonDataset:
    rng = np.random.default_rng(count)
    images = []
    for i in range(count):
        path = folder / f"{i}.png"
        size = (rng.integers(4, 40), rng.integers(4, 40), 3)
        Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)).save(path)
        images.append(PersonImage(path, i, "train", ("a man",)))
    return PersonDataset("made", folder, tuple(images))


def expected(dataset: PersonDataset) -> np.ndarray:
    return np.stack([to_array(open_image(image.path), SPEC) for image in dataset.images])


@pytest.fixture
def dataset(tmp_path: Path) -> PersonDataset:
    return dataset_of(tmp_path, 9)


def test_the_cache_holds_every_image_in_order(dataset: PersonDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "_CHUNK", 4)
    seen: list[tuple[int, int]] = []
    cache = ImageCache.open(dataset, SPEC, tmp_path / "cache", on_progress=lambda done, total: seen.append((done, total)))
    assert np.array_equal(cache.images, expected(dataset))
    assert isinstance(cache.images, np.memmap)
    assert not cache.images.flags.writeable
    assert seen == [(4, 9), (8, 9), (9, 9)]


def test_two_processes_write_the_same_file(dataset: PersonDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "_CHUNK", 2)
    alone = ImageCache.open(dataset, SPEC, tmp_path / "one", workers=1)
    together = ImageCache.open(dataset, SPEC, tmp_path / "two", workers=2)
    assert alone.path.read_bytes() == together.path.read_bytes()
    assert alone.path.name == together.path.name


def test_the_cache_is_built_once(dataset: PersonDataset, tmp_path: Path) -> None:
    first = ImageCache.open(dataset, SPEC, tmp_path / "cache")
    stamp = first.path.stat().st_mtime_ns

    def never(done: int, total: int) -> None:
        raise AssertionError("built again")

    again = ImageCache.open(dataset, SPEC, tmp_path / "cache", on_progress=never)
    assert again.path.stat().st_mtime_ns == stamp


def test_every_change_of_the_input_gives_another_file(dataset: PersonDataset, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    names = {ImageCache.open(dataset, SPEC, folder).path.name}
    names.add(ImageCache.open(dataset, ImageSpec(height=8, width=12), folder).path.name)
    names.add(ImageCache.open(replace(dataset, images=dataset.images[::-1]), SPEC, folder).path.name)
    names.add(ImageCache.open(replace(dataset, images=dataset.images[1:]), SPEC, folder).path.name)
    os.utime(dataset.images[3].path, ns=(1, 1))
    names.add(ImageCache.open(dataset, SPEC, folder).path.name)
    Image.new("RGB", (5, 5), "red").save(dataset.images[4].path)
    changed = ImageCache.open(dataset, SPEC, folder)
    names.add(changed.path.name)
    assert len(names) == 6
    assert np.array_equal(changed.images, expected(dataset))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_corrupt_image_is_named_and_no_file_remains(workers: int, dataset: PersonDataset, tmp_path: Path) -> None:
    bad = dataset.images[5].path
    bad.write_bytes(bad.read_bytes()[:60])
    with pytest.raises(ImageError, match=r"5\.png"):
        ImageCache.open(dataset, SPEC, tmp_path / "cache", workers=workers)
    assert [file.suffix for file in (tmp_path / "cache").iterdir()] == [".lock"]


def test_missing_images_and_empty_data_sets_are_refused(dataset: PersonDataset, tmp_path: Path) -> None:
    dataset.images[2].path.unlink()
    with pytest.raises(ImageError, match=r"2\.png: cannot be read"):
        ImageCache.open(dataset, SPEC, tmp_path)
    with pytest.raises(DataError, match="no image to cache"):
        ImageCache.open(replace(dataset, images=()), SPEC, tmp_path)


@pytest.mark.parametrize("damage", [lambda content: content[:-1], lambda content: b"", lambda content: b"x" * 40])
def test_a_damaged_file_is_rebuilt(damage: object, dataset: PersonDataset, tmp_path: Path) -> None:
    cache = ImageCache.open(dataset, SPEC, tmp_path / "cache")
    cache.path.write_bytes(damage(cache.path.read_bytes()))
    assert np.array_equal(ImageCache.open(dataset, SPEC, tmp_path / "cache").images, expected(dataset))


def test_a_folder_that_cannot_be_written_is_named(dataset: PersonDataset, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="file"):
        ImageCache.open(dataset, SPEC, tmp_path / "file")


def test_the_default_folder_and_the_one_of_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TBPS_CACHE", str(tmp_path / "chosen"))
    assert cache_folder() == tmp_path / "chosen"
    monkeypatch.delenv("TBPS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "tbps"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "tbps"


def test_the_same_names_in_another_folder_give_another_cache(tmp_path: Path) -> None:
    one, other = (dataset_of(make, 3) for make in (tmp_path / "one", tmp_path / "other") if not make.mkdir())
    Image.new("RGB", (9, 9), "red").save(tmp_path / "one" / "0.png")
    (tmp_path / "other" / "0.png").write_bytes((tmp_path / "one" / "0.png").read_bytes())
    for images in (one, other):
        for image in images.images:
            os.utime(image.path, ns=(1, 1))
    folder = tmp_path / "cache"
    assert ImageCache.open(one, SPEC, folder).path != ImageCache.open(other, SPEC, folder).path


def _open_slowly(dataset: PersonDataset, folder: Path, built: Path) -> None:
    """Opens the cache, and creates a marker file if this process built it."""
    ImageCache.open(dataset, SPEC, folder, workers=1, on_progress=lambda done, total: built.mkdir(exist_ok=True))


def test_one_process_builds_and_the_others_wait(dataset: PersonDataset, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    marks = [tmp_path / f"built-{number}" for number in range(4)]
    processes = [context.Process(target=_open_slowly, args=(dataset, tmp_path / "cache", mark)) for mark in marks]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert sum(mark.exists() for mark in marks) == 1
    assert np.array_equal(ImageCache.open(dataset, SPEC, tmp_path / "cache").images, expected(dataset))


def test_a_full_disk_is_named_and_no_partial_file_remains(
    dataset: PersonDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache_module, "_write_chunk", full)
    with pytest.raises(StorageError, match=r"cache is full.*free space"):
        ImageCache.open(dataset, SPEC, tmp_path / "cache")
    assert [file.suffix for file in (tmp_path / "cache").iterdir()] == [".lock"]


def test_erasing_deletes_all_files_of_the_cache_and_no_others(dataset: PersonDataset, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    cache = ImageCache.open(dataset, SPEC, folder)
    (folder / f".{cache.path.name}.abc.part").write_bytes(b"half")
    (folder / "notes.npy").write_bytes(b"mine")
    assert cached_files(folder) == [cache.path]
    size = cache.path.stat().st_size
    assert erase_cache(folder) == size + 4
    assert [file.name for file in folder.iterdir()] == ["notes.npy"]
    assert erase_cache(tmp_path / "nowhere") == 0


def test_images_are_moved_to_the_device_if_they_fit(
    dataset: PersonDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "_CHUNK", 4)
    images, here = ImageCache.open(dataset, SPEC, tmp_path / "cache").images, torch.device("cpu")
    assert near(images, here) is images and near(images, here, room=images.nbytes - 1) is images
    moved = near(images, here, room=images.nbytes)
    assert isinstance(moved, torch.Tensor) and np.array_equal(moved.numpy(), expected(dataset))
