"""A step of a study: work on a data set from a start model, in a folder named by the fingerprint of all three.

    STUDY/steps/FINGERPRINT/
        step.json      work, data and start: everything that another process needs to run the step
        run/           the training run, resumed after an interruption
        result.json    the result; it is written last, so that it exists only if the step is done
        error.json     why the last attempt failed
        lock           held by the process that runs the step

The names of tables and rows are not part of the fingerprint: rows of several tables with the same settings share one step.
"""

import contextlib
import hashlib
import json
import platform
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

import torch

from tbps.data.readers.catalog import read_dataset
from tbps.data.records import PersonDataset
from tbps.errors import CheckpointError, DataError, StorageError
from tbps.locks import acquire
from tbps.redact import redacted
from tbps.storage import make_folder, write_text, writing_to
from tbps.study.result import RESULT, StepResult, read_result
from tbps.study.work.kinds import parse_work
from tbps.study.work.observer import WorkObserver
from tbps.study.work.work import Place, Work, WorkOutcome

VERSION = 1  # part of every fingerprint; increase it when the same settings would give another result
ERROR, STEP = "error.json", "step.json"


@dataclass(frozen=True, slots=True)
class Data:
    """A data set: format, folder, and the fingerprint of its content.

    `allow_missing`: whether images with missing files were left out.
    """

    name: str
    root: str
    fingerprint: str
    allow_missing: bool = False


@dataclass(frozen=True, slots=True)
class Start:
    """The study's start model.

    `name`: the name given by the user. `location`: folder or Hugging Face id to load it from; None if the settings build a new one.
    """

    name: str
    location: str | None
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Step:
    """Work on a data set from a start model.

    `first`: fingerprint of the step whose best model this one starts from; None if it starts from `start`.
    """

    work: Work
    data: Data
    start: Start
    first: str | None = None

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that depend on the work and on the content of data and start, not on names or folders."""
        what = [VERSION, self.work.fingerprint(), self.data.fingerprint, self.start.fingerprint, self.first]
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]

    def folder(self, study: Path) -> Path:
        """Folder of this step in the study's folder."""
        return study / "steps" / self.fingerprint


class StepState(StrEnum):
    """State of a step after an attempt to run it."""

    DONE = "done"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class End:
    """How an attempt to run a step ended; `error` is empty unless it failed."""

    state: StepState
    error: str = ""


def run_step(
    study: Path, step: Step, device: str, observer: WorkObserver, stop: Callable[[], bool], dataset: PersonDataset | None = None
) -> End:
    """Run a step, or resume it; a finished step is not run again. Errors are written to its folder and returned, not raised.

    `dataset`: the content of `step.data`, if it has been read already.
    """
    folder = step.folder(study)
    if (folder / RESULT).exists():
        return End(StepState.DONE)
    try:
        with _alone_in(folder):
            write_step(study, step)
            images = dataset if dataset is not None else _read(step.data)
            before, model = _before(study, step)
            place = Place(images, model, device, folder, observer, stop, step.start.location, before)
            outcome = step.work.run(place)
            if outcome is None:
                return End(StepState.STOPPED)
            _result(step, outcome, device, images).save(folder)
            (folder / ERROR).unlink(missing_ok=True)
            return End(StepState.DONE)
    except Exception as error:  # any error: it is recorded and reported, and the other steps run
        message = redacted(" ".join(str(error).split())) or type(error).__name__
        note = {"error": message, "kind": type(error).__name__, "traceback": redacted(traceback.format_exc())}
        with contextlib.suppress(StorageError):  # the disk may be what failed
            write_text(folder / ERROR, json.dumps(note, indent=2) + "\n")
        return End(StepState.FAILED, message)


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
    """Read `step.json`. Raises CheckpointError if it is missing or damaged."""
    try:
        values = json.loads((folder / STEP).read_text(encoding="utf-8"))
        return Step(parse_work(values["work"]), Data(**values["data"]), Start(**values["start"]), values["first"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder / STEP} is missing or damaged ({error}); run the study's command again") from error


def read_error(folder: Path) -> str | None:
    """Read why the last attempt failed; None if it did not fail. Raises CheckpointError for a damaged file."""
    file = folder / ERROR
    if not file.exists():
        return None
    try:
        return str(json.loads(file.read_text(encoding="utf-8"))["error"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{file} is damaged ({error}); delete it and run the study's command again") from error


def data_fingerprint(dataset: PersonDataset) -> str:
    """16 hexadecimal digits that depend on every record and on the sizes of the image files, not on the folder's location."""
    digest = hashlib.sha256()
    for image in dataset.images:
        name = str(image.path.relative_to(dataset.root.resolve())) if image.path.is_absolute() else str(image.path)
        record = [name, image.path.stat().st_size, image.identity, image.split, image.captions, image.captions_bt]
        digest.update(json.dumps(record).encode())
    return digest.hexdigest()[:16]


def _read(data: Data) -> PersonDataset:
    dataset = read_dataset(data.name, Path(data.root), allow_missing=data.allow_missing)
    found = data_fingerprint(dataset)
    if found != data.fingerprint:
        raise DataError(f"{data.root} has changed since the study was planned ({found} instead of {data.fingerprint})")
    return dataset


def _before(study: Path, step: Step) -> tuple[Mapping[str, float | None], str | Path | None]:
    """Return the values of the step that this one builds on, and the model to start from."""
    if step.first is None:
        return {}, step.start.location
    folder = study / "steps" / step.first
    result = read_result(folder)
    if result is None:
        raise CheckpointError(f"the step that this one starts from, {step.first}, is not done")
    return result.values, folder / "run" / "best"


def _result(step: Step, outcome: WorkOutcome, device: str, dataset: PersonDataset) -> StepResult:
    return StepResult(
        step=step.fingerprint,
        kind=step.work.kind,
        seed=step.work.train.seed,
        data=step.data.name,
        data_fingerprint=step.data.fingerprint,
        images=len(dataset.images),
        start=step.start.name,
        start_fingerprint=step.start.fingerprint,
        first=step.first,
        split=outcome.split,
        queries=outcome.queries,
        gallery=outcome.gallery,
        values=outcome.values,
        measured=outcome.measured,
        device=torch.cuda.get_device_name() if device.startswith("cuda") else f"cpu, {platform.machine()}",
        torch=torch.__version__,
        finished_at=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    )


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; the system releases it when this process ends. Raises StorageError if another process holds it."""
    file = make_folder(folder) / "lock"
    with writing_to(folder), file.open("a") as lock:
        if not acquire(lock.fileno(), patience=0):
            raise StorageError(f"another process is at work in {folder}; wait until it is done")
        yield
