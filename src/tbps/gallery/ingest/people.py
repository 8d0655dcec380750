"""Searches scenes and videos for people, with the settings of one indexing run."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, final

import numpy as np
from PIL import Image

from tbps.gallery.ingest.footage import Footage
from tbps.gallery.ingest.hashes import digest_of
from tbps.preprocess.metadata import parse_time
from tbps.preprocess.names import file_key
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


@final
@dataclass(frozen=True, slots=True)
class PeopleFinder:
    """Finds people with the settings in `footage`. appearance: embeds crops with the model; used if `follow` is "model"."""

    footage: Footage
    appearance: Appearance

    def opened(self) -> "PeopleFinder":
        """Adds the built-in detector when none was given. Raises MissingDependencyError when OpenCV lacks it."""
        if self.footage.detector is not None:
            return self
        return replace(self, footage=replace(self.footage, detector=open_detector(HOG)))

    @property
    def detector(self) -> Detector:
        assert self.footage.detector is not None, "call `opened` first"
        return self.footage.detector

    def key(self, content_hash: str, model: str) -> str:
        """A digest of a file and of all settings that affect its crops. model: fingerprint of the encoder."""
        settings = self.footage.settings
        by = model if settings.follow == "model" else ""
        return digest_of(content_hash, settings.override({"photographs": False}).fingerprint(), self.detector.fingerprint, by)

    def in_photograph(self, name: str, image: Image.Image) -> list[Crop]:
        """The people in a photograph, best detection first."""
        frame = Frame(name, 0, np.asarray(image))
        found = [d for d in self.detector.detect(frame) if d.height >= self.footage.settings.min_height]
        return [cut(frame, detection) for detection in found]

    def in_video(
        self, name: str, path: Path, key: str, columns: Mapping[str, Any], tally: Tally
    ) -> Iterator[tuple[Crop, dict[str, Any]]]:
        """Yields the best crops of the people in a video, tracklet by tracklet, each with its columns in addition to the video's.

        columns: those of the video; `captured_at` is its start time. tally: is updated with the counts of frames and people.
        """
        settings, report = self.footage.settings, self.footage.on_video
        on_frame: OnFrame = (lambda done, total: report(name, done, total)) if report else (lambda done, total: None)
        how = Following(
            self.detector,
            self.appearance if settings.follow == "model" else colour_signature,
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
                    yield crop, own | crop.columns()

    def unused_notes(self, pictures: Collection[str], videos: Collection[str], settled: Collection[str]) -> list[str]:
        """Notes on ready-made detections that were not used.

        pictures, videos: names of the indexed files; settled: names of files that were finished before, or failed.
        """
        detector = self.footage.detector
        if not isinstance(detector, JsonDetector):
            return []
        pictures, videos, settled = ({file_key(name) for name in names} for names in (pictures, videos, settled))
        file, notes, unknown = detector.file, list[str](), dict[str, int]()
        for name, frames in detector.unused().items():
            count = sum(frames.values())
            if name in settled:
                continue
            if name in videos:
                where = ", ".join(str(number) for number in sorted(frames)[:5]) + (", ..." if len(frames) > 5 else "")
                why = f", in frames after its end or that could not be decoded ({where})"
            elif name in pictures and self.footage.settings.photographs:
                why = ": a photograph has frame 0 only"
            elif name in pictures:
                why = ": it was taken whole, without --detect"
            else:
                unknown[name] = count
                continue
            notes.append(f"{file}: {_detections(count)} of {name} not used{why}")
        if unknown:
            total, first = sum(unknown.values()), next(iter(unknown))
            notes.append(
                f"{file}: {_detections(total)} of {len(unknown):,} names not used, since no file of that name was indexed, such "
                f"as {first!r}; file_name is the name below the indexed folder"
            )
        return notes


def _detections(count: int) -> str:
    return "1 detection" if count == 1 else f"{count:,} detections"
