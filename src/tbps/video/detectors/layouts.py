"""What the outputs of an ONNX detector mean: the layout is told from exact shapes, names and metadata, or the file is refused.

H x W is the size of the input, A the number of grid cells (H/s) x (W/s) over the strides s = 8, 16, 32 (also 64, or 4 to 32), C the
number of classes.

yolox             (1, A, 5 + C): centre, size, objectness, classes; in grid units and logarithms as exported, or decoded in pixels
yolov5            (1, 3 A, 5 + C): centre and size in pixels, objectness, classes; YOLOv7 as well, and YOLOv6 (1, A, 5 + C), whose
                  objectness is always 1
yolov8            (1, 4 + C, A) or (1, A, 4 + C): centre and size in pixels, classes; YOLOv9, YOLO11 and YOLO12 as well
yolov10           (1, Q, 6): left, top, right, bottom in pixels, score, class; every export with its own suppression
detr              logits (1, Q, C + 1), the last "no object" (softmax), and pred_boxes (1, Q, 4) as shares; YOLOS as well
conditional-detr  logits (1, Q, C) (sigmoid) and pred_boxes; Deformable DETR as well
rt-detr           the same without ImageNet's normalisation; or labels, boxes, scores; or Ultralytics' (1, Q, 4 + C). D-FINE as well

Other models of these families have outputs that look alike: (1, 56, 8400) is a pose of one class or a detector of 52. Without
metadata only what is certain is taken: 80 classes (COCO) or one.
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
_COCO, _COCO_IDS = 80, (90, 91)  # numbered 0 .. 79 without gaps, or by COCO's ids with gaps


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a file. outputs: those for a grey picture of `size` (height, width); inputs: names beside the picture's."""

    file: str
    size: tuple[int, int]
    inputs: Sequence[str]
    outputs: Mapping[str, np.ndarray]
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Layout:
    """How outputs are read. form: which variant of `name`; classes: how many, None where the outputs do not tell; strides: of the
    grid; channels_first: classes before cells; names: of the classes, by number, where the file holds them."""

    name: str
    form: str
    classes: int | None
    output: str = ""
    strides: tuple[int, ...] = ()
    channels_first: bool = False
    names: tuple[tuple[int, str], ...] = ()


def recognise(facts: Facts, said: str | None) -> Layout:
    """The layout of a file. said: what the user says that it is. Raises DataError where that cannot be known."""
    task = facts.metadata.get("task", "detect").strip().lower()
    if task != "detect":
        raise DataError(f"{facts.file}: is a model for {task!r} by its own metadata; only detectors can be used; {_shapes(facts)}")
    names = set(facts.outputs)
    if {"labels", "boxes", "scores"} <= names:
        layout = _post_processed(facts)
    elif {"logits", "pred_boxes"} <= names:
        layout = _queries(facts, said)
    else:
        layout = _one_output(facts, said)
    if said is not None and layout.name != said:
        raise DataError(f"{facts.file}: is {layout.name}, not {said}; {_shapes(facts)}")
    return replace(layout, names=class_names(facts))


