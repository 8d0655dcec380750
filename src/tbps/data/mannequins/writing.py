"""Writing mannequins as a data set: image files and the annotation files of a layout.

The result depends on seed, sizes and layout only: every person, viewpoint, caption and capture time has its own random stream, so
the number of processes and their order do not matter. The data set is written to a hidden folder beside the target and renamed when
it is complete. An interrupted run leaves no partial data set; the next run deletes the hidden folder of a run that was killed.
"""

import json
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path

from tbps.data.mannequins.describing import describe_attributes, paraphrase, shown_attributes
from tbps.data.mannequins.drawing import draw_person, encode_picture
from tbps.data.mannequins.layouts import Described, DescribedShot, Shot, find_layout
from tbps.data.mannequins.people import Mannequin, Viewpoint
from tbps.data.mannequins.population import population, sample_view
from tbps.errors import SettingsError, StorageError
from tbps.machine import available_cores
from tbps.seeding import generator
from tbps.storage import make_folder, write_text, writing_to

STAMP = "mannequins.json"
VERSION = 1  # version of images and captions; increase it when a change of code makes the same seed produce others
CAMERAS = 15
CAPTIONS = 2
CHUNK = 16  # people per task of a process
POOL_FROM = 100  # smallest number of images drawn in several processes; fewer are drawn faster than processes start

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class SplitSize:
    """Size of a split: number of identities, and images of each."""

    identities: int
    images_per_identity: int


@dataclass(frozen=True, slots=True)
class WrittenDataset:
    """A written data set. `images`: number of images by split; `fresh`: False if the same data set was already in the folder."""

    folder: Path
    layout: str
    images: Mapping[str, int]
    fresh: bool


@dataclass(frozen=True, slots=True)
class _Task:
    """Images of one person to draw, with their records and files."""

    seed: int
    split: str
    index: int
    person: Mannequin
    shots: tuple[Shot, ...]
    files: tuple[Path, ...]


def write_mannequins(
    folder: Path,
    splits: Mapping[str, SplitSize],
    seed: int,
    layout: str = "folder",
    workers: int | None = None,
    on_progress: OnProgress | None = None,
) -> WrittenDataset:
    """Writes the data set into `folder`, which must be missing or empty; does nothing if it already holds this very data set.

    `splits`: sizes of the wanted splits among train, val and test. `workers`: processes, by default one per core; a script that
    uses more than one needs `if __name__ == "__main__":`. `on_progress`: called with (images done, images in total).

    Raises SettingsError for invalid sizes, an unknown layout or a split that the layout lacks; StorageError for a folder that holds
    something else, a full or read-only disk, or drawing processes that were killed.
    """
    folder = Path(os.path.abspath(folder))
    stamp = _stamp(splits, seed, layout)
    images = {name: size.identities * size.images_per_identity for name, size in splits.items()}
    if _is_written(folder, stamp):
        return WrittenDataset(folder, layout, images, fresh=False)
    with _unfinished(folder) as target:
        tasks = _plan(target, splits, seed, layout)
        crops = _draw_all(tasks, workers, on_progress or (lambda done, total: None))
        _annotate(target, crops, layout)
        write_text(target / STAMP, json.dumps(stamp, indent=2) + "\n")
    return WrittenDataset(folder, layout, images, fresh=True)


def _stamp(splits: Mapping[str, SplitSize], seed: int, name: str) -> dict[str, object]:
    """Validates the settings and returns the stamp that identifies the data set."""
    known = find_layout(name).splits
    for split, size in splits.items():
        if split not in known:
            raise SettingsError(f"layout {name!r} has no split {split!r}, only {', '.join(known)}; leave it out")
        if size.identities < 1 or size.images_per_identity < 1:
            raise SettingsError(
                f"{split}: {size.identities} identities with {size.images_per_identity} images each; both must be at least 1 "
                "(leave a split out that is not wanted)"
            )
    if not splits:
        raise SettingsError("no split to write; ask for at least one of train, val and test")
    if seed < 0:
        raise SettingsError(f"seed {seed} is negative; give a whole number from 0")
    sizes = {split: asdict(splits[split]) for split in known if split in splits}
    return {"version": VERSION, "layout": name, "seed": seed, "splits": sizes}


def _is_written(folder: Path, stamp: Mapping[str, object]) -> bool:
    """Returns whether `folder` holds the data set of this stamp; False if it is missing or empty.

    Raises StorageError for other content.
    """
    if not folder.exists():
        return False
    if not folder.is_dir():
        raise StorageError(f"{folder} is a file; choose another folder")
    with writing_to(folder):
        if not any(folder.iterdir()):
            return False
    found = _read_stamp(folder / STAMP)
    if found == stamp:
        return True
    what = "holds files of something else" if found is None else f"holds other mannequins ({json.dumps(found)})"
    raise StorageError(f"{folder} {what}; nothing was written: choose another folder or empty this one")


def _read_stamp(file: Path) -> object:
    try:
        return json.loads(file.read_bytes())
    except (OSError, ValueError):
        return None


