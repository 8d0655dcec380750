import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tbps.data import cache as cache_module
from tbps.data.cache import ImageCache, resident
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


def test_holds_every_image_in_order(dataset: PersonDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_is_built_once(dataset: PersonDataset, tmp_path: Path) -> None:
    first = ImageCache.open(dataset, SPEC, tmp_path / "cache")
    stamp = first.path.stat().st_mtime_ns

    def never(done: int, total: int) -> None:
        raise AssertionError("built again")

    again = ImageCache.open(dataset, SPEC, tmp_path / "cache", on_progress=never)
    assert again.path.stat().st_mtime_ns == stamp


def test_every_change_of_input_is_another_file(dataset: PersonDataset, tmp_path: Path) -> None:
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
def test_a_corrupt_image_is_named_and_nothing_stays(workers: int, dataset: PersonDataset, tmp_path: Path) -> None:
    bad = dataset.images[5].path
    bad.write_bytes(bad.read_bytes()[:60])
    with pytest.raises(ImageError, match=r"5\.png"):
        ImageCache.open(dataset, SPEC, tmp_path / "cache", workers=workers)
    assert list((tmp_path / "cache").iterdir()) == []


def test_missing_images_and_empty_data_sets_are_refused(dataset: PersonDataset, tmp_path: Path) -> None:
    dataset.images[2].path.unlink()
    with pytest.raises(ImageError, match=r"2\.png: cannot be read"):
        ImageCache.open(dataset, SPEC, tmp_path)
    with pytest.raises(DataError, match="no image to cache"):
        ImageCache.open(replace(dataset, images=()), SPEC, tmp_path)


@pytest.mark.parametrize("damage", [lambda content: content[:-1], lambda content: b"", lambda content: b"x" * 40])
def test_a_damaged_file_is_built_anew(damage: object, dataset: PersonDataset, tmp_path: Path) -> None:
    cache = ImageCache.open(dataset, SPEC, tmp_path / "cache")
    cache.path.write_bytes(damage(cache.path.read_bytes()))
    assert np.array_equal(ImageCache.open(dataset, SPEC, tmp_path / "cache").images, expected(dataset))


def test_a_folder_that_cannot_be_written_is_named(dataset: PersonDataset, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="file"):
        ImageCache.open(dataset, SPEC, tmp_path / "file")


def test_images_stay_where_they_are_without_a_gpu() -> None:
    images = np.zeros((3, 4, 4, 3), np.uint8)
    assert resident(images, torch.device("cpu")) is images


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_images_move_to_a_gpu_where_they_fit() -> None:
    images = np.random.default_rng(0).integers(0, 256, (300, 8, 4, 3), dtype=np.uint8)
    held = resident(images, torch.device("cuda"))
    assert isinstance(held, torch.Tensor) and held.device.type == "cuda"
    assert np.array_equal(held.cpu().numpy(), images)
    assert resident(images, torch.device("cuda"), share=0) is images
