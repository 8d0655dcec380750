"""Where people are in a picture: the Detector protocol, OpenCV's built-in HOG detector, and ready-made detections from JSON.

Detectors of ONNX files are in `detect_onnx`.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, final

import numpy as np
from jaxtyping import Float, UInt8

from tbps.errors import DataError, MissingDependencyError, SettingsError
from tbps.preprocess.metadata import strict_json
from tbps.preprocess.names import file_key
from tbps.search.detect_layouts import LAYOUTS

HOG = "hog"
_FARTHEST = 1e9  # pixels


@dataclass(frozen=True, slots=True)
class Frame:
    """An upright picture to look at: `source` is the name of the photograph or video, `number` counts a video's frames from 0.

    stretch: width and height over those of the stored picture, whose pixels need not be square.
    """

    source: str
    number: int
    pixels: UInt8[np.ndarray, "height width 3"]  # RGB
    stretch: tuple[float, float] = (1.0, 1.0)


@dataclass(frozen=True, slots=True)
class Detection:
    """A person's box in pixels of the upright picture, and how sure the detector is, in [0, 1]."""

    x: float
    y: float
    width: float
    height: float
    score: float


class Detector(Protocol):
    """Finds people. `fingerprint` is equal exactly when the detections are; `advice` is the way out where nobody is found."""

    @property
    def fingerprint(self) -> str: ...

    @property
    def advice(self) -> str: ...

    def detect(self, frame: Frame) -> list[Detection]:
        """The people of a frame, best first; the same frame always gives the same. Safe to call from several threads."""
        ...


def open_detector(place: str, min_score: float = 0.5, person_class: int | None = None, layout: str | None = None) -> Detector:
    """`hog`, an ONNX file (YOLO, DETR and their relatives, see `detect_layouts`), or a JSON file of ready-made detections.

    person_class, layout: the person's number among the ONNX file's classes, and how it gives its boxes, where it does not tell.
    Raises SettingsError on anything else, DataError on a file that cannot be used, MissingDependencyError without its package.
    """
    if not 0 <= min_score <= 1:
        raise SettingsError(f"min_score is {min_score}; scores lie in 0 .. 1")
    suffix = Path(place).suffix.lower()
    if layout is not None and layout not in LAYOUTS:
        raise SettingsError(f"detector layout {layout!r} is none of {', '.join(LAYOUTS)}")
    if layout is not None and suffix != ".onnx":
        raise SettingsError(f"a detector layout ({layout}) is for .onnx files; the detector is {place}")
    if place == HOG:
        return HogDetector(min_score)
    if suffix not in (".json", ".onnx"):
        raise SettingsError(f"detector {place!r} is neither {HOG!r} nor a .onnx or .json file")
    if not Path(place).is_file():
        raise DataError(f"detector file {place} does not exist")
    if suffix == ".json":
        return JsonDetector(Path(place), min_score)
    from tbps.search.detect_onnx import OnnxDetector

    return OnnxDetector(Path(place), min_score, person_class, layout)


def suppress(found: Iterable[Detection], overlap: float) -> list[tuple[Detection, int]]:
    """Non-maximum suppression: the best boxes, none overlapping a better one by more than `overlap` (IoU), best first.

    With each the number of boxes that it stands for, itself included. Ties go by place, so that the input's order is without
    effect.
    """
    left = sorted(found, key=lambda d: (-d.score, d.x, d.y, d.width, d.height))
    corners = np.array([(d.x, d.y, d.x + d.width, d.y + d.height) for d in left]).reshape(-1, 4)
    alive = np.ones(len(left), bool)
    kept: list[tuple[Detection, int]] = []
    for number, detection in enumerate(left):
        if alive[number]:
            taken = alive & (iou(corners[number : number + 1], corners)[0] > overlap)
            taken[number] = True
            alive &= ~taken
            kept.append((detection, int(taken.sum())))
    return kept


def iou(ours: Float[np.ndarray, "N 4"], theirs: Float[np.ndarray, "M 4"]) -> Float[np.ndarray, "N M"]:
    """Intersection over union of boxes given as left, top, right, bottom."""
    low = np.maximum(ours[:, None, :2], theirs[None, :, :2])
    high = np.minimum(ours[:, None, 2:], theirs[None, :, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=2)
    areas = [np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1) for boxes in (ours, theirs)]
    union = areas[0][:, None] + areas[1][None] - shared
    return np.asarray(shared / np.maximum(union, 1e-12))


