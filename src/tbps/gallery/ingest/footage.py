"""What becomes of photographs of whole scenes and of videos: the settings, the rows that they give, and which are done.

GALLERY/footage.jsonl remembers every scene and video that was looked at to its end, so that it is not looked at again: one line
each with two digests, of file and settings and of the metadata. It holds no name, time or picture, and stays when rows are
forgotten: who was forgotten does not come back with the next run. A snapshot keeps a copy, which is restored with it; an export has
none, so that an import cannot keep anything from being looked at. Remove the file to have everything looked at again.
"""

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal, final

import numpy as np
from PIL import Image
from pydantic import Field

from tbps.config import Settings
from tbps.errors import DataError, SettingsError
from tbps.gallery.store.columns import row_metadata
from tbps.gallery.store.layout import FOOTAGE_FILE
from tbps.gallery.store.numbers import canonical_name
from tbps.preprocess.metadata import parse_time
from tbps.preprocess.names import file_key
from tbps.redact import redacted
from tbps.storage import writing_to
from tbps.video import (
    HOG,
    Appearance,
    Crop,
    Detector,
    Every,
    Following,
    Frame,
    JsonDetector,
    OnFrame,
    Tally,
    colour_signature,
    cut,
    open_detector,
    open_video,
    tracklets,
)

COLUMNS: Mapping[str, Any] = {
    "box_x": 0,
    "box_y": 0,
    "box_width": 0,
    "box_height": 0,
    "quality": 0.0,
    "frame": 0,
    "offset_seconds": 0.0,
    "tracklet": "",
    "video": "",
}

OnVideo = Callable[[str, int, int], None]


class FootageSettings(Settings):
    """photographs: look for people in pictures too, instead of taking each for one crop; follow: what a person is known by."""

    photographs: bool = False
    every: float = Field(default=0.5, gt=0, description="seconds between the frames that are looked at")
    every_frames: int | None = Field(default=None, ge=1, description="frames, in place of seconds")
    best_per_track: int = Field(default=3, ge=1)
    min_height: int = Field(default=64, ge=1, description="of a person in pixels")
    follow: Literal["colours", "model"] = "colours"


@dataclass(frozen=True, slots=True)
class Footage:
    """How to look at scenes and videos. detector: the built-in one where None; camera and start: where metadata give none;
    on_video: name, frames decoded, frames expected; within: the cameras of which something may be added, None for all;
    committing: entered with the ids of rows while these are committed."""

    settings: FootageSettings = field(default_factory=FootageSettings)
    detector: Detector | None = None
    camera: str | None = None
    start: datetime | None = None
    on_video: OnVideo | None = None
    within: tuple[str, ...] | None = None
    committing: Callable[[Sequence[str]], AbstractContextManager[None]] | None = None


@dataclass(frozen=True, slots=True)
class VideoReport:
    """What was met in one video; see `tbps.video.Tally`. incomplete: why its end was not reached, None where it was."""

    name: str
    frames: int
    looked_at: int
    broken: int
    detections: int
    tracklets: int
    crops: int
    missing: int = 0
    jumps: int = 0
    incomplete: str | None = None


@dataclass(frozen=True, slots=True)
class Person:
    """A row to be: the crop of a person, its columns, and a hash of where it was found."""

    content_hash: str
    image: Image.Image
    columns: Mapping[str, Any]


