"""Layouts of the outputs of ONNX detectors, recognised by exact shapes, names and metadata; other files are refused.

H x W is the size of the input, A the number of grid cells (H/s) x (W/s) for the strides s = 8, 16, 32 (also 64, or 4 to 32), Q the
number of queries, C the number of classes.

yolox             (1, A, 5 + C): centre, size, objectness, classes; in grid units and logarithms as exported, or decoded in pixels
yolov5            (1, 3 A, 5 + C): centre and size in pixels, objectness, classes; also YOLOv7, and YOLOv6 (1, A, 5 + C), whose
                  objectness is always 1
yolov8            (1, 4 + C, A) or (1, A, 4 + C): centre and size in pixels, classes; also YOLOv9, YOLO11 and YOLO12
yolov10           (1, Q, 6): left, top, right, bottom in pixels, score, class; also exports that include suppression
detr              logits (1, Q, C + 1), the last "no object" (softmax), and pred_boxes (1, Q, 4) in 0 .. 1; also YOLOS
conditional-detr  logits (1, Q, C) (sigmoid) and pred_boxes; also Deformable DETR
rt-detr           as conditional-detr without ImageNet's normalisation; or labels, boxes, scores; or Ultralytics' (1, Q, 4 + C);
                  also D-FINE

Models for other tasks have outputs of the same shapes: (1, 56, 8400) is a pose model of one class, or a detector of 52. Without
metadata only 80 classes (COCO) or one are therefore accepted.
"""

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tbps.errors import DataError

LAYOUTS = ("yolox", "yolov5", "yolov8", "yolov10", "detr", "conditional-detr", "rt-detr")
_STRIDES = ((8, 16, 32), (8, 16, 32, 64))
_FINE = (4, 8, 16, 32)  # YOLOv8-P2
_MOST_QUERIES = 1000
_PERSON = frozenset({"person", "persons", "people", "pedestrian", "pedestrians", "human"})
_COCO, _COCO_IDS = 80, (90, 91)  # classes numbered 0 .. 79, or by COCO's ids, which have gaps


@dataclass(frozen=True, slots=True)
class Signature:
    """Inputs and outputs of an ONNX file.

    size: height and width of the input; inputs: names of the inputs other than the picture; outputs: values for a grey picture.
    """

    file: str
    size: tuple[int, int]
    inputs: Sequence[str]
    outputs: Mapping[str, np.ndarray]
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Layout:
    """How to read the outputs of a file.

    form: variant of the layout `name`; classes: number of classes, None when the outputs do not show it; strides: those of the
    grid; channels_first: whether classes come before cells; names: (number, name) of the classes, when the file has them.
    """

    name: str
    form: str
    classes: int | None
    output: str = ""
    strides: tuple[int, ...] = ()
    channels_first: bool = False
    names: tuple[tuple[int, str], ...] = ()


def recognise(signature: Signature, given: str | None) -> Layout:
    """Recognises the layout of a file. given: layout chosen by the user. Raises DataError when the layout is not certain."""
    task = signature.metadata.get("task", "detect").strip().lower()
    if task != "detect":
        raise DataError(
            f"{signature.file}: is a model for {task!r} by its own metadata; only detectors can be used; {_shapes(signature)}"
        )
    names = set(signature.outputs)
    if {"labels", "boxes", "scores"} <= names:
        layout = _post_processed(signature)
    elif {"logits", "pred_boxes"} <= names:
        layout = _queries(signature, given)
    else:
        layout = _one_output(signature, given)
    if given is not None and layout.name != given:
        raise DataError(f"{signature.file}: is {layout.name}, not {given}; {_shapes(signature)}")
    return replace(layout, names=class_names(signature))


def person_of(layout: Layout, file: str, given: int | None) -> int:
    """The number of the person class: as given, by the class names of the file, or by COCO's numbering.

    Raises DataError when none of these decides.
    """
    classes, names = layout.classes, dict(layout.names)
    if given is not None:
        if classes is not None and given >= classes:
            raise DataError(f"{file}: has {classes} classes; --person-class {given} is not one of them")
        return given
    if names:
        people = [number for number, name in names.items() if name.strip().lower() in _PERSON]
        if len(people) == 1:
            return people[0]
        shown = ", ".join(f"{number}: {name}" for number, name in list(names.items())[:20])
        found = f"{len(people)} classes of people" if people else "no class 'person'"
        raise DataError(f"{file}: has {found} ({shown}); say which one with --person-class NUMBER")
    if classes is None or classes in (1, _COCO):
        return 0
    if classes in _COCO_IDS and layout.name in ("detr", "conditional-detr", "rt-detr"):
        return 1
    raise DataError(f"{file}: has {classes} classes without names; say which one is the person with --person-class NUMBER")


