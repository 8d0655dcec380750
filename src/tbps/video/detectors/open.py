"""Opens a detector: the built-in one, an ONNX file, or a JSON file of ready-made detections."""

from pathlib import Path

from tbps.errors import DataError, SettingsError
from tbps.video.detectors.hog import HOG, HogDetector
from tbps.video.detectors.layouts import LAYOUTS
from tbps.video.detectors.protocol import Detector
from tbps.video.detectors.ready_made import JsonDetector


def open_detector(place: str, min_score: float = 0.5, person_class: int | None = None, layout: str | None = None) -> Detector:
    """Opens `hog`, an ONNX file (the families of YOLO and DETR, see `layouts`), or a JSON file of ready-made detections.

    min_score: detections with a lower score are dropped. person_class: number of the person class in an ONNX file; layout: one of
    `LAYOUTS`. Both are only needed when they cannot be recognised from the file.

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
    from tbps.video.detectors.onnx import OnnxDetector

    return OnnxDetector(Path(place), min_score, person_class, layout)
