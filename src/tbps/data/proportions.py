"""Cache of all images of a data set in their own proportions, from which the views of self-supervision are cropped.

It is one memory-mapped file beside those of `tbps.data.cache`: the pixels of all images one after another, then their heights and
widths (N, 2) int32. An image of more than `max_pixels` is shrunk to that many, in its proportions, which limits the file size.
"""

import multiprocessing
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from tbps.data.cache import OnProgress, cache_file, decoding_processes, opened_or_built
from tbps.data.records import PersonDataset
from tbps.errors import DataError
from tbps.preprocess.image import ImageSpec, open_image
from tbps.storage import writing_to

_CHUNK = 128
# Pixels kept per image, in inputs: the smallest view, a fifth of an image, then has almost as many pixels as the input.
_INPUTS_PER_IMAGE = 4


@dataclass(frozen=True, slots=True)
class Pictures:
    """Images of a data set in their own proportions, in its order."""

    path: Path
    _bytes: UInt8[np.ndarray, " B"]
    _sizes: np.ndarray
    _starts: np.ndarray = field(repr=False)

    def __len__(self) -> int:
        return len(self._sizes)

    def __getitem__(self, row: int) -> UInt8[np.ndarray, "h w 3"]:
        """Returns the pixels of one image, read-only."""
        height, width = self._sizes[row]
        start = self._starts[row]
        picture: np.ndarray = self._bytes[start : start + 3 * height * width].reshape(height, width, 3)
        return picture

    @classmethod
    def open(
        cls,
        dataset: PersonDataset,
        spec: ImageSpec,
        folder: Path,
        *,
        on_progress: OnProgress | None = None,
        workers: int | None = None,
    ) -> "Pictures":
        """Opens the cache of all images of `dataset` in `folder`, and builds it first where it is missing.

        `spec`: the input that views are resized to; at most four times its pixels are kept per image. `workers` and errors as in
        `ImageCache.open`.
        """
        target = cache_file(dataset, folder, spec.height, spec.width, "proportions")
        paths, max_pixels = [image.path for image in dataset.images], _INPUTS_PER_IMAGE * spec.height * spec.width

        def build(file: Path) -> None:
            _build(file, paths, max_pixels, on_progress, workers)

        return opened_or_built(target, lambda: _open(target, len(paths)), build)


def in_proportion(picture: Image.Image, max_pixels: int) -> UInt8[np.ndarray, "h w 3"]:
    """Returns the pixels of an image, shrunk to at most `max_pixels`."""
    excess = picture.width * picture.height / max_pixels
    if excess > 1:
        size = (max(1, int(picture.width / excess**0.5)), max(1, int(picture.height / excess**0.5)))
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    return np.asarray(picture, dtype=np.uint8)


def _open(target: Path, count: int) -> Pictures | None:
    """Opens the file; None where it is missing or does not hold `count` images."""
    try:
        with writing_to(target.parent):
            stored: np.ndarray = np.load(target, mmap_mode="r", allow_pickle=False)
    except (FileNotFoundError, ValueError, EOFError):
        return None
    if stored.dtype != np.uint8 or stored.ndim != 1 or len(stored) < 8 * count:
        return None
    sizes = np.frombuffer(stored[len(stored) - 8 * count :].tobytes(), dtype=np.int32).reshape(count, 2).astype(np.int64)
    ends = (3 * sizes.prod(axis=1)).cumsum()
    return Pictures(target, stored, sizes, np.append(0, ends[:-1])) if ends[-1] + 8 * count == len(stored) else None


def _build(file: Path, paths: Sequence[Path], max_pixels: int, on_progress: OnProgress | None, workers: int | None) -> None:
    sizes: list[tuple[int, int]] = []
    with file.open("wb") as out:
        _write_header(out, 0)
        begins = out.tell()
        for pictures in _decoded(paths, max_pixels, decoding_processes(len(paths), workers)):
            for picture in pictures:
                sizes.append((picture.shape[0], picture.shape[1]))
                out.write(picture.data)
            if on_progress:
                on_progress(len(sizes), len(paths))
        out.write(np.array(sizes, dtype=np.int32).data)
        length = out.tell() - begins
        out.seek(0)
        _write_header(out, length)
        if out.tell() != begins:  # NumPy pads the header for a longer number
            raise DataError(f"{file}: the header of an array of {length} bytes does not fit")


def _write_header(out: BinaryIO, length: int) -> None:
    np.lib.format.write_array_header_1_0(out, {"descr": "|u1", "fortran_order": False, "shape": (length,)})


def _decoded(paths: Sequence[Path], max_pixels: int, processes: int) -> Iterator[list[np.ndarray]]:
    """Yields the images in order, in chunks; several processes decode a few chunks ahead."""
    runs = [tuple(paths[start : start + _CHUNK]) for start in range(0, len(paths), _CHUNK)]
    if processes <= 1:
        yield from (_decode_run(run, max_pixels) for run in runs)
        return
    executor = ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn"))
    waiting: deque[Future[list[np.ndarray]]] = deque()
    try:
        for run in runs:
            waiting.append(executor.submit(_decode_run, run, max_pixels))
            if len(waiting) > 2 * processes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        executor.shutdown(cancel_futures=True)


def _decode_run(paths: tuple[Path, ...], max_pixels: int) -> list[np.ndarray]:
    return [in_proportion(open_image(path), max_pixels) for path in paths]