@contextmanager
def _unfinished(folder: Path) -> Iterator[Path]:
    """Yields a hidden folder beside `folder`; it is renamed to `folder` at the end, or deleted after an error."""
    make_folder(folder.parent)
    with writing_to(folder.parent):
        _remove_leftovers(folder)
        part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.{os.getpid()}.", suffix=".part", dir=folder.parent))
        try:
            part.chmod(0o755)
            yield part
            part.rename(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _remove_leftovers(folder: Path) -> None:
    """Deletes folders left by runs that were killed; the folder of a run in progress stays."""
    for left in folder.parent.glob(f".{folder.name}.*.part"):
        owner = left.name.removeprefix(f".{folder.name}.").split(".")[0]
        if owner.isdigit() and not _alive(int(owner)):
            shutil.rmtree(left, ignore_errors=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _plan(target: Path, splits: Mapping[str, SplitSize], seed: int, name: str) -> list[_Task]:
    """Plans the images of all people. Identity numbers are shuffled, so that those of near-twins are not adjacent."""
    ours = find_layout(name)
    names = [split for split in ours.splits if split in splits]
    total = sum(splits[split].identities * splits[split].images_per_identity for split in names)
    positions = iter(generator(seed, "mannequins", "positions").permutation(total).tolist())
    tasks, before = [], 0
    for split in names:
        size = splits[split]
        numbers = generator(seed, "mannequins", "numbers", split).permutation(size.identities).tolist()
        for index, person in enumerate(population(seed, split, size.identities)):
            identity = before + numbers[index]
            shots = tuple(
                _shot(seed, (split, index, number), identity, next(positions)) for number in range(size.images_per_identity)
            )
            tasks.append(_Task(seed, split, index, person, shots, tuple(target / ours.image(shot) for shot in shots)))
        before += size.identities
    for parent in {file.parent for task in tasks for file in task.files}:
        make_folder(parent)
    return tasks


def _shot(seed: int, key: tuple[str, int, int], identity: int, position: int) -> Shot:
    """Draws camera and capture time of an image, within one year and between 7 and 22 o'clock."""
    rng = generator(seed, "mannequins", "capture", *key)
    moment = datetime(2025, 1, 1, 7) + timedelta(days=int(rng.integers(365)), seconds=int(rng.integers(15 * 3600)))
    return Shot(key[0], identity, position, int(rng.integers(1, CAMERAS + 1)), moment.isoformat())


def _draw_all(tasks: Sequence[_Task], workers: int | None, on_progress: OnProgress) -> list[DescribedShot]:
    """Draws and writes every image; returns the descriptions in the order of their positions."""
    total = sum(len(task.shots) for task in tasks)
    chunks = [tasks[start : start + CHUNK] for start in range(0, len(tasks), CHUNK)]
    processes = min(workers if workers is not None else available_cores(), len(chunks))
    if processes < 1:
        raise SettingsError(f"{workers} workers cannot draw; give at least 1")
    crops: list[DescribedShot] = []
    for drawn in map(_draw_chunk, chunks) if processes == 1 or total < POOL_FROM else _in_processes(chunks, processes):
        crops.extend(drawn)
        on_progress(len(crops), total)
    return sorted(crops, key=lambda crop: crop[0].position)


def _in_processes(chunks: Sequence[Sequence[_Task]], processes: int) -> Iterator[list[DescribedShot]]:
    """Yields finished chunks. Processes are spawned, not forked, because the caller may have threads."""
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, mp_context=context)
    try:
        for done in as_completed([pool.submit(_draw_chunk, chunk) for chunk in chunks]):
            yield done.result()
    except BrokenProcessPool as error:
        raise StorageError("a drawing process was killed, probably for lack of memory; run again with fewer workers") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _draw_chunk(tasks: Sequence[_Task]) -> list[DescribedShot]:
    crops = []
    for task in tasks:
        for number, (shot, file) in enumerate(zip(task.shots, task.files, strict=True)):
            view = view_of(task.seed, task.split, task.index, number)
            with writing_to(file.parent):
                file.write_bytes(encode_picture(draw_person(task.person, view)))
            crops.append((shot, _describe(task, view, number)))
    return crops


def view_of(seed: int, split: str, index: int, number: int) -> Viewpoint:
    """Returns the viewpoint of image `number` of the person at `index` in `population`."""
    return sample_view(generator(seed, "mannequins", "view", split, index, number))


def _describe(task: _Task, view: Viewpoint, number: int) -> Described:
    """Describes an image. Captions have their own random stream, independent of the drawing."""
    rng = generator(task.seed, "mannequins", "captions", task.split, task.index, number)
    shown = shown_attributes(task.person, view)
    captions = [describe_attributes(shown, rng) for _ in range(CAPTIONS)]
    return Described(
        captions=tuple(caption.text for caption in captions),
        captions_bt=tuple(paraphrase(caption, rng) for caption in captions),
        mentions=tuple({mention.slot: mention.values for mention in caption.mentions} for caption in captions),
        attributes=shown,
        view={"direction": view.direction, "phase": round(view.phase, 3), "hidden": view.hidden},
    )


def _annotate(target: Path, crops: Sequence[DescribedShot], name: str) -> None:
    ours = find_layout(name)
    for file, text in ours.annotate(crops, ours).items():
        write_text(target / file, text)