def person_of(layout: Layout, file: str, said: int | None) -> int:
    """The number of the class 'person': as said, by the names in the file, or by COCO's numbering. Raises DataError."""
    classes, names = layout.classes, dict(layout.names)
    if said is not None:
        if classes is not None and said >= classes:
            raise DataError(f"{file}: has {classes} classes; --person-class {said} is none of them")
        return said
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
    """Column, row, stride, stride of every cell, stride by stride and row by row."""
    parts = []
    for stride in strides:
        rows, columns = np.mgrid[: height // stride, : width // stride]
        parts.append(np.stack([columns.ravel(), rows.ravel(), *np.full((2, rows.size), stride)], axis=1))
    return np.concatenate(parts).astype(np.float64)


def class_names(facts: Facts) -> tuple[tuple[int, str], ...]:
    """The class names in the metadata of Ultralytics' exports, such as "{0: 'person', 1: 'car'}"."""
    try:
        names = ast.literal_eval(facts.metadata.get("names", "{}"))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return ()
    pairs = names.items() if isinstance(names, dict) else enumerate(names) if isinstance(names, list | tuple) else ()
    return tuple((int(number), str(name)) for number, name in pairs if str(number).isdigit())


def _post_processed(facts: Facts) -> Layout:
    labels, boxes, scores = (facts.outputs[name] for name in ("labels", "boxes", "scores"))
    if len(facts.outputs) > 3 or labels.ndim != 2 or scores.shape != labels.shape or boxes.shape != (*labels.shape, 4):
        raise unknown(facts, "labels, boxes and scores are not (1, queries), (1, queries, 4) and (1, queries)")
    if list(facts.inputs) != ["orig_target_sizes"]:
        raise DataError(f"{facts.file}: has no input for the picture's size (orig_target_sizes); export it with one")
    return Layout("rt-detr", "post-processed", None)


def _queries(facts: Facts, said: str | None) -> Layout:
    logits, boxes = facts.outputs["logits"], facts.outputs["pred_boxes"]
    others = [name for name in facts.outputs if name not in ("logits", "pred_boxes") and "hidden_state" not in name]
    if others or logits.ndim != 3 or boxes.shape != (*logits.shape[:2], 4):
        raise unknown(facts, "beside logits (1, queries, classes) and pred_boxes (1, queries, 4) there may be no other")
    columns = logits.shape[2]
    if logits.size and logits.min() >= 0 and logits.max() <= 1:
        raise unknown(facts, "its logits are probabilities already; export it without the last softmax or sigmoid")
    name = said if said in ("detr", "conditional-detr", "rt-detr") else _family(facts, logits[0].astype(np.float64), columns)
    if "pixel_mask" in facts.inputs and name == "rt-detr" and said is None:
        name = "conditional-detr"  # RT-DETR and D-FINE take no mask
    return Layout(name, "queries", columns - 1 if name == "detr" else columns)


def _family(facts: Facts, logits: np.ndarray, columns: int) -> str:
    """By what the outputs say of a grey picture, where most queries see nothing: "no object" is sure, or no class is."""
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
    raise unknown(facts, f"whether the last of {columns} logits means 'no object' cannot be told")


def _one_output(facts: Facts, said: str | None) -> Layout:
    """The families with a single output; exports of YOLOv5 may repeat it undecoded, in five dimensions."""
    whole = {name: values for name, values in facts.outputs.items() if values.ndim != 5}
    if len(whole) != 1 or facts.inputs:
        masks = any(values.ndim == 4 for values in whole.values())
        raise unknown(facts, "two outputs, one of them a picture, are those of a segmentation" if masks else "")
    ((name, values),) = whole.items()
    if values.ndim != 3 or values.shape[0] != 1:
        raise unknown(facts, "")
    fitting = [replace(layout, output=name) for layout in _fitting(facts.size, values)]
    if len(whole) < len(facts.outputs):
        fitting = [layout for layout in fitting if layout.name == "yolov5"]
    if said is not None:
        fitting = [layout for layout in fitting if layout.name == said]
    names, made_by = class_names(facts), facts.metadata
    if names:
        fitting = [layout for layout in fitting if layout.classes in (None, len(names))]
    if made_by.get("task") is not None or "ultralytics" in made_by.get("author", "").lower():
        fitting = [layout for layout in fitting if layout.name in ("yolov8", "yolov10", "rt-detr")]
    certain = fitting if said is not None or names else [layout for layout in fitting if _certain(layout, values)]
    if len(certain) != 1:
        raise unknown(facts, _why(fitting, bool(names)))
    return certain[0]


def _fitting(size: tuple[int, int], values: np.ndarray) -> list[Layout]:
    """Every layout that a (1, rows, columns) output could be."""
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
    """Whether YOLOX's boxes are in pixels already: then their centres lie all over the picture."""
    return bool(np.abs(values[0, :, :2]).max(initial=0) > min(size) / 2)


def _certain(layout: Layout, values: np.ndarray) -> bool:
    """Without metadata: whether no other model has outputs of this shape.

    YOLOX and YOLOv8 with cells first differ by objectness only: raw boxes, COCO's 80 classes and the name that YOLOX's own exporter
    gives its output tell.
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


def unknown(facts: Facts, why: str) -> DataError:
    """The error that names what was found, what is known, and the way out."""
    height, width = facts.size
    (cells, more) = (len(grid(height, width, strides)) for strides in _STRIDES)
    known = (
        f"known are YOLOX (1, {cells} or {more}, 5 + classes), YOLOv5 (1, {3 * cells}, 5 + classes), "
        f"YOLOv8 to YOLO12 (1, 4 + classes, {cells}), YOLOv10 (1, queries, 6) for an input of {height} x {width}, and DETR and "
        "RT-DETR (labels, boxes, scores, or logits, pred_boxes)"
    )
    reason = f"; {why}" if why else ""
    return DataError(
        f"{facts.file}: {_shapes(facts)}, are of no layout that can be told for sure{reason}; {known}; or save your detections as "
        "JSON and give that file"
    )


def _shapes(facts: Facts) -> str:
    named = ", ".join(f"{name} {list(values.shape)}" for name, values in facts.outputs.items())
    more = f" (further inputs: {', '.join(facts.inputs)})" if facts.inputs else ""
    return f"its outputs, {named}{more}"