@final
class HogDetector:
    """Histograms of oriented gradients and a linear SVM (Dalal and Triggs 2005), as built into OpenCV 4; nothing to download.

    It finds people who stand or walk upright, whole and not small; see the decisions for what it found where. The picture is
    shrunk to LONGEST pixels and its edge repeated outwards, since the SVM needs ground around a person. A hit counts when
    SUPPORT windows agree. score = 1 - exp(-distance from the SVM's plane).
    """

    LONGEST = 640
    BORDER = 0.15
    SUPPORT = 5
    OVERLAP = 0.4
    # A window is 128 high for a person of about 100, and wider than most people.
    PERSON = (0.65, 0.8)

    def __init__(self, min_score: float = 0.5) -> None:
        import cv2  # a slow import

        self._cv: Any = cv2
        if int(self._cv.__version__.partition(".")[0]) > 4:
            raise MissingDependencyError(
                f"OpenCV {self._cv.__version__} has no HOG detector any more; run: pip install 'opencv-python-headless>=4.10,<5', "
                "or give --detector MODEL.onnx"
            )
        self._min_score = min_score

    @property
    def fingerprint(self) -> str:
        return f"hog-1 {self._min_score}"

    @property
    def advice(self) -> str:
        return (
            "the built-in detector finds whole people who stand or walk; lower --min-height or --min-score, "
            "or give --detector MODEL.onnx (YOLO, DETR)"
        )

    def detect(self, frame: Frame) -> list[Detection]:
        cv, (height, width) = self._cv, frame.pixels.shape[:2]
        scale = self.LONGEST / max(height, width)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        small = cv.resize(frame.pixels, size, interpolation=cv.INTER_AREA if scale < 1 else cv.INTER_LINEAR)
        edge = round(self.BORDER * self.LONGEST)
        ground = cv.copyMakeBorder(small, edge, edge, edge, edge, cv.BORDER_REPLICATE)
        hog = cv.HOGDescriptor()
        hog.setSVMDetector(cv.HOGDescriptor_getDefaultPeopleDetector())
        # Without its own grouping, whose outcome depends on the order in which threads finish.
        boxes, margins = hog.detectMultiScale(
            cv.cvtColor(ground, cv.COLOR_RGB2BGR), winStride=(8, 8), padding=(8, 8), scale=1.05, groupThreshold=0
        )
        hits = [
            Detection(float(box[0]), float(box[1]), float(box[2]), float(box[3]), float(1 - np.exp(-margin)))
            for box, margin in zip(boxes, np.ravel(margins), strict=True)
        ]
        kept = [hit for hit, support in suppress(hits, self.OVERLAP) if support >= self.SUPPORT and hit.score >= self._min_score]
        people = [self._person(hit, edge, scale) for hit in kept]
        return clip(people, width, height)

    def _person(self, hit: Detection, edge: int, scale: float) -> Detection:
        wide, tall = self.PERSON
        left, top = hit.x + hit.width * (1 - wide) / 2 - edge, hit.y + hit.height * (1 - tall) / 2 - edge
        return Detection(left / scale, top / scale, hit.width * wide / scale, hit.height * tall / scale, hit.score)


@final
class JsonDetector:
    """Ready-made detections in COCO's layout, boxes [x, y, width, height] in pixels of the upright picture.

    {"images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "lobby.mp4", "frame": 25}],
     "annotations": [{"image_id": 1, "bbox": [10, 20, 40, 100], "score": 0.9, "category_id": 1}],
     "categories": [{"id": 1, "name": "person"}]}

    `file_name` is the name below the indexed folder, `frame` a video's frame counted from 0; without it the first. `score` (1) and
    `categories` (all are people) may be left out. Boxes are in pixels as stored, as OpenCV gives them: where those are not square,
    they are stretched with the picture. An image with `width` and `height` must have the size of the stored picture or of the one
    with square pixels, and its boxes are in that.
    """

    def __init__(self, file: Path, min_score: float = 0.0) -> None:
        self._min_score = min_score
        try:
            content = file.read_bytes()
            tree = strict_json(content)
        except OSError as error:
            raise DataError(f"{file}: cannot be read ({error.strerror})") from error
        except (ValueError, RecursionError) as error:
            raise DataError(f"{file}: is not JSON ({error})") from error
        self.file, self._hash = file, hashlib.sha256(content).hexdigest()
        self._found, self._sizes = _read_coco(file, tree)
        self._asked: set[tuple[str, int]] = set()

    @property
    def fingerprint(self) -> str:
        return f"json {self._hash} {self._min_score}"

    @property
    def advice(self) -> str:
        first = next(iter(self._found), ("nothing", 0))[0]
        return f"{self.file} has detections for {first!r} and the like: file_name is the name below the indexed folder"

    def frames(self, source: str) -> frozenset[int]:
        """The numbers of the frames of a video that have detections."""
        return frozenset(number for name, number in self._sure() if name == file_key(source))

    def unused(self) -> dict[str, dict[int, int]]:
        """File -> frame -> number of detections, where `detect` was never asked."""
        left: dict[str, dict[int, int]] = {}
        for (name, number), count in self._sure().items():
            if (name, number) not in self._asked:
                left.setdefault(name, {})[number] = count
        return left

    def detect(self, frame: Frame) -> list[Detection]:
        key = file_key(frame.source), frame.number
        self._asked.add(key)
        found = [d for d in self._found.get(key, []) if d.score >= self._min_score]
        height, width = frame.pixels.shape[:2]
        across, down = self._stretch(frame, self._sizes.get(key)) if found else (1.0, 1.0)
        moved = (Detection(d.x * across, d.y * down, d.width * across, d.height * down, d.score) for d in found)
        return clip(moved, width, height)

    def _sure(self) -> dict[tuple[str, int], int]:
        """How many detections of each frame are sure enough, where there are any."""
        counts = {key: sum(d.score >= self._min_score for d in found) for key, found in self._found.items()}
        return {key: count for key, count in counts.items() if count}

    def _stretch(self, frame: Frame, said: tuple[int, int] | None) -> tuple[float, float]:
        """By what boxes are multiplied. said: the width and height that the file gives this picture."""
        height, width = frame.pixels.shape[:2]
        stored = round(width / frame.stretch[0]), round(height / frame.stretch[1])
        if said is None or said == stored:
            return frame.stretch
        if said == (width, height):
            return 1.0, 1.0
        raise DataError(
            f"{self.file}: says that {frame.source} (frame {frame.number}) is {said[0]} x {said[1]}, but it is {stored[0]} x "
            f"{stored[1]} when upright; its boxes would lie elsewhere: make the detections anew on the upright picture, or correct "
            "its width and height"
        )


