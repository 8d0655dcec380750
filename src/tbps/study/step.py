"""A step: work on certain data from a certain start, in a folder named by the fingerprint of all three.

    STUDY/steps/FINGERPRINT/
        step.json      what is to be done, enough for another process to do it
        run/           the training run, resumed after an interruption
        result.json    what came out: written last and whole, so that its being there means done
        error.json     why the last attempt failed
        lock           held by the process that works here

Tables, rows and seeds' names are not part of it: a setting that several tables have is done once.
"""

import contextlib
import hashlib
import json
import platform
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch

from tbps.data.readers.catalog import read_dataset
from tbps.data.records import PersonDataset
from tbps.errors import CheckpointError, DataError, StorageError
from tbps.locks import acquire
from tbps.redact import redacted
from tbps.storage import make_folder, write_text, writing_to
from tbps.study.work.kinds import parse_work
from tbps.study.work.work import Facts, Place, Work
from tbps.training.observer import Observer

VERSION = 1  # of what a step does; raised when the same settings would give another result
RESULT, ERROR, STEP = "result.json", "error.json", "step.json"


@dataclass(frozen=True, slots=True)
class Data:
    """A data set: its reader and folder, and the fingerprint of what was read there; `allow_missing`: images whose files are
    missing were left out.
    """

    name: str
    root: str
    fingerprint: str
    allow_missing: bool = False


@dataclass(frozen=True, slots=True)
class Start:
    """The model of the study: `location` opens it, None where settings build one; `name` is how it was asked for."""

    name: str
    location: str | None
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Step:
    """`first`: the fingerprint of the step that this one builds on, None where it begins with `start`."""

    work: Work
    data: Data
    start: Start
    first: str | None = None

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits over work, data and start; neither names nor folders matter."""
        what = [VERSION, self.work.fingerprint(), self.data.fingerprint, self.start.fingerprint, self.first]
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]

    def folder(self, study: Path) -> Path:
        """Where it is done."""
        return study / "steps" / self.fingerprint


class State(StrEnum):
    """How a step stands after an attempt."""

    DONE = "done"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class End:
    """How an attempt ended; `error` is empty unless it failed."""

    state: State
    error: str = ""


def run_step(
    study: Path, step: Step, device: str, observer: Observer, stop: Callable[[], bool], dataset: PersonDataset | None = None
) -> End:
    """Does a step, or goes on with it; one that is done is left alone. Errors are kept in its folder and returned, not raised.

    `dataset`: what `step.data` reads, where it is at hand.
    """
    folder = step.folder(study)
    if (folder / RESULT).exists():
        return End(State.DONE)
    try:
        with _alone_in(folder):
            write_step(study, step)
            images = dataset if dataset is not None else _read(step.data)
            before, model = _before(study, step)
            place = Place(images, model, device, folder, observer, stop, step.start.location, before)
            facts = step.work.run(place)
            if facts is None:
                return End(State.STOPPED)
            write_text(folder / RESULT, json.dumps(_result(step, facts, device, images), indent=2) + "\n")
            (folder / ERROR).unlink(missing_ok=True)
            return End(State.DONE)
    except Exception as error:  # whatever it is, the other steps go on; it is kept and reported
        message = redacted(" ".join(str(error).split())) or type(error).__name__
        note = {"error": message, "kind": type(error).__name__, "traceback": redacted(traceback.format_exc())}
        with contextlib.suppress(StorageError):  # the disk may be what failed
            write_text(folder / ERROR, json.dumps(note, indent=2) + "\n")
        return End(State.FAILED, message)


def write_step(study: Path, step: Step) -> Path:
    """Writes `step.json` and returns its folder."""
    values = {
        "work": step.work.model_dump(mode="json"),
        "data": asdict(step.data),
        "start": asdict(step.start),
        "first": step.first,
    }
    write_text(step.folder(study) / STEP, json.dumps(values, indent=2) + "\n")
    return step.folder(study)


def read_step(folder: Path) -> Step:
    """What `write_step` wrote. Raises CheckpointError where it is missing or damaged."""
    try:
        values = json.loads((folder / STEP).read_text(encoding="utf-8"))
        return Step(parse_work(values["work"]), Data(**values["data"]), Start(**values["start"]), values["first"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder / STEP} is missing or damaged ({error}); run the study's command again") from error


def read_result(folder: Path) -> dict[str, Any] | None:
    """The result of a step that is done. Raises CheckpointError where the file is damaged."""
    return _read_json(folder / RESULT)


def read_error(folder: Path) -> str | None:
    """Why the last attempt failed, None where it did not."""
    note = _read_json(folder / ERROR)
    return None if note is None else str(note["error"])


def data_fingerprint(dataset: PersonDataset) -> str:
    """16 hexadecimal digits over every record and the sizes of the image files; the folder's place does not matter."""
    digest = hashlib.sha256()
    for image in dataset.images:
        name = str(image.path.relative_to(dataset.root.resolve())) if image.path.is_absolute() else str(image.path)
        record = [name, image.path.stat().st_size, image.identity, image.split, image.captions, image.captions_bt]
        digest.update(json.dumps(record).encode())
    return digest.hexdigest()[:16]


def _read_json(file: Path) -> dict[str, Any] | None:
    if not file.exists():
        return None
    try:
        values: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{file} is damaged ({error}); delete it and run the study's command again") from error
    return values


def _read(data: Data) -> PersonDataset:
    dataset = read_dataset(data.name, Path(data.root), allow_missing=data.allow_missing)
    found = data_fingerprint(dataset)
    if found != data.fingerprint:
        raise DataError(f"{data.root} has changed since the study was planned ({found} instead of {data.fingerprint})")
    return dataset


def _before(study: Path, step: Step) -> tuple[dict[str, float | None], str | Path | None]:
    """The values of the step that this one builds on, and the model to start from."""
    if step.first is None:
        return {}, step.start.location
    folder = study / "steps" / step.first
    result = read_result(folder)
    if result is None:
        raise CheckpointError(f"the step that this one starts from, {step.first}, is not done")
    return result["values"], folder / "run" / "best"


def _result(step: Step, facts: Facts, device: str, dataset: PersonDataset) -> dict[str, Any]:
    return {
        "step": step.fingerprint,
        "kind": step.work.kind,
        "seed": step.work.train.seed,
        "data": {"name": step.data.name, "fingerprint": step.data.fingerprint, "images": len(dataset.images)},
        "start": {"name": step.start.name, "fingerprint": step.start.fingerprint, "first": step.first},
        "split": {"name": facts.split, "queries": facts.queries, "gallery": facts.gallery},
        "values": dict(facts.values),
        "measured": {
            **facts.measured,
            "device": torch.cuda.get_device_name() if device.startswith("cuda") else f"cpu, {platform.machine()}",
            "torch": torch.__version__,
            "finished_at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        },
    }


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Holds the folder's lock, which the system drops however this process ends. Raises StorageError where another holds it."""
    file = make_folder(folder) / "lock"
    with writing_to(folder), file.open("a") as lock:
        if not acquire(lock.fileno(), patience=0):
            raise StorageError(f"another process is at work in {folder}; wait until it is done")
        yield
