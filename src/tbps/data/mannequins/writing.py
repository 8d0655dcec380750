"""Writes mannequins as a data set: image files and the annotation files of a layout.

The whole is a function of seed, sizes and layout: every person, view, caption and capture has a random stream of its own, so
neither the number of processes nor the order of their work shows. It is written into a hidden folder beside the target, which
takes the target's name when everything is there: an interrupted run leaves no data set rather than half of one, and the next
run removes what it left.
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
VERSION = 1  # of what is drawn and said: other pictures or captions from the same seed raise it
CAMERAS = 15
CAPTIONS = 2
CHUNK = 16  # people handed to a process at a time
POOL_FROM = 100  # images; fewer are drawn sooner than processes start

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class SplitSize:
    """How many people a split has, and images of each."""

    identities: int
    images_per_identity: int


@dataclass(frozen=True, slots=True)
class WrittenDataset:
    """What lies in the folder. `images` counts them by split; `fresh` is False where the same data set was already there."""

    folder: Path
    layout: str
    images: Mapping[str, int]
    fresh: bool


@dataclass(frozen=True, slots=True)
class _Task:
    """One person's images to draw: where each stands and the file that it goes to."""

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
    """Writes the data set into `folder`, which must be missing, empty, or hold exactly this data set already (then a no-op).

    splits: of train, val and test those wanted. workers: processes, by default one a core; scripts that use more than one need
    the usual `if __name__ == "__main__"`. on_progress: called with (images done, images in all).

    Raises SettingsError for impossible sizes, an unknown layout or a split that it does not have; StorageError for a folder
    that holds something else, a full or read-only disk, or drawing processes that were killed.
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
    """What identifies the data set, checked for sense."""
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
    """Whether `folder` holds the data set of this stamp; False for nothing at all, StorageError for anything else."""
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
    """A hidden folder beside `folder` that takes its name when the block ends well and is removed otherwise."""
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
    """Removes what runs left that were killed; the folder of a run that still lives stays."""
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
    """Everybody to draw. Identities are numbered in another order than people were made, so that near-twins do not adjoin."""
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
    """Camera and time are drawn for each image, in a year of days between 7 and 22 o'clock."""
    rng = generator(seed, "mannequins", "capture", *key)
    moment = datetime(2025, 1, 1, 7) + timedelta(days=int(rng.integers(365)), seconds=int(rng.integers(15 * 3600)))
    return Shot(key[0], identity, position, int(rng.integers(1, CAMERAS + 1)), moment.isoformat())


def _draw_all(tasks: Sequence[_Task], workers: int | None, on_progress: OnProgress) -> list[DescribedShot]:
    """Draws and writes every image; the crops in the order of their positions."""
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
    """The chunks as they are finished. Processes are started anew rather than forked: the caller may have threads."""
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, mp_context=context)
    try:
        for done in as_completed([pool.submit(_draw_chunk, chunk) for chunk in chunks]):
            yield done.result()
    except BrokenProcessPool as error:
        raise StorageError("a drawing process was killed, perhaps for want of memory; run again with fewer workers") from error
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
    """The view of the image of that number of the person who is at `index` in `population`."""
    return sample_view(generator(seed, "mannequins", "view", split, index, number))


def _describe(task: _Task, view: Viewpoint, number: int) -> Described:
    """Captions draw from a stream of their own: what is said never depends on how the picture came out."""
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
