"""Every image of a data set decoded and resized once, in one memory-mapped file.

The file is a NumPy array (N, H, W, 3) uint8 in the order of the data set. Its name carries a fingerprint of the paths, sizes
and times of all images and of the input size, so a changed image or data set is another file; it appears whole or not at all.
Runs and processes share a folder of such files: one builds, under a lock that the system drops however it ends, and the others
wait. The files show the people of the data set: `erase_cache` removes them.
"""

import hashlib
import json
import math
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8

from tbps.data.records import PersonDataset
from tbps.errors import DataError, ImageError
from tbps.locks import acquire
from tbps.machine import available_cores
from tbps.preprocess.image import ImageSpec, Resize, open_image, to_array
from tbps.storage import atomic_path, make_folder, writing_to

Progress = Callable[[int, int], None]

_SHARE_OF_DEVICE = 0.25
_CHUNK = 128
# Starting a worker costs about two seconds of imports, in which one core decodes some three thousand crops.
_IMAGES_PER_WORKER = 4000


@dataclass(frozen=True, slots=True)
class ImageCache:
    """`images` is read-only and in the order of the data set."""

    path: Path
    images: UInt8[np.ndarray, "N H W 3"]

    @classmethod
    def open(
        cls,
        dataset: PersonDataset,
        spec: ImageSpec,
        folder: Path,
        on_progress: Progress | None = None,
        workers: int | None = None,
        resize: Resize = "bicubic",
    ) -> "ImageCache":
        """The cache of all images of `dataset` in `folder`, built first where it is missing.

        `workers` processes decode (default: one a core to use, fewer for small data sets; 1: none but this one). They
        are spawned, so a script that builds a cache needs `if __name__ == "__main__":`.

        Raises ImageError naming an image that is missing or broken, DataError for an empty data set, StorageError for a full or
        read-only disk.
        """
        if not dataset.images:
            raise DataError(f"{dataset.name} at {dataset.root} has no image to cache; check the split and the annotation file")
        target = cache_file(dataset, folder, spec.height, spec.width, *([] if resize == "bicubic" else [resize]))
        shape = (len(dataset.images), spec.height, spec.width, 3)
        images = _map(target, shape)
        if images is None:
            with alone(target):
                images = _map(target, shape)  # another process may have built it while this one waited
                if images is None:
                    decode = partial(_decoded, spec=spec, resize=resize)
                    with atomic_path(target) as temporary:
                        _build(temporary, [image.path for image in dataset.images], shape, decode, on_progress, workers)
                    images = _map(target, shape)
        if images is None:
            raise DataError(f"{target} changed while it was being opened; run again")
        return cls(target, images)