def grid(height: int, width: int, strides: tuple[int, ...]) -> np.ndarray:
    """(cells, 4): column, row, stride, stride of every cell, ordered by stride and row."""
    parts = []
    for stride in strides:
        rows, columns = np.mgrid[: height // stride, : width // stride]
        parts.append(np.stack([columns.ravel(), rows.ravel(), *np.full((2, rows.size), stride)], axis=1))
    return np.concatenate(parts).astype(np.float64)


def class_names(signature: Signature) -> tuple[tuple[int, str], ...]:
    """(number, name) of the classes in the metadata of Ultralytics' exports, such as "{0: 'person', 1: 'car'}"."""
    try:
        names = ast.literal_eval(signature.metadata.get("names", "{}"))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return ()
    pairs = names.items() if isinstance(names, dict) else enumerate(names) if isinstance(names, list | tuple) else ()
    return tuple((int(number), str(name)) for number, name in pairs if str(number).isdigit())


def _post_processed(signature: Signature) -> Layout:
    labels, boxes, scores = (signature.outputs[name] for name in ("labels", "boxes", "scores"))
    if len(signature.outputs) > 3 or labels.ndim != 2 or scores.shape != labels.shape or boxes.shape != (*labels.shape, 4):
        raise unknown(signature, "labels, boxes and scores are not (1, queries), (1, queries, 4) and (1, queries)")
    if list(signature.inputs) != ["orig_target_sizes"]:
        raise DataError(f"{signature.file}: has no input for the picture's size (orig_target_sizes); export it with one")
    return Layout("rt-detr", "post-processed", None)


def _queries(signature: Signature, given: str | None) -> Layout:
    logits, boxes = signature.outputs["logits"], signature.outputs["pred_boxes"]
    others = [name for name in signature.outputs if name not in ("logits", "pred_boxes") and "hidden_state" not in name]
    if others or logits.ndim != 3 or boxes.shape != (*logits.shape[:2], 4):
        raise unknown(signature, "only the outputs logits (1, queries, classes) and pred_boxes (1, queries, 4) are allowed")
    columns = logits.shape[2]
    if logits.size and logits.min() >= 0 and logits.max() <= 1:
        raise unknown(signature, "its logits are probabilities already; export it without the last softmax or sigmoid")
    name = given if given in ("detr", "conditional-detr", "rt-detr") else _family(signature, logits[0].astype(np.float64), columns)
    if "pixel_mask" in signature.inputs and name == "rt-detr" and given is None:
        name = "conditional-detr"  # RT-DETR and D-FINE take no mask
    return Layout(name, "queries", columns - 1 if name == "detr" else columns)


def _family(signature: Signature, logits: np.ndarray, columns: int) -> str:
    """The family, by the logits for a grey picture: either "no object" has most of the probability, or every class has little."""
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    no_object = (exponents[:, -1] / exponents.sum(axis=1) > 0.5) & (logits[:, -1] > 0)
    quiet = float((logits.max(axis=1) < 0).mean()) >= 0.5
    if columns > 1 and float(no_object.mean()) >= 0.5:
        return "detr"
    if columns == 92 and not quiet:
        return "detr"
    if columns == 91:
        return "conditional-detr"
    if columns in (1, _COCO) or (quiet and columns != 92):
        return "rt-detr"
    raise unknown(signature, f"it is unclear whether the last of {columns} logits means 'no object'")


def _one_output(signature: Signature, given: str | None) -> Layout:
    """The layout of a file with one output; exports of YOLOv5 may repeat it undecoded in five dimensions."""
    whole = {name: values for name, values in signature.outputs.items() if values.ndim != 5}
    if len(whole) != 1 or signature.inputs:
        masks = any(values.ndim == 4 for values in whole.values())
        raise unknown(signature, "two outputs, one of them a picture, are those of a segmentation" if masks else "")
    ((name, values),) = whole.items()
    if values.ndim != 3 or values.shape[0] != 1:
        raise unknown(signature, "")
    fitting = [replace(layout, output=name) for layout in _fitting(signature.size, values)]
    if len(whole) < len(signature.outputs):
        fitting = [layout for layout in fitting if layout.name == "yolov5"]
    if given is not None:
        fitting = [layout for layout in fitting if layout.name == given]
    names, made_by = class_names(signature), signature.metadata
    if names:
        fitting = [layout for layout in fitting if layout.classes in (None, len(names))]
    if made_by.get("task") is not None or "ultralytics" in made_by.get("author", "").lower():
        fitting = [layout for layout in fitting if layout.name in ("yolov8", "yolov10", "rt-detr")]
    certain = fitting if given is not None or names else [layout for layout in fitting if _certain(layout, values)]
    if len(certain) != 1:
        raise unknown(signature, _why(fitting, bool(names)))
    return certain[0]


def _fitting(size: tuple[int, int], values: np.ndarray) -> list[Layout]:
    """Every layout that a (1, rows, columns) output may have. size: height and width of the input."""
    rows, columns = values.shape[1:]
    cells = {len(grid(*size, strides)): strides for strides in (_FINE, *_STRIDES)}
    found = []
    if rows in cells and columns >= 6 and cells[rows] != _FINE:
        if np.all(values[0, :, 4] == 1):
            found.append(Layout("yolov5", "cells", columns - 5))
        else:
            form = "decoded" if _is_decoded(values, size) else "raw"
            found.append(Layout("yolox", form, columns - 5, strides=cells[rows]))
    if rows in cells and columns >= 5:
        found.append(Layout("yolov8", "cells", columns - 4))
    if columns in cells and rows >= 5:
        found.append(Layout("yolov8", "cells", rows - 4, channels_first=True))
    if rows % 3 == 0 and rows // 3 in cells and cells[rows // 3] != _FINE and columns >= 6:
        found.append(Layout("yolov5", "cells", columns - 5))
    if found or rows > _MOST_QUERIES:
        return found
    if columns == 6:
        found.append(Layout("yolov10", "rows", None))
    elif columns >= 5 and np.abs(values[0, :, :4]).max(initial=0) <= 2:
        found.append(Layout("rt-detr", "shares", columns - 4))
    return found


def _is_decoded(values: np.ndarray, size: tuple[int, int]) -> bool:
    """Whether the boxes of YOLOX are decoded to pixels, so that their centres cover the picture."""
    return bool(np.abs(values[0, :, :2]).max(initial=0) > min(size) / 2)


def _certain(layout: Layout, values: np.ndarray) -> bool:
    """Whether no other model has outputs of this shape, for a file without metadata.

    YOLOX and YOLOv8 with cells first differ by objectness only. YOLOX is recognised by raw boxes, by 80 classes (COCO), or by the
    name that its own exporter gives the output.
    """
    if layout.name == "rt-detr":
        return layout.classes == _COCO
    if layout.name == "yolov8":
        return layout.classes in (1, _COCO)
    if layout.name == "yolox":
        columns = values.shape[2]
        return columns == 5 + _COCO or (columns != 4 + _COCO and (layout.form == "raw" or layout.output == "output"))
    return True


def _why(fitting: Sequence[Layout], named: bool) -> str:
    if not fitting:
        return "the class names in its metadata do not fit either" if named else ""
    options = [f"{layout.name} with {layout.classes} classes" for layout in fitting]
    return f"it could be {' or '.join(options)}, or a model for poses or turned boxes: if you know, say --detector-layout NAME"


def unknown(signature: Signature, why: str) -> DataError:
    """The error about an unknown layout; its message has the shapes found, the known ones, and what the user can do."""
    height, width = signature.size
    (cells, more) = (len(grid(height, width, strides)) for strides in _STRIDES)
    known = (
        f"known are YOLOX (1, {cells} or {more}, 5 + classes), YOLOv5 (1, {3 * cells}, 5 + classes), "
        f"YOLOv8 to YOLO12 (1, 4 + classes, {cells}), YOLOv10 (1, queries, 6) for an input of {height} x {width}, and DETR and "
        "RT-DETR (labels, boxes, scores, or logits, pred_boxes)"
    )
    reason = f"; {why}" if why else ""
    return DataError(
        f"{signature.file}: {_shapes(signature)}, match no known layout with certainty{reason}; {known}; or save your "
        "detections as JSON and give that file"
    )


def _shapes(signature: Signature) -> str:
    named = ", ".join(f"{name} {list(values.shape)}" for name, values in signature.outputs.items())
    more = f" (further inputs: {', '.join(signature.inputs)})" if signature.inputs else ""
    return f"its outputs, {named}{more}"
