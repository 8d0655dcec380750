"""Cache of all images of a data set, decoded and resized once, in one memory-mapped file.

The file is a NumPy array (N, H, W, 3) uint8 in the order of the data set. Its name contains a fingerprint of the paths, sizes and
modification times of all images and of the input size, so a changed image or data set has another file. It is written atomically.
Runs and processes share the folder: one builds a file under a lock, which the operating system releases however the process ends,
and the others wait. The files show the people of the data set; `erase_cache` deletes them.
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
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import UInt8

from tbps.data.records import PersonDataset
from tbps.errors import DataError, ImageError
from tbps.locks import acquire
from tbps.machine import available_cores
from tbps.preprocess.image import ImageSpec, Resize, open_image, to_array
from tbps.storage import atomic_path, make_folder, writing_to

OnProgress = Callable[[int, int], None]
T = TypeVar("T")

_SHARE_OF_DEVICE = 0.25
_CHUNK = 128
# A worker takes about two seconds to start, in which one core decodes some three thousand crops.
_IMAGES_PER_WORKER = 4000


@dataclass(frozen=True, slots=True)
class ImageCache:
    """Decoded images of a data set in its order; `images` is read-only."""

    path: Path
    images: UInt8[np.ndarray, "N H W 3"]

    @classmethod
    def open(
        cls,
        dataset: PersonDataset,
        spec: ImageSpec,
        folder: Path,
        on_progress: OnProgress | None = None,
        workers: int | None = None,
        resize: Resize = "bicubic",
    ) -> "ImageCache":
        """Opens the cache of all images of `dataset` in `folder`, and builds it first where it is missing.

        `workers`: processes that decode (default: one per core, fewer for small data sets; 1: decode in this process). They are
        spawned, so a script that builds a cache needs `if __name__ == "__main__":`.

        Raises ImageError that names a missing or broken image, DataError for an empty data set, StorageError for a full or
        read-only disk.
        """
        target = cache_file(dataset, folder, spec.height, spec.width, *([] if resize == "bicubic" else [resize]))
        shape = (len(dataset.images), spec.height, spec.width, 3)
        decode = partial(_decoded, spec=spec, resize=resize)

        def build(file: Path) -> None:
            _build(file, [image.path for image in dataset.images], shape, decode, on_progress, workers)

        return cls(target, opened_or_built(target, lambda: _map(target, shape), build))


def cache_folder() -> Path:
    """Returns the folder of the caches of all runs: $TBPS_CACHE, else `tbps` in the user's cache folder."""
    if chosen := os.environ.get("TBPS_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tbps"


def cached_files(folder: Path) -> list[Path]:
    """Lists the cache files in a folder and no other files."""
    return sorted(folder.glob("*-*x*-" + "[0-9a-f]" * 16 + ".npy"))


def erase_cache(folder: Path) -> int:
    """Deletes the caches in a folder, partial ones and their locks; returns the number of bytes freed.

    A run that has a cache open can continue. Raises StorageError where the folder cannot be written.
    """
    name = "*-*x*-" + "[0-9a-f]" * 16 + ".npy"
    freed = 0
    with writing_to(folder):
        for file in [*cached_files(folder), *folder.glob(f".{name}.*.part"), *folder.glob(f".{name}.lock")]:
            freed += file.stat().st_size
            file.unlink()
    return freed


def near(images: UInt8[np.ndarray, "N H W 3"], device: torch.device, room: int | None = None) -> np.ndarray | torch.Tensor:
    """Copies all images to the device if they fit into `room` bytes; otherwise returns them unchanged.

    `room`: by default a quarter of the free memory of a CUDA device, and 0 on a CPU.
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
    """Returns the path of the cache of a data set in `folder`; creates the folder if it is missing.

    `height`, `width`: size of the decoded images; `more`: words that identify another way of decoding. Raises DataError for a
    data set without images, ImageError naming an image file that cannot be read.
    """
    if not dataset.images:
        raise DataError(f"{dataset.name} at {dataset.root} has no image to cache; check the split and the annotation file")
    if not folder.exists():
        make_folder(folder).chmod(0o700)  # the images show people
    kind = "".join(f"{word}-" for word in more)
    return make_folder(folder) / f"{dataset.name}-{kind}{height}x{width}-{_fingerprint(dataset, [height, width, *more])}.npy"


def opened_or_built(target: Path, open_target: Callable[[], T | None], build: Callable[[Path], None]) -> T:
    """Opens `target`. If `open_target` returns None, one process builds the file first and the others wait for it.

    `build` writes the file to the path that it is given. Raises DataError if the file changed while it was being opened,
    StorageError if it cannot be written.
    """
    found = open_target()
    if found is None:
        with _locked(target):
            found = open_target()  # another process may have built it while this one waited
            if found is None:
                with atomic_path(target) as temporary:
                    build(temporary)
                found = open_target()
    if found is None:
        raise DataError(f"{target} changed while it was being opened; run again")
    return found


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Holds the lock of `target`, which the operating system releases when the process ends."""
    with writing_to(target.parent), (target.parent / f".{target.name}.lock").open("ab") as file:
        acquire(file.fileno())
        yield


def decoding_processes(images: int, workers: int | None) -> int:
    """Returns the number of decoding processes; `workers`: the requested number, if any."""
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
    """Maps the array in `target`; None where the file is missing or holds another array."""
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
    on_progress: OnProgress | None,
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
    """Yields results in order of completion; the first error cancels the tasks that have not begun."""
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
    """Decodes some images into their place in the file. On a full disk, write() raises an error where a memory map would crash."""
    pixels = np.stack([decode(path) for path in paths])
    with file.open("r+b") as out:
        out.seek(offset)
        out.write(pixels.data)
    return len(paths)