def parse_every(text: str) -> dict[str, Any]:
    """The settings that "0.5" or "0.5s" (seconds) or "12f" (frames) mean. Raises SettingsError on anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(s|f)?", text.strip())
    if found is None or not float(found[1]) or (found[2] == "f" and "." in found[1]):
        raise SettingsError(f"--every {text!r} is neither seconds such as 0.5 nor frames such as 12f")
    return {"every_frames": int(found[1])} if found[2] == "f" else {"every": float(found[1])}


@final
class Lookout:
    """Looks at scenes and videos for one run of indexing a gallery folder."""

    def __init__(self, footage: Footage, folder: Path, appearance: Appearance) -> None:
        """appearance: the model's, used where the settings say so."""
        self.footage = footage
        self.folder = folder
        self.record = Record(folder / FOOTAGE_FILE)
        self._appearance = appearance if footage.settings.follow == "model" else colour_signature
        self._detector = footage.detector
        if footage.settings.photographs and self._detector is None:
            self._detector = open_detector(HOG)  # a missing package is told before anything is read

    @property
    def detector(self) -> Detector:
        """Raises MissingDependencyError where none was given and OpenCV lacks the built-in one."""
        if self._detector is None:
            self._detector = open_detector(HOG)
        return self._detector

    def key(self, content_hash: str, model: str) -> str:
        """A digest of a file and of everything that decides which crops it gives."""
        settings = self.footage.settings
        by = model if settings.follow == "model" else ""
        return _digest(content_hash, settings.override({"photographs": False}).fingerprint(), self.detector.fingerprint, by)

    def columns(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The metadata of a picture or video, with the camera of all where it has none of its own, and without passwords."""
        camera = self.footage.camera
        own = dict(given) if camera is None or given.get("camera") is not None else {**given, "camera": camera}
        return {name: _without_secrets(value) for name, value in own.items()}

    def secrets(self, given: Iterable[Mapping[str, Any]]) -> list[str]:
        """Notes on the columns from whose values passwords are removed."""
        counts = Counter(
            name
            for own in given
            for name, value in (own if self.footage.camera is None else {"camera": self.footage.camera, **own}).items()
            if (kept := _without_secrets(value)) is not value and kept != value  # NaN differs from itself
        )
        return [f"column {name!r}: passwords in addresses were removed from {n:,} values" for name, n in counts.items()]

    def check(self, columns: Mapping[str, Any]) -> None:
        """Raises DataError where nothing of that camera may be added."""
        within, camera = self.footage.within, row_metadata(columns, {}).camera
        if within is not None and camera not in {canonical_name(name) for name in within}:
            named = "it names no camera" if camera is None else f"camera {camera!r}"
            raise DataError(f"{named}: only pictures of these cameras may be added here: {', '.join(within)}")

    def identity(self, content_hash: str, columns: Mapping[str, Any]) -> str:
        """The hash that stands for a picture, scene or video in the gallery: the content's own, or one per content and camera.

        Whoever may add to some cameras only is not to learn what the others hold: the same picture is added again for their camera,
        under an id that tells nothing of the content of others.
        """
        return content_hash if self.footage.within is None else of_camera(content_hash, columns)

    def done_as(self, content_hash: str, columns: Mapping[str, Any], model: str) -> tuple[str, Mapping[str, Any]] | None:
        """Key and metadata of a scene or video that was looked at to its end, as far as whoever adds it may know; else None."""
        at_camera = of_camera(content_hash, columns)
        for each in (at_camera, content_hash):
            key, told = self.key(each, model), self.told(columns, each)
            if key in self.record and (
                each == at_camera or self.footage.within is None or not self.record.differs(key, told)  # the same camera
            ):
                return key, told
        return None

    def told(self, columns: Mapping[str, Any], content_hash: str) -> Mapping[str, Any]:
        """What the record keeps a digest of; with the file's hash, which it does not hold: a camera's name could be guessed."""
        return {**columns, "start": self.footage.start, "content_hash": content_hash}

    def unused(self, pictures: Collection[str], videos: Collection[str], settled: Collection[str]) -> list[str]:
        """Notes on ready-made detections that were not asked for. settled: names that were done before, or that failed."""
        if not isinstance(self._detector, JsonDetector):
            return []
        pictures, videos, settled = ({file_key(name) for name in names} for names in (pictures, videos, settled))
        file, notes, strangers = self._detector.file, list[str](), dict[str, int]()
        for name, frames in self._detector.unused().items():
            count = sum(frames.values())
            if name in settled:
                continue
            if name in videos:
                where = ", ".join(str(number) for number in sorted(frames)[:5]) + (", ..." if len(frames) > 5 else "")
                notes.append(
                    f"{file}: {_detections(count)} of {name} not used, in frames behind its end or that could not be decoded "
                    f"({where})"
                )
            elif name in pictures:
                why = (
                    "a photograph has frame 0 only" if self.footage.settings.photographs else "it was taken whole, without --detect"
                )
                notes.append(f"{file}: {_detections(count)} of {name} not used: {why}")
            else:
                strangers[name] = count
        if strangers:
            total, first = sum(strangers.values()), next(iter(strangers))
            notes.append(
                f"{file}: {_detections(total)} of {len(strangers):,} names not used, since no file of that name was indexed, such "
                f"as {first!r}; file_name is the name below the indexed folder"
            )
        return notes

    def in_photograph(self, name: str, image: Image.Image, content_hash: str, columns: Mapping[str, Any]) -> list[Person]:
        """Everybody in a photograph, best detection first."""
        frame = Frame(name, 0, np.asarray(image))
        found = [d for d in self.detector.detect(frame) if d.height >= self.footage.settings.min_height]
        return [_person(cut(frame, detection), content_hash, columns) for detection in found]

    def in_video(
        self, name: str, path: Path, hashes: tuple[str, str], columns: Mapping[str, Any], tally: Tally
    ) -> Iterator[Person]:
        """The best crops of everybody in a video, tracklet by tracklet. hashes: of the file, and its key."""
        content_hash, key = hashes
        settings, report = self.footage.settings, self.footage.on_video
        on_frame: OnFrame = (lambda done, total: report(name, done, total)) if report else (lambda done, total: None)
        how = Following(
            self.detector,
            self._appearance,
            Every(settings.every, settings.every_frames),
            settings.best_per_track,
            settings.min_height,
            self.detector.frames(name) if isinstance(self.detector, JsonDetector) else frozenset(),
        )
        with open_video(path) as video:
            start = parse_time(columns.get("captured_at")) or self.footage.start or video.started
            for tracklet in tracklets(video, name, how, tally, on_frame):
                for crop in tracklet.crops:
                    own: dict[str, Any] = {"video": name, "tracklet": f"{key[:12]}-{tracklet.number:04d}"}
                    if start is not None and crop.offset is not None:
                        own["captured_at"] = (start + timedelta(seconds=round(crop.offset, 3))).isoformat()
                    yield _person(crop, content_hash, {**columns, **own})


@final
class Record:
    """The file that remembers what was looked at to its end; other processes may add to it."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._done: dict[str, str] = {}
        self._seen: tuple[int, int, int] | None = None
        self.refresh()

    def refresh(self) -> None:
        """Reads the file again if another process has changed it."""
        if (seen := self._state()) == self._seen:
            return
        done: dict[str, str] = {}
        for line in self._file.read_bytes().splitlines() if seen else []:
            try:
                key, columns = json.loads(line)
                done[key] = columns  # the last line of a key counts: metadata may have been corrected
            except (ValueError, TypeError):  # torn by a kill
                continue
        self._done, self._seen = done, seen

    def __contains__(self, key: str) -> bool:
        return key in self._done

    def differs(self, key: str, columns: Mapping[str, Any]) -> bool:
        """Whether a file that is done was looked at with other metadata."""
        return self._done[key] != _of_columns(columns)

    def append(self, done: Mapping[str, Mapping[str, Any]]) -> None:
        """Remembers keys that are new, once their rows are committed; under the gallery's lock. Raises StorageError."""
        self.refresh()
        self._write({key: _of_columns(columns) for key, columns in done.items() if key not in self._done})

    def correct(self, done: Mapping[str, Mapping[str, Any]]) -> None:
        """Remembers other metadata of keys that are done, as `append`."""
        self.refresh()
        digests = {key: _of_columns(columns) for key, columns in done.items()}
        self._write({key: digest for key, digest in digests.items() if self._done.get(key) not in (None, digest)})

    def _write(self, digests: Mapping[str, str]) -> None:
        if not digests:
            return
        # A line that was torn by a kill ends at the line break in front.
        text = "".join(f"\n{json.dumps(entry)}" for entry in digests.items()) + "\n"
        with writing_to(self._file.parent), self._file.open("ab") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        self._done |= digests
        self._seen = self._state()

    def _state(self) -> tuple[int, int, int] | None:
        try:
            facts = self._file.stat()
        except FileNotFoundError:
            return None
        return facts.st_ino, facts.st_mtime_ns, facts.st_size


def of_camera(content_hash: str, columns: Mapping[str, Any]) -> str:
    """A hash that stands for a content at one camera."""
    return _digest("camera", row_metadata(columns, {}).camera or "", content_hash)


def report_of(name: str, tally: Tally) -> VideoReport:
    """A video's tally for the report."""
    met = asdict(tally)
    return VideoReport(name, **{entry.name: met[entry.name] for entry in fields(VideoReport) if entry.name in met})


def _person(crop: Crop, content_hash: str, columns: Mapping[str, Any]) -> Person:
    place = place_hash(content_hash, crop.frame, crop.box)
    return Person(place, crop.image, {**columns, **crop.columns()})


def _detections(count: int) -> str:
    return "1 detection" if count == 1 else f"{count:,} detections"


def _without_secrets(value: Any) -> Any:
    """A metadata value without the passwords of the addresses in it; the gallery stores none."""
    if isinstance(value, str):
        return redacted(value, queries=False)
    if isinstance(value, list | tuple):
        return type(value)(_without_secrets(part) for part in value)
    return {name: _without_secrets(part) for name, part in value.items()} if isinstance(value, dict) else value


def place_hash(file_hash: str, frame: Any, box: Sequence[Any]) -> str:
    """The content hash of a person: where it was found in which file."""
    return _digest(file_hash, str(frame), *(str(side) for side in box))


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _of_columns(columns: Mapping[str, Any]) -> str:
    return _digest(json.dumps(dict(columns), sort_keys=True, default=str))[:16]
