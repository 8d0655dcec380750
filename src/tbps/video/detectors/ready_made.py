"""Reads ready-made detections from a JSON file."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from tbps.errors import DataError
from tbps.preprocess.metadata import strict_json
from tbps.preprocess.names import file_key
from tbps.video.detectors.protocol import Detection, Frame, clip

_FARTHEST = 1e9  # pixels


@final
class JsonDetector:
    """Ready-made detections in COCO's layout, boxes [x, y, width, height] in pixels of the upright picture.

    {"images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "lobby.mp4", "frame": 25}],
     "annotations": [{"image_id": 1, "bbox": [10, 20, 40, 100], "score": 0.9, "category_id": 1}],
     "categories": [{"id": 1, "name": "person"}]}

    `file_name` is the name below the indexed folder, `frame` the number of a video's frame from 0 (default 0). `score` (default 1)
    and `categories` (default: all are people) are optional. Boxes are in stored pixels, as OpenCV returns them; if those are not
    square, boxes are stretched with the picture. `width` and `height` of an image, when given, must be the size of the stored
    picture or of the one with square pixels, and its boxes are in pixels of that size.
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
        """The numbers of a video's frames that have detections."""
        return frozenset(number for name, number in self._counts() if name == file_key(source))

    def unused(self) -> dict[str, dict[int, int]]:
        """Detections of frames for which `detect` was not called: name of the file -> frame -> their number."""
        left: dict[str, dict[int, int]] = {}
        for (name, number), count in self._counts().items():
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

    def _counts(self) -> dict[tuple[str, int], int]:
        """How many detections of each frame have at least the minimum score; frames without any are left out."""
        counts = {key: sum(d.score >= self._min_score for d in found) for key, found in self._found.items()}
        return {key: count for key, count in counts.items() if count}

    def _stretch(self, frame: Frame, size: tuple[int, int] | None) -> tuple[float, float]:
        """The factors for boxes. size: width and height of this picture in the file, None when not given."""
        height, width = frame.pixels.shape[:2]
        stored = round(width / frame.stretch[0]), round(height / frame.stretch[1])
        if size is None or size == stored:
            return frame.stretch
        if size == (width, height):
            return 1.0, 1.0
        raise DataError(
            f"{self.file}: gives {frame.source} (frame {frame.number}) the size {size[0]} x {size[1]}, but it is {stored[0]} x "
            f"{stored[1]} when upright; its boxes would be misplaced: detect again on the upright picture, or correct "
            "its width and height"
        )


_Key = tuple[str, int]  # name of the file, number of the frame


def _read_coco(file: Path, tree: Any) -> tuple[dict[_Key, list[Detection]], dict[_Key, tuple[int, int]]]:
    """The detections of each frame, and the widths and heights in the file. Raises DataError on a malformed file."""
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
    """Whether a value can be a COCO id: a text or an int. A float would lose digits above 2^53."""
    return isinstance(value, int | str) and not isinstance(value, bool)


def _detection(annotation: Any) -> Detection | None:
    """The detection of a COCO annotation; None when it is malformed."""
    if not isinstance(annotation, Mapping) or not isinstance(annotation.get("bbox"), list):
        return None
    values = [*annotation["bbox"], annotation.get("score", 1.0)]
    if len(values) != 5 or not all(isinstance(v, int | float) and not isinstance(v, bool) and abs(v) <= _FARTHEST for v in values):
        return None
    return Detection(*(float(value) for value in values)) if 0 <= values[4] <= 1 else None
