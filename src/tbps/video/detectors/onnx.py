"""Runs an ONNX person detector on the CPU; `layouts` describes the known output layouts and how they are recognised.

The picture is prepared as each family was trained:
    yolox                   BGR 0 .. 255, resized into the upper left corner, padded with grey 114
    yolov5, yolov8, yolov10 RGB 0 .. 1, resized into the middle, padded with grey 114
    detr, conditional-detr  RGB 0 .. 1 minus ImageNet's mean, over its standard deviation, stretched to the input's size
    rt-detr                 RGB 0 .. 1, stretched to the input's size

The outputs are checked for every picture. Scores outside 0 .. 1, values that are not finite, boxes of negative size, or no box
inside the picture show that the file has another layout, and raise DataError.
"""

import ast
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from PIL import Image

from tbps.errors import DataError
from tbps.optional import needed
from tbps.video.detectors.layouts import Layout, Signature, grid, person_of, recognise, unknown
from tbps.video.detectors.protocol import Detection, Frame, clip, suppress

_GREY = 114
_OVERLAP = 0.45
_DEFAULT_SIZE = 640  # for files whose input has no fixed height and width
_SHORTEST, _LONGEST = 800, 1333  # sides of DETR's pictures, for files whose input has no fixed size
_SLACK = 1e-3  # rounding errors of half-precision scores outside 0 .. 1
_MEAN, _DEVIATION = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
_NUMBERS = {**_TYPES, "tensor(int32)": np.int32, "tensor(int64)": np.int64, "tensor(bool)": np.bool_}
_OTHER_INPUTS = ("orig_target_sizes", "pixel_mask")


@dataclass(frozen=True, slots=True)
class Fitted:
    """A picture resized for the input. step: input pixels per pixel of the picture (x, y); corner: its upper left corner (x, y)."""

    pixels: np.ndarray
    step: tuple[float, float]
    corner: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class ScoredBoxes:
    """Boxes (left, top, right, bottom) in pixels of `size` (height, width), and the score of each as a person."""

    corners: np.ndarray
    scores: np.ndarray
    size: tuple[int, int]


Outputs = Mapping[str, np.ndarray]