def clip(found: Iterable[Detection], width: int, height: int) -> list[Detection]:
    """Boxes cut to the picture, best first; those outside or without area are dropped."""
    kept = []
    for d in found:
        left, top = max(0.0, d.x), max(0.0, d.y)
        right, bottom = min(float(width), d.x + d.width), min(float(height), d.y + d.height)
        if right - left >= 1 and bottom - top >= 1:
            kept.append(Detection(left, top, right - left, bottom - top, d.score))
    return sorted(kept, key=lambda d: (-d.score, d.x, d.y, d.width, d.height))


_Key = tuple[str, int]  # name and frame


def _read_coco(file: Path, tree: Any) -> tuple[dict[_Key, list[Detection]], dict[_Key, tuple[int, int]]]:
    """Detections and, where they are given, width and height of every frame."""
    if not isinstance(tree, dict) or not all(isinstance(tree.get(key), list) for key in ("images", "annotations")):
        raise DataError(f"{file}: expected an object with the lists 'images' and 'annotations' (COCO)")
    categories = tree.get("categories") or []
    people = {c.get("id") for c in categories if isinstance(c, dict) and c.get("name") in ("person", "pedestrian")}
    if categories and not people:
        raise DataError(f"{file}: none of its categories is named 'person'")
    frames: dict[Any, _Key] = {}
    found: dict[_Key, list[Detection]] = {}
    sizes: dict[_Key, tuple[int, int]] = {}
    for number, image in enumerate(tree["images"]):
        name, frame = (image.get("file_name"), image.get("frame", 0)) if isinstance(image, dict) else (None, None)
        if not isinstance(name, str) or not isinstance(frame, int) or frame < 0 or not _is_id(image.get("id")):
            raise DataError(f"{file}: images[{number}] needs an 'id', a 'file_name' and, in a video, a 'frame' from 0")
        key = file_key(name), frame
        if frames.setdefault(image["id"], key) != key:
            raise DataError(f"{file}: images[{number}] has the id {image['id']!r} of {frames[image['id']][0]!r}; ids must differ")
        found.setdefault(key, [])
        width, height = image.get("width"), image.get("height")
        if isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0:
            sizes[key] = (width, height)
    for number, annotation in enumerate(tree["annotations"]):
        detection = _detection(annotation)
        if detection is None or not _is_id(annotation.get("image_id")) or annotation["image_id"] not in frames:
            raise DataError(
                f"{file}: annotations[{number}] needs the 'image_id' of an image, a 'bbox' of 4 numbers, a 'score' in 0 .. 1"
            )
        if not categories or annotation.get("category_id") in people:
            found[frames[annotation["image_id"]]].append(detection)
    return found, sizes


def _is_id(value: Any) -> bool:
    """Whether a value can be an id of COCO: a text or a whole number, not a double, which loses digits above 2^53."""
    return isinstance(value, int | str) and not isinstance(value, bool)


def _detection(annotation: Any) -> Detection | None:
    if not isinstance(annotation, Mapping) or not isinstance(annotation.get("bbox"), list):
        return None
    values = [*annotation["bbox"], annotation.get("score", 1.0)]
    if len(values) != 5 or not all(isinstance(v, int | float) and not isinstance(v, bool) and abs(v) <= _FARTHEST for v in values):
        return None
    return Detection(*(float(value) for value in values)) if 0 <= values[4] <= 1 else None