def cache_folder() -> Path:
    """Where decoded images are kept for all runs: $TBPS_CACHE, else `tbps` in the user's cache folder."""
    if chosen := os.environ.get("TBPS_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tbps"


def cached_files(folder: Path) -> list[Path]:
    """The caches in a folder; nothing else that lies there."""
    return sorted(folder.glob("*-*x*-" + "[0-9a-f]" * 16 + ".npy"))


def erase_cache(folder: Path) -> int:
    """Removes the caches of a folder, those left half-built by a kill, and their locks; the number of bytes that were freed.

    A run that has one open goes on with it. Raises StorageError where the folder cannot be written.
    """
    name = "*-*x*-" + "[0-9a-f]" * 16 + ".npy"
    freed = 0
    with writing_to(folder):
        for file in [*cached_files(folder), *folder.glob(f".{name}.*.part"), *folder.glob(f".{name}.lock")]:
            freed += file.stat().st_size
            file.unlink()
    return freed


def near(images: UInt8[np.ndarray, "N H W 3"], device: torch.device, room: int | None = None) -> np.ndarray | torch.Tensor:
    """All images on the device where they fit into `room` bytes, else as given.

    `room`: by default a quarter of what is free on a CUDA device, and 0 on a CPU.
    """
    if room is None:
        room = int(_SHARE_OF_DEVICE * torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else 0
    if images.nbytes > room:
        return images
    there = torch.empty(images.shape, dtype=torch.uint8, device=device)
    for start in range(0, len(images), _CHUNK):
        there[start : start + _CHUNK] = torch.from_numpy(np.array(images[start : start + _CHUNK]))
    return there


def cache_file(dataset: PersonDataset, folder: Path, height: int, width: int, *more: str) -> Path:
    """Where pictures of that size, decoded in a way that `more` tells, are kept in `folder`, which is made where it is missing.

    Raises ImageError naming an image file that cannot be read.
    """
    if not folder.exists():
        make_folder(folder).chmod(0o700)  # pictures of people
    kind = "".join(f"{word}-" for word in more)
    return make_folder(folder) / f"{dataset.name}-{kind}{height}x{width}-{_fingerprint(dataset, [height, width, *more])}.npy"


@contextmanager
def alone(target: Path) -> Iterator[None]:
    """Waits until no other process builds `target`."""
    with writing_to(target.parent), (target.parent / f".{target.name}.lock").open("ab") as file:
        acquire(file.fileno())
        yield


def decoding_processes(images: int, workers: int | None) -> int:
    """How many processes decode so many images; `workers`: what was asked for."""
    return workers or min(available_cores(), math.ceil(images / _IMAGES_PER_WORKER))


def _fingerprint(dataset: PersonDataset, how: Sequence[int | str]) -> str:
    digest = hashlib.blake2b(json.dumps(["v3", os.path.realpath(dataset.root), *how]).encode(), digest_size=8)
    for image in dataset.images:
        try:
            status = image.path.stat()
        except OSError as error:
            raise ImageError(f"{image.path}: cannot be read ({error.strerror})") from error
        name = os.path.relpath(image.path, dataset.root)
        digest.update(json.dumps([name, status.st_size, status.st_mtime_ns]).encode())
    return digest.hexdigest()


def _map(target: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """The array in `target`, or None where the file is missing or is not the expected array."""
    try:
        with writing_to(target.parent):
            images: np.ndarray = np.load(target, mmap_mode="r", allow_pickle=False)
    except (FileNotFoundError, ValueError, EOFError):
        return None
    return images if images.shape == shape and images.dtype == np.uint8 else None


Decode = Callable[[Path], np.ndarray]


def _decoded(path: Path, spec: ImageSpec, resize: Resize) -> np.ndarray:
    return to_array(open_image(path), spec, resize)


def _build(
    file: Path,
    paths: Sequence[Path],
    shape: tuple[int, ...],
    decode: Decode,
    on_progress: Progress | None,
    workers: int | None,
) -> None:
    with file.open("wb") as header:
        np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
        offset = header.tell()
    image_bytes = math.prod(shape[1:])
    tasks = [
        (file, offset + start * image_bytes, tuple(paths[start : start + _CHUNK]), decode) for start in range(0, len(paths), _CHUNK)
    ]
    processes = decoding_processes(len(paths), workers)
    done = 0
    for written in _in_processes(tasks, processes) if processes > 1 else (_write_chunk(*task) for task in tasks):
        done += written
        if on_progress:
            on_progress(done, len(paths))


def _in_processes(tasks: list[tuple[Path, int, tuple[Path, ...], Decode]], processes: int) -> Iterator[int]:
    """The results in order of completion; the first error cancels what has not begun."""
    executor = ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn"))
    try:
        waiting: set[Future[int]] = {executor.submit(_write_chunk, *task) for task in tasks}
        while waiting:
            finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in finished:
                yield future.result()
    finally:
        executor.shutdown(cancel_futures=True)


def _write_chunk(file: Path, offset: int, paths: tuple[Path, ...], decode: Decode) -> int:
    """Decodes one run of images into its place. Written, not mapped: on a full disk a write fails and a mapping kills."""
    pixels = np.stack([decode(path) for path in paths])
    with file.open("r+b") as out:
        out.seek(offset)
        out.write(pixels.data)
    return len(paths)