@final
class OnnxDetector:
    """A detector from an ONNX file. Raises DataError on a file without a known layout, naming its outputs.

    layout: one of `LAYOUTS`, when it cannot be recognised; person_class: number of the person class, when neither class names nor
    COCO's numbering decide it.
    """

    def __init__(self, file: Path, min_score: float = 0.5, person_class: int | None = None, layout: str | None = None) -> None:
        runtime = needed("onnxruntime", f"detector {file}", "onnx")
        options = runtime.SessionOptions()
        options.log_severity_level = 4
        self._file, self._min_score = file, min_score
        self._hash = hashlib.sha256(file.read_bytes()).hexdigest()
        try:
            self._session = runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the exceptions of onnxruntime derive from Exception only
            raise DataError(f"{file}: is no ONNX file that can be run ({_first_line(error)})") from error
        self._metadata = dict(self._session.get_modelmeta().custom_metadata_map)
        self._inputs = {value.name: value for value in self._session.get_inputs()}
        self._image, self._fixed = self._picture_input()
        self._layout = self._recognised(layout)
        self._person = person_of(self._layout, str(file), person_class)
        self._any_class = person_class is not None

    @property
    def fingerprint(self) -> str:
        # Files that version 0.1 read in the same way keep its fingerprint, so that finished videos are not searched again.
        same = self._layout.name == "yolox" or (self._layout.name == "rt-detr" and self._layout.form != "shares")
        layout = "" if same else f" {self._layout.name}"
        return f"onnx {self._hash} {self._min_score} {self._person}{layout}"

    @property
    def layout(self) -> str:
        """The name of the output layout."""
        return self._layout.name

    @property
    def advice(self) -> str:
        return (
            f"lower --min-score ({self._min_score}) or --min-height; {self._file} is read as {self._layout.name}, its class "
            f"{self._person} as the person (--person-class)"
        )

    def detect(self, frame: Frame) -> list[Detection]:
        height, width = frame.pixels.shape[:2]
        fitted = self._fit(frame.pixels)
        read = _READERS[self._layout.form](self, self._run(fitted.pixels, (width, height)), fitted, (height, width))
        self._check(read)
        good = read.scores >= self._min_score
        corners = read.corners[good]
        if self._layout.form != "post-processed":  # its boxes are in pixels of the picture already
            corners = (corners - np.tile(fitted.corner, 2)) / np.tile(fitted.step, 2)
        found = [
            Detection(float(x), float(y), float(right - x), float(bottom - y), float(score))
            for (x, y, right, bottom), score in zip(corners, np.clip(read.scores[good], 0, 1), strict=True)
        ]
        if self._layout.name in ("yolox", "yolov5", "yolov8"):
            found = [detection for detection, _ in suppress(found, _OVERLAP)]
        return clip(found, width, height)

    def _picture_input(self) -> tuple[str, tuple[int | None, int | None]]:
        """The name of the input for the picture, and its height and width, None where they are not fixed."""
        named = ", ".join(f"{name} {list(value.shape)} {value.type}" for name, value in self._inputs.items())
        pictures = [name for name, value in self._inputs.items() if len(value.shape) == 4]
        if len(pictures) != 1:
            raise DataError(f"{self._file}: its inputs ({named}) are not one picture (1, 3, height, width)")
        batch, channels, *sides = self._inputs[pictures[0]].shape
        if (isinstance(channels, int) and channels != 3) or (isinstance(batch, int) and batch not in (1, -1)):
            raise DataError(f"{self._file}: takes {named} where one picture (1, 3, height, width) is given; export it again")
        if self._inputs[pictures[0]].type not in _TYPES:
            raise DataError(f"{self._file}: takes {named}; known are pictures of float and float16")
        if others := [name for name in self._inputs if name not in (pictures[0], *_OTHER_INPUTS)]:
            raise DataError(f"{self._file}: has inputs ({named}) of unknown meaning: {', '.join(others)}; export it without them")
        height, width = (side if isinstance(side, int) and side > 0 else None for side in sides)
        return pictures[0], (height, width)

    @property
    def _size(self) -> tuple[int, int]:
        """Height and width of the input: the fixed ones, those in Ultralytics' metadata, or the default."""
        try:
            named = ast.literal_eval(self._metadata.get("imgsz", "None"))
        except (ValueError, SyntaxError):
            named = None
        usual = named if isinstance(named, list) and len(named) == 2 else (_DEFAULT_SIZE, _DEFAULT_SIZE)
        height, width = (fixed or int(open_) for fixed, open_ in zip(self._fixed, usual, strict=True))
        return height, width

    def _recognised(self, given: str | None) -> Layout:
        """Recognises the layout by the outputs for a grey picture."""
        others = [name for name in self._inputs if name != self._image]
        names = [value.name for value in self._session.get_outputs()]
        height, width = self._size
        grey = np.full((height, width, 3), _GREY / 255, np.float32)
        outputs = self._run(grey, (width, height))
        signature = Signature(str(self._file), self._size, others, {name: outputs[name] for name in names}, self._metadata)
        layout = recognise(signature, given)
        if others and layout.form not in ("post-processed", "queries"):
            raise unknown(signature, "")
        return layout

    def _run(self, pixels: np.ndarray, size: tuple[int, int]) -> Outputs:
        """Runs the network. pixels: (height, width, 3), prepared; size: width and height of the original picture."""
        feed = {self._image: np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], _TYPES[self._inputs[self._image].type])}
        for name in self._inputs:
            if name == "orig_target_sizes":
                feed[name] = np.array([size], _NUMBERS.get(self._inputs[name].type, np.int64))
            elif name == "pixel_mask":
                sides = self._inputs[name].shape[1:]
                shape = [side if isinstance(side, int) else own for side, own in zip(sides, pixels.shape[:2], strict=True)]
                feed[name] = np.ones((1, *shape), _NUMBERS.get(self._inputs[name].type, np.int64))
        names = [value.name for value in self._session.get_outputs()]
        try:
            return dict(zip(names, self._session.run(names, feed), strict=True))
        except Exception as error:  # as above
            raise DataError(f"{self._file}: cannot be run on a picture of {self._size} ({_first_line(error)})") from error

    def _fit(self, pixels: np.ndarray) -> Fitted:
        """Prepares a picture for the layout's family."""
        name, (height, width) = self._layout.name, self._size
        if name == "yolox":
            box, scale = letterbox(pixels, self._size)
            return Fitted(box[:, :, ::-1], (scale, scale))
        if name in ("yolov5", "yolov8", "yolov10"):
            return centred(pixels, self._size)
        if name != "rt-detr" and self._fixed == (None, None):
            scale = min(_SHORTEST / min(pixels.shape[:2]), _LONGEST / max(pixels.shape[:2]))
            height, width = (max(1, round(side * scale)) for side in pixels.shape[:2])
        small = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR), np.float32) / 255
        if name != "rt-detr":
            small = (small - _MEAN) / _DEVIATION
        return Fitted(small, (width / pixels.shape[1], height / pixels.shape[0]))

    def _cells(self, outputs: Outputs) -> np.ndarray:
        """The single output as (cells, columns)."""
        values = outputs[self._layout.output][0].astype(np.float64)
        return np.asarray(values.T if self._layout.channels_first else values)

    def _read_yolox(self, outputs: Outputs, fitted: Fitted, picture: tuple[int, int]) -> ScoredBoxes:
        values, size = self._cells(outputs), _size(fitted)
        boxes = values[:, :4]
        if self._layout.form == "raw":
            cells = grid(size[0], size[1], self._layout.strides)
            sizes = np.exp(np.minimum(boxes[:, 2:], 20)) * cells[:, 2:]
            boxes = np.concatenate([(boxes[:, :2] + cells[:, :2]) * cells[:, 2:], sizes], 1)
        return ScoredBoxes(_corners(boxes), self._objects(values)[:, self._person], size)

    def _read_cells(self, outputs: Outputs, fitted: Fitted, picture: tuple[int, int]) -> ScoredBoxes:
        """YOLOv5 (with objectness) and YOLOv8 (without), decoded in pixels."""
        values = self._cells(outputs)
        scores = self._objects(values) if self._layout.name == "yolov5" else values[:, 4:]
        self._check_scores(scores)
        return ScoredBoxes(_corners(values[:, :4]), scores[:, self._person], _size(fitted))

    def _objects(self, values: np.ndarray) -> np.ndarray:
        """(cells, classes): objectness times the score of each class."""
        scores = values[:, 4:5] * values[:, 5:]
        self._check_scores(scores)
        return np.asarray(scores)

    def _read_rows(self, outputs: Outputs, fitted: Fitted, picture: tuple[int, int]) -> ScoredBoxes:
        values = self._cells(outputs)
        return ScoredBoxes(values[:, :4], self._of_person(values[:, 4], values[:, 5]), _size(fitted))

    def _read_shares(self, outputs: Outputs, fitted: Fitted, picture: tuple[int, int]) -> ScoredBoxes:
        values, (height, width) = self._cells(outputs), _size(fitted)
        self._check_scores(values[:, 4:])
        return ScoredBoxes(_corners(values[:, :4] * (width, height, width, height)), values[:, 4 + self._person], (height, width))

    def _read_queries(self, outputs: Outputs, fitted: Fitted, picture: tuple[int, int]) -> ScoredBoxes:
        logits, (height, width) = outputs["logits"][0].astype(np.float64), _size(fitted)
        if self._layout.name == "detr":
            exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
            scores = exponents[:, self._person] / exponents.sum(axis=1)
        else:
            scores = 1 / (1 + np.exp(-logits[:, self._person]))
        boxes = outputs["pred_boxes"][0].astype(np.float64) * (width, height, width, height)
        return ScoredBoxes(_corners(boxes), scores, (height, width))

    def _read_post_processed(self, outputs: Outputs, fitted: Fitted, picture: tuple[int, int]) -> ScoredBoxes:
        labels, scores = (outputs[name][0].astype(np.float64) for name in ("labels", "scores"))
        return ScoredBoxes(outputs["boxes"][0].astype(np.float64), self._of_person(scores, labels), picture)

    def _of_person(self, scores: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """The scores of people; 0 for rows of other classes."""
        self._check_scores(scores)
        sure = classes[scores >= self._min_score]
        if not (np.isfinite(classes).all() and (classes == np.round(classes)).all() and (sure >= 0).all()):
            raise self._wrong("class numbers that are no whole numbers from 0")
        if not self._layout.names and not self._any_class and (sure >= 80).any():
            raise DataError(
                f"{self._file}: gives class {int(sure.max())}, so its classes are not COCO's 80; say which one is the person with "
                "--person-class NUMBER"
            )
        return np.where(classes == self._person, scores, 0.0)

    def _check_scores(self, scores: np.ndarray) -> None:
        if not np.isfinite(scores).all():
            raise self._wrong("scores that are no numbers")
        if scores.size and (scores.min() < -_SLACK or scores.max() > 1 + _SLACK):
            raise self._wrong(f"scores from {scores.min():.3g} to {scores.max():.3g}, which lie in 0 .. 1")

    def _check(self, read: ScoredBoxes) -> None:
        """Raises DataError on outputs that no detector of this layout has."""
        self._check_scores(read.scores)
        corners, (height, width) = read.corners[read.scores >= self._min_score], read.size
        if not len(corners):
            return
        if not np.isfinite(corners).all():
            raise self._wrong("boxes that are no numbers")
        if (corners[:, 2:] - corners[:, :2]).min() < -1:
            raise self._wrong("boxes of negative size")
        if ((corners[:, :2] >= (width, height)) | (corners[:, 2:] <= 0)).any(axis=1).all():
            raise self._wrong(f"boxes outside the picture only (the first at {_place(corners)})")
        if np.abs(corners).max() <= 2 < min(height, width) / 8:
            raise self._wrong(f"boxes in shares of the picture where pixels are expected (the first at {_place(corners)})")

    def _wrong(self, what: str) -> DataError:
        return DataError(
            f"{self._file}: is read as {self._layout.name}, but gives {what}; it is a model of another kind or layout: say which "
            "with --detector-layout NAME, or save your detections as JSON and give that file"
        )


_READERS: Mapping[str, Callable[[OnnxDetector, Outputs, Fitted, tuple[int, int]], ScoredBoxes]] = {
    "raw": OnnxDetector._read_yolox,
    "decoded": OnnxDetector._read_yolox,
    "cells": OnnxDetector._read_cells,
    "rows": OnnxDetector._read_rows,
    "shares": OnnxDetector._read_shares,
    "queries": OnnxDetector._read_queries,
    "post-processed": OnnxDetector._read_post_processed,
}


def letterbox(pixels: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, float]:
    """Resizes a picture into the upper left corner of (height, width), padded with grey; returns it and the scale."""
    scale = min(size[0] / pixels.shape[0], size[1] / pixels.shape[1])
    height, width = (max(1, int(side * scale)) for side in pixels.shape[:2])
    box = np.full((*size, 3), _GREY, np.float32)
    box[:height, :width] = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
    return box, scale


def centred(pixels: np.ndarray, size: tuple[int, int]) -> Fitted:
    """Resizes a picture into the middle of (height, width), padded with grey; values in 0 .. 1."""
    scale = min(size[0] / pixels.shape[0], size[1] / pixels.shape[1])
    height, width = (min(most, max(1, round(side * scale))) for side, most in zip(pixels.shape[:2], size, strict=True))
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    box = np.full((*size, 3), _GREY, np.float32)
    small = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
    box[top : top + height, left : left + width] = np.asarray(small)
    return Fitted(box / 255, (width / pixels.shape[1], height / pixels.shape[0]), (left, top))


def _size(fitted: Fitted) -> tuple[int, int]:
    height, width = fitted.pixels.shape[:2]
    return height, width


def _corners(boxes: np.ndarray) -> np.ndarray:
    """Boxes as left, top, right, bottom, from boxes as centre and size."""
    return np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1)


def _place(corners: np.ndarray) -> str:
    return ", ".join(f"{value:.4g}" for value in corners[0])


def _first_line(error: Any) -> str:
    return str(error).partition("\n")[0][:200]
