"""People found by a user's own ONNX detector: YOLOX and RT-DETR, told apart by their outputs.

YOLOX      one output (1, anchors, 5 + classes): centre x, centre y, width, height, objectness, classes. As exported (grid units and
           logarithms) or with `decode_in_inference`. Input: BGR 0 .. 255, shrunk to the upper left corner, grey 114 around.
RT-DETR    `labels`, `boxes`, `scores` for the inputs `images` and `orig_target_sizes` (its authors' export, boxes in pixels), or
           `logits`, `pred_boxes` (Hugging Face, boxes as shares of the picture). Input: RGB 0 .. 1, stretched to the input's size.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, final

import numpy as np
from PIL import Image

from tbps.errors import DataError
from tbps.optional import needed
from tbps.search.detect import Detection, Frame, clip, suppress

_GREY = 114
_OVERLAP = 0.45
_DEFAULT_SIZE = 640  # where the file leaves height and width open
_STRIDES = ((8, 16, 32), (8, 16, 32, 64))

_Run = Callable[[Frame], list[Detection]]


@final
class OnnxDetector:
    """Runs an ONNX file on the CPU. Raises DataError on a file that is no detector of a known layout, naming its outputs."""

    def __init__(self, file: Path, min_score: float = 0.5, person_class: int = 0) -> None:
        runtime = needed("onnxruntime", f"detector {file}", "onnx")
        options = runtime.SessionOptions()
        options.log_severity_level = 4
        self._file, self._min_score, self._person = file, min_score, person_class
        self._hash = hashlib.sha256(file.read_bytes()).hexdigest()
        try:
            self._session = runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime's own classes derive from Exception only
            raise DataError(f"{file}: is no ONNX file that can be run ({_first_line(error)})") from error
        self._inputs = {value.name: value.shape for value in self._session.get_inputs()}
        self._image = next((name for name, shape in self._inputs.items() if len(shape) == 4), None)
        self._size = self._input_size()
        self._layout = self._known_layout()

    @property
    def fingerprint(self) -> str:
        return f"onnx {self._hash} {self._min_score} {self._person}"

    @property
    def advice(self) -> str:
        return (
            f"lower --min-score ({self._min_score}) or --min-height; --person-class ({self._person}) is the person's class in "
            f"{self._file}"
        )

    def detect(self, frame: Frame) -> list[Detection]:
        height, width = frame.pixels.shape[:2]
        return clip(self._layout(frame), width, height)

    def _known_layout(self) -> _Run:
        outputs = {value.name: value.shape for value in self._session.get_outputs()}
        if self._image is not None:
            if {"labels", "boxes", "scores"} <= outputs.keys():
                return self._rt_detr
            if {"logits", "pred_boxes"} <= outputs.keys():
                return self._rt_detr_hugging_face
            ((name, shape), *others) = outputs.items()
            last = shape[-1] if len(shape) == 3 else None
            if not others and (not isinstance(last, int) or last > 5) and last is not None:
                return self._yolox_layout(name)
        named = ", ".join(f"{name} {list(shape)}" for name, shape in outputs.items())
        raise DataError(
            f"{self._file}: its outputs ({named}) are of no known layout; known are YOLOX (1, anchors, 5 + classes) and RT-DETR "
            "(labels, boxes, scores, or logits, pred_boxes); or save your detections as JSON and give that file"
        )

    def _input_size(self) -> tuple[int, int]:
        shape = [None] * 4 if self._image is None else self._inputs[self._image]
        height, width = (side if isinstance(side, int) and side > 0 else _DEFAULT_SIZE for side in shape[2:])
        return height, width

    def _run(self, pixels: np.ndarray, **others: np.ndarray) -> dict[str, np.ndarray]:
        """pixels: (height, width, 3) as the network wants them."""
        image = np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32)
        names = [value.name for value in self._session.get_outputs()]
        try:
            found = self._session.run(names, {str(self._image): image, **others})
            return dict(zip(names, found, strict=True))
        except Exception as error:  # as above
            raise DataError(f"{self._file}: cannot be run on a picture of {self._size} ({_first_line(error)})") from error

    def _yolox_layout(self, output: str) -> _Run:
        """Decided once, by a grey picture: boxes that are decoded already have centres all over it."""
        height, width = self._size
        values = self._run(np.full((height, width, 3), _GREY, np.float32))[output]
        anchors = values.shape[1]
        if np.abs(values[0, :, :2]).max(initial=0) > min(height, width) / 2:
            return lambda frame: self._yolox(frame, output, None)
        for strides in _STRIDES:
            grid = yolox_grid(height, width, strides)
            if len(grid) == anchors:
                return lambda frame: self._yolox(frame, output, grid)
        raise DataError(
            f"{self._file}: output {output} has {anchors} anchors, which fits no YOLOX with an input of {height} x {width} "
            f"(that has {len(yolox_grid(height, width, _STRIDES[0]))})"
        )

    def _yolox(self, frame: Frame, output: str, grid: np.ndarray | None) -> list[Detection]:
        pixels, scale = letterbox(frame.pixels, self._size)
        values = self._run(pixels[:, :, ::-1])[output][0].astype(np.float64)
        boxes = values[:, :4]
        if grid is not None:
            boxes = np.concatenate(
                [(boxes[:, :2] + grid[:, :2]) * grid[:, 2:], np.exp(np.minimum(boxes[:, 2:], 20)) * grid[:, 2:]], 1
            )
        if 5 + self._person >= values.shape[1]:
            raise DataError(f"{self._file}: has {values.shape[1] - 5} classes; --person-class {self._person} is none of them")
        found = self._centred(boxes / scale, values[:, 4] * values[:, 5 + self._person])
        return [detection for detection, _ in suppress(found, _OVERLAP)]

    def _rt_detr(self, frame: Frame) -> list[Detection]:
        height, width = frame.pixels.shape[:2]
        sizes = [name for name in self._inputs if name != self._image]
        out = self._run(self._stretched(frame.pixels), **{name: np.array([[width, height]], np.int64) for name in sizes})
        corners, person = out["boxes"][0].astype(np.float64), out["labels"][0] == self._person
        if not sizes:
            raise DataError(f"{self._file}: has no input for the picture's size (orig_target_sizes); export it with one")
        return self._above(corners[person], out["scores"][0][person])

    def _rt_detr_hugging_face(self, frame: Frame) -> list[Detection]:
        height, width = frame.pixels.shape[:2]
        out = self._run(self._stretched(frame.pixels))
        logits = out["logits"][0].astype(np.float64)
        if self._person >= logits.shape[1]:
            raise DataError(f"{self._file}: has {logits.shape[1]} classes; --person-class {self._person} is none of them")
        scores = 1 / (1 + np.exp(-logits[:, self._person]))
        return self._centred(out["pred_boxes"][0].astype(np.float64) * (width, height, width, height), scores)

    def _stretched(self, pixels: np.ndarray) -> np.ndarray:
        height, width = self._size
        return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR), np.float32) / 255

    def _centred(self, boxes: np.ndarray, scores: np.ndarray) -> list[Detection]:
        """Boxes by centre and size."""
        return self._above(np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1), scores)

    def _above(self, corners: np.ndarray, scores: np.ndarray) -> list[Detection]:
        good = (scores >= self._min_score) & np.isfinite(corners).all(axis=1)
        return [
            Detection(float(x), float(y), float(right - x), float(bottom - y), min(1.0, float(score)))
            for (x, y, right, bottom), score in zip(corners[good], scores[good], strict=True)
        ]


def letterbox(pixels: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, float]:
    """A picture shrunk or grown into the upper left corner of (height, width), grey around it, and by how much."""
    scale = min(size[0] / pixels.shape[0], size[1] / pixels.shape[1])
    height, width = (max(1, int(side * scale)) for side in pixels.shape[:2])
    box = np.full((*size, 3), _GREY, np.float32)
    box[:height, :width] = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
    return box, scale


def yolox_grid(height: int, width: int, strides: tuple[int, ...]) -> np.ndarray:
    """Column, row, stride, stride of every anchor, in YOLOX's order."""
    parts = []
    for stride in strides:
        rows, columns = np.mgrid[: height // stride, : width // stride]
        parts.append(np.stack([columns.ravel(), rows.ravel(), *np.full((2, rows.size), stride)], axis=1))
    return np.concatenate(parts).astype(np.float64)


def _first_line(error: Any) -> str:
    return str(error).partition("\n")[0][:200]
