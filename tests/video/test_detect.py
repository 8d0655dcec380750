"""Detectors: the built-in one on photographs and drawings, ONNX files with known outputs, and JSON files."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tbps.errors import DataError, SettingsError
from tbps.preprocess.image import open_image
from tbps.video.detectors.hog import HogDetector
from tbps.video.detectors.layouts import grid
from tbps.video.detectors.onnx import OnnxDetector
from tbps.video.detectors.open import open_detector
from tbps.video.detectors.protocol import Detection, Detector, Frame, iou, suppress
from tbps.video.detectors.ready_made import JsonDetector
from tests.support.walkers import Walker, still, write_detections

PEOPLE = Path(__file__).parents[1] / "people"
# Annotated by hand: left, top, width, height of all standing or walking people taller than a tenth of the picture.
SEEN = {
    "person_1.jpg": [(265, 350, 240, 630)],
    "person_2.jpg": [(313, 280, 265, 865), (125, 380, 75, 190), (205, 385, 65, 185)],
    "person_3.jpg": [(195, 95, 375, 1280)],
    "person_4.jpg": [(285, 110, 310, 1110)],
}


def _corners(boxes: Sequence[Sequence[float]]) -> np.ndarray:
    return np.array([(x, y, x + w, y + h) for x, y, w, h in boxes], float).reshape(-1, 4)


def _boxes(found: Sequence[Detection]) -> list[tuple[float, ...]]:
    return [(d.x, d.y, d.width, d.height) for d in found]


def test_the_built_in_detector_on_the_four_photographs() -> None:
    detector, right, wrong = HogDetector(), 0, 0
    for name, boxes in SEEN.items():
        found = detector.detect(Frame(name, 0, np.asarray(open_image(PEOPLE / name))))
        hit = iou(_corners(boxes), _corners(_boxes(found))) > 0.5
        right += int(hit.any(axis=1).sum())
        wrong += int((~hit.any(axis=0)).sum())
        assert [d.score for d in found] == sorted((d.score for d in found), reverse=True)
    assert (right, wrong) == (6, 1)  # as docs/decisions states; another version of OpenCV 4 may differ


def test_the_built_in_detector_finds_a_drawn_person() -> None:
    picture, truth = still([Walker(5, 240, 0)])
    found = HogDetector().detect(Frame("x", 0, np.asarray(picture)))
    assert iou(_corners([truth[0]]), _corners(_boxes(found))).max() > 0.5


def _oracle(found: list[Detection], overlap: float) -> list[Detection]:
    left, kept = sorted(found, key=lambda d: -d.score), []
    while left:
        best, *left = left
        kept.append(best)
        left = [d for d in left if _iou(best, d) <= overlap]
    return kept


def _iou(a: Detection, b: Detection) -> float:
    """IoU of two boxes by counting pixels."""
    canvas = np.zeros((2, 80, 80), bool)
    for plane, d in zip(canvas, (a, b), strict=True):
        plane[int(d.y) : int(d.y + d.height), int(d.x) : int(d.x + d.width)] = True
    return float((canvas[0] & canvas[1]).sum() / (canvas[0] | canvas[1]).sum())


def test_suppression_equals_a_simple_implementation() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        found = [Detection(*map(float, rng.integers(1, 40, 4)), float(rng.random())) for _ in range(25)]
        kept = suppress(found, 0.4)
        assert [d for d, _ in kept] == _oracle(found, 0.4)
        assert sum(support for _, support in kept) == len(found)
        assert suppress(found[::-1], 0.4) == kept


def test_ready_made_detections(tmp_path: Path) -> None:
    truth = [{0: (5.0, 6.0, 20.0, 40.0)}, {}, {0: (-10.0, 6.0, 20.0, 40.0), 1: (200.0, 0.0, 5.0, 5.0)}]
    detector: Detector = open_detector(str(write_detections(tmp_path / "d.json", "a/film.mp4", truth)))
    pixels = np.zeros((60, 100, 3), np.uint8)
    assert _boxes(detector.detect(Frame("a/film.mp4", 0, pixels))) == [(5, 6, 20, 40)]
    assert detector.detect(Frame("a/film.mp4", 1, pixels)) == detector.detect(Frame("film.mp4", 0, pixels)) == []
    assert _boxes(detector.detect(Frame("a/film.mp4", 2, pixels))) == [(0, 6, 10, 40)]  # cut to the picture
    assert "'a/film.mp4'" in detector.advice


def test_detections_below_the_minimum_score_are_dropped(tmp_path: Path) -> None:
    tree = {
        "images": [{"id": "x", "file_name": "a.jpg"}],
        "annotations": [
            {"image_id": "x", "bbox": [0, 0, 10, 10], "category_id": 3, "score": 0.9},
            {"image_id": "x", "bbox": [0, 0, 20, 20], "category_id": 7, "score": 0.9},
            {"image_id": "x", "bbox": [0, 0, 30, 30], "category_id": 3, "score": 0.4},
        ],
        "categories": [{"id": 7, "name": "car"}, {"id": 3, "name": "person"}],
    }
    (tmp_path / "d.json").write_text(json.dumps(tree))
    found = JsonDetector(tmp_path / "d.json", 0.5).detect(Frame("a.jpg", 0, np.zeros((50, 50, 3), np.uint8)))
    assert _boxes(found) == [(0, 0, 10, 10)]


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "the lists 'images' and 'annotations'"),
        ('{"images": [{"id": 1}], "annotations": []}', r"images\[0\] needs"),
        ('{"images": [{"id": 1, "file_name": "a"}], "annotations": [{"image_id": 2, "bbox": [1, 2, 3, 4]}]}', r"annotations\[0\]"),
        ('{"images": [{"id": 1, "file_name": "a"}], "annotations": [{"image_id": 1, "bbox": [1, 2, 3]}]}', r"annotations\[0\]"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1, "name": "car"}]}', "named 'person'"),
    ],
)
def test_malformed_detections_are_refused_with_their_place_in_the_file(tree: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "d.json").write_text(tree)
    with pytest.raises(DataError, match=message):
        open_detector(str(tmp_path / "d.json"))


def test_invalid_detectors(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"'yolo' is neither 'hog' nor a .onnx or .json file"):
        open_detector("yolo")
    with pytest.raises(DataError, match="does not exist"):
        open_detector(str(tmp_path / "x.onnx"))
    (tmp_path / "x.onnx").write_bytes(b"no model")
    with pytest.raises(DataError, match="is no ONNX file that can be run"):
        open_detector(str(tmp_path / "x.onnx"))


Probe = tuple[int, int, int, tuple[int, ...]]  # channel, row, column of an input value; index in the output to which it is added


def _onnx(
    path: Path,
    side: int,
    outputs: dict[str, np.ndarray],
    probes: Sequence[Probe] = (),
    sizes: bool = False,
    half: bool = False,
) -> Path:
    """Writes an ONNX network with constant outputs. `probes` adds values of the input to the first output; `half`: float16."""
    nodes, values = [], []
    if half:
        outputs = {name: constant.astype(np.float16) for name, constant in outputs.items()}
    for number, (name, constant) in enumerate(outputs.items()):
        values.append(numpy_helper.from_array(constant, f"constant{number}"))
        previous = f"constant{number}"
        for index, (channel, row, column, place) in enumerate(probes if number == 0 else ()):
            mask = np.zeros_like(constant)
            mask[place] = 1
            starts, ends = np.array([0, channel, row, column]), np.array([1, channel + 1, row + 1, column + 1])
            for key, value in (("mask", mask), ("starts", starts), ("ends", ends), ("shape", np.array([1] * constant.ndim))):
                values.append(numpy_helper.from_array(value, f"{key}{index}"))
            nodes += [
                helper.make_node("Slice", ["image", f"starts{index}", f"ends{index}"], [f"cut{index}"]),
                helper.make_node("Reshape", [f"cut{index}", f"shape{index}"], [f"value{index}"]),
                helper.make_node("Mul", [f"value{index}", f"mask{index}"], [f"scaled{index}"]),
                helper.make_node("Add", [previous, f"scaled{index}"], [f"sum{index}"]),
            ]
            previous = f"sum{index}"
        nodes.append(helper.make_node("Identity", [previous], [name]))
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    inputs = [helper.make_tensor_value_info("image", kind, [1, 3, side, side])]
    if sizes:
        inputs.append(helper.make_tensor_value_info("orig_target_sizes", TensorProto.INT64, [1, 2]))
    shown = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(constant.dtype), constant.shape)
        for name, constant in outputs.items()
    ]
    graph = helper.make_graph(nodes, "known", inputs, shown, values)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


SIDE = 64
ANCHORS = 8 * 8 + 4 * 4 + 2 * 2


def _yolox(decoded: bool) -> np.ndarray:
    """Output of YOLOX with two people and a car.

    Anchor 10 (column 2, row 1 of stride 8) detects a person of 16 x 32 around (20, 20), anchor 11 the same with a lower score,
    anchor 30 a car, anchor 80 (column 0, row 0 of stride 32) a person of 20 x 40 around (32, 32).
    """
    cells = grid(SIDE, SIDE, (8, 16, 32))
    boxes = np.concatenate([(cells[:, :2] + 0.5) * cells[:, 2:], cells[:, 2:]], axis=1)
    boxes[[10, 11, 80]] = [(20, 20, 16, 32), (21, 20, 16, 32), (32, 32, 20, 40)]
    if not decoded:
        boxes = np.concatenate([boxes[:, :2] / cells[:, 2:] - cells[:, :2], np.log(boxes[:, 2:] / cells[:, 2:])], axis=1)
    scores = np.zeros((ANCHORS, 3))
    scores[10], scores[11], scores[30], scores[80] = (0.9, 1.0, 0.1), (0.8, 0.9, 0.1), (0.9, 0.1, 1.0), (0.75, 0.8, 0.0)
    return np.concatenate([boxes, scores], axis=1)[None].astype(np.float32)


@pytest.mark.parametrize("decoded", [True, False])
def test_yolox_boxes_are_decoded_and_scaled_back(decoded: bool, tmp_path: Path) -> None:
    detector = open_detector(str(_onnx(tmp_path / "yolox.onnx", SIDE, {"output": _yolox(decoded)})), person_class=0)
    found = detector.detect(Frame("x", 0, np.zeros((128, 96, 3), np.uint8)))  # shrunk by 2 into 64 x 48
    expected = [(24, 8, 32, 64), (44, 24, 40, 80)]
    assert np.allclose(_boxes(found), expected, atol=1e-3)
    assert [d.score for d in found] == pytest.approx([0.9, 0.6], abs=1e-6)
    cars = open_detector(str(tmp_path / "yolox.onnx"), 0.5, person_class=1).detect(Frame("x", 0, np.zeros((64, 64, 3), np.uint8)))
    assert np.allclose(_boxes(cars), [(6 * 8, 3 * 8, 8, 8)], atol=1e-3) and len(cars) == 1


def test_the_input_of_yolox(tmp_path: Path) -> None:
    """BGR, 0 .. 255, in the upper left corner of a grey square. Four input values become scores (in 256ths) of four anchors."""
    output = np.zeros((1, ANCHORS, 6), np.float32)
    output[0, :, :4] = _yolox(True)[0, :, :4]
    blue, green, red, grey = 0, 2, 56, 26
    output[0, [blue, green, red, grey], 5] = 1 / 256
    probes = [(0, 2, 2, (0, blue, 4)), (1, 2, 2, (0, green, 4)), (2, 60, 30, (0, red, 4)), (0, 2, 60, (0, grey, 4))]
    detector = open_detector(str(_onnx(tmp_path / "probe.onnx", SIDE, {"output": output}, probes)), min_score=0.01)
    pixels = np.full((80, 40, 3), (200, 100, 50), np.uint8)  # red, green, blue; shrunk to 64 x 32
    found = {(round(d.x * 0.8), round(d.y * 0.8)): round(d.score * 256) for d in detector.detect(Frame("x", 0, pixels))}
    assert found == {(0, 0): 50, (16, 0): 100, (0, 56): 200, (16, 24): 114}


def _rt_detr() -> dict[str, np.ndarray]:
    boxes = np.array([[(10, 20, 30, 60), (0, 0, 5, 5), (50, 10, 80, 90)]], np.float32)
    return {
        "scores": np.array([[0.7, 0.95, 0.3]], np.float32),
        "labels": np.array([[0, 2, 0]], np.int64),
        "boxes": boxes,
    }


def test_rt_detr_as_its_authors_export_it(tmp_path: Path) -> None:
    detector = open_detector(str(_onnx(tmp_path / "r.onnx", SIDE, _rt_detr(), sizes=True)))
    found = detector.detect(Frame("x", 0, np.zeros((120, 90, 3), np.uint8)))
    assert np.allclose(_boxes(found), [(10, 20, 20, 40)]) and found[0].score == pytest.approx(0.7)
    with pytest.raises(DataError, match="orig_target_sizes"):
        open_detector(str(_onnx(tmp_path / "q.onnx", SIDE, _rt_detr()))).detect(Frame("x", 0, np.zeros((9, 9, 3), np.uint8)))


def test_rt_detr_as_hugging_face_exports_it(tmp_path: Path) -> None:
    outputs = {
        "logits": np.pad(np.array([[(2.0, -9.0), (-2.0, 9.0)]], np.float32), ((0, 0), (0, 0), (0, 78)), constant_values=-9),
        "pred_boxes": np.array([[(0.5, 0.5, 0.2, 0.4), (0.2, 0.2, 0.1, 0.1)]], np.float32),
    }
    detector = open_detector(str(_onnx(tmp_path / "r.onnx", SIDE, outputs)))
    found = detector.detect(Frame("x", 0, np.zeros((100, 200, 3), np.uint8)))
    assert np.allclose(_boxes(found), [(80, 30, 40, 40)], atol=1e-3)
    assert found[0].score == pytest.approx(1 / (1 + np.exp(-2)), abs=1e-6)


def test_the_input_of_rt_detr(tmp_path: Path) -> None:
    outputs = _rt_detr()
    outputs["scores"][:] = 0
    probes = [(0, 32, 10, (0, 0)), (2, 32, 60, (0, 2))]
    detector = open_detector(str(_onnx(tmp_path / "r.onnx", SIDE, outputs, probes, sizes=True)), min_score=0.01)
    pixels = np.zeros((200, 100, 3), np.uint8)
    pixels[:, :50], pixels[:, 50:] = (204, 0, 0), (0, 0, 102)
    scores = [d.score for d in detector.detect(Frame("x", 0, pixels))]
    assert scores == pytest.approx([204 / 255, 102 / 255], abs=1e-6)


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({"features": np.zeros((1, 7), np.float32)}, r"features \[1, 7\].*known are YOLOX .* RT-DETR"),
        ({"a": np.zeros((1, 9, 4), np.float32), "b": np.zeros((1, 9), np.float32)}, r"a \[1, 9, 4\], b \[1, 9\]"),
        (
            {"output": np.zeros((1, 99, 85), np.float32)},
            r"output \[1, 99, 85\], match no known layout .* YOLOX \(1, 84 or 85, 5 \+ classes\).* for an input of 64 x 64",
        ),
    ],
)
def test_the_error_for_an_unknown_layout_names_the_outputs(outputs: dict[str, np.ndarray], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        open_detector(str(_onnx(tmp_path / "x.onnx", SIDE, outputs)))


def test_a_person_class_that_the_file_lacks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has 2 classes; --person-class 2 is not one of them"):
        open_detector(str(_onnx(tmp_path / "x.onnx", SIDE, {"output": _yolox(True)})), person_class=2)


@pytest.mark.parametrize("kind", ["hog", "json", "onnx"])
def test_every_detector_follows_the_protocol(kind: str, tmp_path: Path) -> None:
    picture, truth = still([Walker(5, 150, 0), Walker(9, 330, 0, tall=200)])
    files = {
        "hog": "hog",
        "json": str(write_detections(tmp_path / "d.json", "x", [truth])),
        "onnx": str(_onnx(tmp_path / "x.onnx", SIDE, {"output": _yolox(False)})),
    }
    first, second = open_detector(files[kind], 0.5, 0), open_detector(files[kind], 0.7, 0)
    assert first.fingerprint == open_detector(files[kind], 0.5, 0).fingerprint != second.fingerprint
    frame = Frame("x", 0, np.asarray(picture))
    found = first.detect(frame)
    assert found and found == first.detect(frame) == open_detector(files[kind], 0.5, 0).detect(frame)
    assert [d.score for d in found] == sorted((d.score for d in found), reverse=True)
    assert all(d.x >= 0 and d.y >= 0 and d.x + d.width <= 480 and d.y + d.height <= 320 and 0 <= d.score <= 1 for d in found)
    assert first.advice


# Layouts of other families, with an input of NET x NET: at 64 x 64, the output of YOLOv8 with COCO's classes would be square.
NET = 128
CELLS = 16 * 16 + 8 * 8 + 4 * 4

COCO_NAMES = str({0: "person", 1: "bicycle", **{number: f"class {number}" for number in range(2, 80)}})
GREY = Frame("x", 0, np.full((128, 64, 3), 114, np.uint8))
YOLO_BOXES = {7: (64, 64, 32, 80, 0.9), 11: (66, 64, 32, 80, 0.8), 40: (40, 60, 16, 40, 0.6)}


def _meta(path: Path, **metadata: str) -> Path:
    model = onnx.load(path)
    for key, value in metadata.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.save(model, path)
    return path


def _yolov8(classes: int = 80, person: int = 0, cells: int = CELLS, extra: int = 0) -> np.ndarray:
    """(1, 4 + classes + extra, cells): two boxes of one person, one of which is suppressed, another person, and a car."""
    values = np.zeros((1, 4 + classes + extra, cells), np.float32)
    values[0, :4] = np.array([[40], [40], [8], [8]])
    for cell, (x, y, width, height, score) in YOLO_BOXES.items():
        values[0, :4, cell], values[0, 4 + person, cell] = (x, y, width, height), score
    if classes > 1:
        values[0, 4 + (person + 1) % classes, 60] = 0.95
    return values


def _yolov5(classes: int = 80) -> np.ndarray:
    """(1, 3 * cells, 5 + classes): the boxes of `_yolov8` with objectness 0.95, and a box of low objectness."""
    values = np.zeros((1, 3 * CELLS, 5 + classes), np.float32)
    values[0, :, :4] = (40, 40, 8, 8)
    for cell, (x, y, width, height, score) in YOLO_BOXES.items():
        values[0, cell, :6] = (x, y, width, height, 0.95, score / 0.95)
    values[0, 100, 4:6] = (0.1, 1.0)
    return values


def _yolov6(classes: int = 80) -> np.ndarray:
    """(1, cells, 5 + classes): like decoded YOLOX, but with objectness 1 and the input of YOLOv5."""
    scores = _yolov8(classes).transpose(0, 2, 1)
    return np.insert(scores, 4, 1, axis=2)


def _yolov10(person: float = 0.0) -> np.ndarray:
    rows = np.zeros((1, 300, 6), np.float32)
    rows[0, :4] = [
        (48, 24, 80, 104, 0.9, person),
        (0, 0, 120, 120, 0.85, person + 2),
        (32, 40, 48, 80, 0.6, person),
        (32, 40, 48, 80, 0.2, person),
    ]
    return rows


# A picture of height 128 and width 64 is centred in the input, 32 columns from the left edge; the second box begins at its edge.
CENTRED = [(16, 24, 32, 80), (0, 40, 16, 40)]
STRETCHED = [(24, 24, 16, 80), (16, 40, 8, 40)]  # the input is stretched to twice the width


@pytest.mark.parametrize(
    ("outputs", "layout"),
    [
        ({"output0": _yolov8()}, "yolov8"),
        ({"out": _yolov8().transpose(0, 2, 1)}, "yolov8"),
        ({"output": _yolov8().transpose(0, 2, 1)}, "yolov8"),
        ({"output0": _yolov8(1)}, "yolov8"),
        ({"output0": _yolov8(1).transpose(0, 2, 1)}, "yolov8"),
        ({"output0": _yolov5()}, "yolov5"),
        ({"output": _yolov5(1)}, "yolov5"),
        ({"output": _yolov5(), **{str(s): np.zeros((1, 3, s, s, 85), np.float32) for s in (8, 4, 2)}}, "yolov5"),
        ({"outputs": _yolov6()}, "yolov5"),
        ({"output": _yolov6(1)}, "yolov5"),
        ({"output0": _yolov10()}, "yolov10"),
    ],
)
def test_yolo_boxes_in_a_centred_picture_are_scaled_back(outputs: dict[str, np.ndarray], layout: str, tmp_path: Path) -> None:
    detector = open_detector(str(_onnx(tmp_path / "y.onnx", NET, outputs)))
    found = detector.detect(GREY)
    assert isinstance(detector, OnnxDetector) and detector.layout == layout
    assert np.allclose(_boxes(found), CENTRED, atol=1e-3)
    assert [d.score for d in found] == pytest.approx([0.9, 0.6], abs=1e-5)
    assert detector.fingerprint.endswith(f" 0.5 0 {layout}")


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("name", ["output0", "rows"])
def test_the_input_of_yolo_networks(name: str, half: bool, tmp_path: Path) -> None:
    """RGB, 0 .. 1, centred on grey; also for half-precision networks."""
    at = {"red": (0, 64, 60), "green": (1, 64, 60), "blue": (2, 64, 60), "grey": (0, 64, 4)}
    if name == "output0":
        values = _yolov8(1)
        values[0, 4] = 0
        values[0, :4, :4] = np.array([(44, 40, 8, 8), (56, 40, 8, 8), (68, 40, 8, 8), (80, 40, 8, 8)]).T
        probes = [(*place, (0, 4, cell)) for cell, place in enumerate(at.values())]
    else:
        values = np.zeros((1, 300, 6), np.float32)
        values[0, :4, :4] = [(40, 36, 48, 44), (52, 36, 60, 44), (64, 36, 72, 44), (76, 36, 84, 44)]
        probes = [(*place, (0, cell, 4)) for cell, place in enumerate(at.values())]
    path = _onnx(tmp_path / "probe.onnx", NET, {name: values}, probes, half=half)
    pixels = np.full((128, 64, 3), (200, 100, 50), np.uint8)
    found = open_detector(str(path), 0.01).detect(Frame("x", 0, pixels))
    scores = [d.score * 255 for d in sorted(found, key=lambda d: d.x)]
    assert scores == pytest.approx([200, 100, 50, 114], abs=0.2 if half else 1e-3)


def _detr(columns: int, person: int = 1, softmax: bool = True) -> dict[str, np.ndarray]:
    """Outputs of DETR: queries 3 and 5 detect people, query 4 another class, the others nothing."""
    logits = np.full((1, 20, columns), -6, np.float32)
    if softmax:
        logits[0, :, -1] = 8
        logits[0, 3:6, -1] = 0
    logits[0, 3, person], logits[0, 5, person], logits[0, 4, (person + 1) % columns] = 4, 2, 6
    boxes = np.full((1, 20, 4), 0.1, np.float32)
    boxes[0, [3, 5]] = [(0.5, 0.5, 0.25, 0.625), (20 / 64, 30 / 64, 8 / 64, 20 / 64)]
    return {"logits": logits, "pred_boxes": boxes}


def _sigmoid(x: float) -> float:
    return float(1 / (1 + np.exp(-x)))


@pytest.mark.parametrize(
    ("outputs", "layout", "scores"),
    [
        # DETR: softmax over 92 logits, which are 4 or 2 for the person, 0 for "no object", and -6 for 90 other classes
        (_detr(92), "detr", [np.exp(4) / (np.exp(4) + 1 + 90 * np.exp(-6)), np.exp(2) / (np.exp(2) + 1 + 90 * np.exp(-6))]),
        (_detr(91), "detr", [np.exp(4) / (np.exp(4) + 1 + 89 * np.exp(-6)), np.exp(2) / (np.exp(2) + 1 + 89 * np.exp(-6))]),
        (_detr(81, 0), "detr", [np.exp(4) / (np.exp(4) + 1 + 79 * np.exp(-6)), np.exp(2) / (np.exp(2) + 1 + 79 * np.exp(-6))]),
        (_detr(91, 1, False), "conditional-detr", [_sigmoid(4), _sigmoid(2)]),
        (_detr(80, 0, False), "rt-detr", [_sigmoid(4), _sigmoid(2)]),
        (_detr(1, 0, False) | {"logits": _detr(2, 0, False)["logits"][:, :, :1]}, "rt-detr", [_sigmoid(4), _sigmoid(2)]),
    ],
)
def test_scores_of_detr_networks_by_softmax_and_sigmoid(
    outputs: dict[str, np.ndarray], layout: str, scores: list[float], tmp_path: Path
) -> None:
    detector = open_detector(str(_onnx(tmp_path / "d.onnx", NET, outputs)))
    found = detector.detect(GREY)
    assert isinstance(detector, OnnxDetector) and detector.layout == layout
    assert np.allclose(_boxes(found), STRETCHED, atol=1e-3)
    assert [d.score for d in found] == pytest.approx(scores, abs=1e-6)


@pytest.mark.parametrize(("columns", "softmax"), [(92, True), (91, False), (80, False)])
def test_the_input_of_detr_networks(columns: int, softmax: bool, tmp_path: Path) -> None:
    """Stretched, RGB, 0 .. 1; for DETR normalised by ImageNet's mean and standard deviation. The logits carry input values."""
    outputs = _detr(columns, 1 if columns > 80 else 0, softmax)
    person = 1 if columns > 80 else 0
    outputs["logits"][0, 3:6] = -60
    outputs["pred_boxes"][0, :3] = [(0.2, 0.5, 0.1, 0.1), (0.5, 0.5, 0.1, 0.1), (0.8, 0.5, 0.1, 0.1)]
    outputs["logits"][0, :3] = -60
    if softmax:
        outputs["logits"][0, :3, -1] = 0
    outputs["logits"][0, :3, person] = 0
    probes = [(channel, 80, 40, (0, channel, person)) for channel in range(3)]
    path = _onnx(tmp_path / "d.onnx", NET, outputs, probes)
    pixels = np.full((128, 64, 3), (200, 100, 50), np.uint8)
    found = open_detector(str(path), 0.05).detect(Frame("x", 0, pixels))
    shown = [np.log(d.score / (1 - d.score)) for d in sorted(found, key=lambda d: d.x)]
    expected = np.array([200, 100, 50]) / 255
    if columns != 80:
        expected = (expected - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    assert shown == pytest.approx(expected, abs=1e-3)


def test_a_file_with_a_pixel_mask_gets_one_and_imagenets_normalisation(tmp_path: Path) -> None:
    path = _onnx(tmp_path / "d.onnx", NET, _detr(80, 0, False))
    model = onnx.load(path)
    model.graph.input.append(helper.make_tensor_value_info("pixel_mask", TensorProto.INT64, [1, NET, NET]))
    onnx.save(model, path)
    detector = open_detector(str(path))
    assert isinstance(detector, OnnxDetector) and detector.layout == "conditional-detr"
    assert np.allclose(_boxes(detector.detect(GREY)), STRETCHED, atol=1e-3)


@pytest.mark.parametrize(
    ("metadata", "outputs", "person"),
    [
        ({"names": COCO_NAMES, "task": "detect", "stride": "32"}, {"output0": _yolov8()}, 0),
        ({"names": "{0: 'car', 1: 'Person', 2: 'dog'}", "task": "detect"}, {"output0": _yolov8(3, 1)}, 1),
        ({"names": "{0: 'car', 1: 'person', 2: 'dog'}", "task": "detect"}, {"x": _yolov8(3, 1).transpose(0, 2, 1)}, 1),
        ({"names": "['helmet', 'pedestrian']", "stride": "32"}, {"output0": _yolov8(2, 1)}, 1),
        ({"names": "{0: 'x', 1: 'y', 5: 'person'}", "task": "detect"}, {"output0": _yolov10(5)}, 5),
        ({"author": "Ultralytics"}, {"output": _yolov8().transpose(0, 2, 1)}, 0),
    ],
)
def test_class_names_and_layout_by_metadata(
    metadata: dict[str, str], outputs: dict[str, np.ndarray], person: int, tmp_path: Path
) -> None:
    detector = open_detector(str(_meta(_onnx(tmp_path / "y.onnx", NET, outputs), **metadata)))
    assert np.allclose(_boxes(detector.detect(GREY)), CENTRED, atol=1e-3)
    assert f" {person} yolov" in detector.fingerprint


def test_rt_detr_of_ultralytics(tmp_path: Path) -> None:
    values = np.zeros((1, 300, 84), np.float32)
    values[0, 5, :5] = (0.5, 0.5, 0.25, 0.625, 0.9)
    values[0, 6, :4], values[0, 6, 9] = (0.1, 0.1, 0.1, 0.1), 0.9
    found = open_detector(str(_onnx(tmp_path / "r.onnx", NET, {"output0": values}))).detect(GREY)
    assert np.allclose(_boxes(found), STRETCHED[:1], atol=1e-3)


NOT_DETECTORS: dict[str, tuple[dict[str, np.ndarray], dict[str, str]]] = {
    "pose": ({"output0": _yolov8(1, extra=51)}, {}),
    "pose, by metadata": ({"output0": _yolov8(1, extra=51)}, {"task": "pose", "names": "{0: 'person'}"}),
    "pose without suppression": ({"output0": np.zeros((1, 300, 57), np.float32)}, {}),
    "segmentation": ({"output0": _yolov8(80, extra=32), "output1": np.zeros((1, 32, 16, 16), np.float32)}, {}),
    "segmentation without prototypes": ({"output0": _yolov8(80, extra=32)}, {}),
    "turned boxes": ({"output0": _yolov8(1, extra=1)}, {}),
    "turned boxes, by metadata": ({"output0": _yolov8(80, extra=1)}, {"task": "obb", "names": COCO_NAMES}),
    "turned boxes without suppression": ({"output0": np.zeros((1, 300, 7), np.float32)}, {}),
    "classification": ({"output0": np.zeros((1, 1000), np.float32)}, {}),
    "classification, by metadata": ({"output0": np.zeros((1, 80), np.float32)}, {"task": "classify", "names": COCO_NAMES}),
    "YOLOv8 with two classes and cells first, or YOLOX with one": ({"output0": _yolov8(2).transpose(0, 2, 1)}, {}),
    "YOLOv8 of another input, YOLOX of another": ({"output": np.zeros((1, 3549, 85), np.float32)}, {}),
    "YOLOv8 of another input": ({"output0": _yolov8(80, cells=8400)}, {}),
    "class names that do not fit": ({"output0": _yolov8(80)}, {"names": "{0: 'person'}", "task": "detect"}),
    "distances not decoded": ({"output0": _yolov8(80, extra=60)}, {}),
    "two outputs": ({"boxes": np.zeros((1, CELLS, 4), np.float32), "scores": np.zeros((1, CELLS, 80), np.float32)}, {}),
    "rows without a batch": ({"output": np.zeros((100, 7), np.float32)}, {}),
    "Faster R-CNN": (
        {"boxes": np.zeros((9, 4), np.float32), "labels": np.zeros(9, np.int64), "scores": np.zeros(9, np.float32)},
        {},
    ),
    "DETR with masks": ({**_detr(92), "pred_masks": np.zeros((1, 20, 9, 9), np.float32)}, {}),
    "probabilities, not logits": (
        {"logits": np.full((1, 9, 80), 0.01, np.float32), "pred_boxes": np.zeros((1, 9, 4), np.float32)},
        {},
    ),
    "queries in doubt": ({"logits": np.full((1, 9, 7), 2, np.float32), "pred_boxes": np.zeros((1, 9, 4), np.float32)}, {}),
}


@pytest.mark.parametrize("kind", NOT_DETECTORS)
def test_unknown_detectors_are_refused_by_their_shapes(kind: str, tmp_path: Path) -> None:
    outputs, metadata = NOT_DETECTORS[kind]
    path = _meta(_onnx(tmp_path / "x.onnx", NET, outputs), **metadata)
    with pytest.raises(DataError) as refused:
        open_detector(str(path))
    name, values = next(iter(outputs.items()))
    assert f"{name} {list(values.shape)}" in str(refused.value) and str(path) in str(refused.value)


@pytest.mark.parametrize(
    ("outputs", "metadata", "message"),
    [
        ({"output0": _yolov5(7)}, {}, "has 7 classes without names; say which one is the person with --person-class"),
        ({"output0": _yolov8(2)}, {"names": "{0: 'cat', 1: 'dog'}"}, r"no class 'person' \(0: cat, 1: dog\)"),
        ({"output0": _yolov8(1)}, {"names": "{0: 'face'}"}, r"no class 'person' \(0: face\)"),
        ({"output0": _yolov8(2)}, {"names": "{0: 'person', 1: 'people'}"}, "has 2 classes of people"),
    ],
)
def test_which_class_is_the_person_is_never_guessed(
    outputs: dict[str, np.ndarray], metadata: dict[str, str], message: str, tmp_path: Path
) -> None:
    path = _meta(_onnx(tmp_path / "x.onnx", NET, outputs), **metadata)
    with pytest.raises(DataError, match=message):
        open_detector(str(path))
    assert np.allclose(_boxes(open_detector(str(path), person_class=0).detect(GREY)), CENTRED, atol=1e-3)


def test_the_layout_can_be_given(tmp_path: Path) -> None:
    two = str(_onnx(tmp_path / "two.onnx", NET, {"output0": _yolov8(2, 1).transpose(0, 2, 1)}))
    detector = open_detector(two, person_class=1, layout="yolov8")
    assert np.allclose(_boxes(detector.detect(GREY)), CENTRED, atol=1e-3)
    with pytest.raises(DataError, match=r"output0 \[1, 336, 6\], match no known layout"):
        open_detector(two, layout="yolov5")
    with pytest.raises(DataError, match=r"could be yolox with 1 classes or yolov8 with 2 classes.*--detector-layout NAME"):
        open_detector(two)
    with pytest.raises(SettingsError, match="'yolo' is none of yolox, yolov5, yolov8, yolov10, detr, conditional-detr, rt-detr"):
        open_detector(two, layout="yolo")
    detr = str(_onnx(tmp_path / "detr.onnx", NET, _detr(92)))
    with pytest.raises(DataError, match="is detr, not yolox"):
        open_detector(detr, layout="yolox")


def test_an_output_with_as_many_rows_as_columns_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"output0 \[1, 84, 84\], match no known layout.*yolov8 with 80 classes or yolov8 with 80"):
        open_detector(str(_onnx(tmp_path / "x.onnx", 64, {"output0": np.zeros((1, 84, 84), np.float32)})))


def _changed(values: np.ndarray, *changes: tuple[tuple[int, ...], float]) -> np.ndarray:
    values = values.copy()
    for place, value in changes:
        values[place] = value
    return values


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({"output0": _changed(_yolov8(1), ((0, 4, 7), 1.5))}, "scores from 0 to 1.5, which lie in 0 .. 1"),
        ({"output0": _changed(_yolov8(), ((0, 30, 9), -0.5))}, "scores from -0.5"),
        ({"output0": _changed(_yolov8(), ((0, 30, 9), np.nan))}, "scores that are no numbers"),
        ({"output0": _changed(_yolov8(), ((0, 0, 7), np.nan))}, "boxes that are no numbers"),
        ({"output0": _changed(_yolov8(), ((0, 2, 7), -9))}, "boxes of negative size"),
        ({"output0": _changed(_yolov8(), *(((0, 0, c), 900) for c in YOLO_BOXES))}, "boxes outside the picture only"),
        ({"output0": _changed(_yolov10(), ((0, 0, 5), 0.5))}, "no whole numbers"),
        ({"output0": _changed(_yolov10(), ((0, 0, 4), 17.0))}, "scores from 0 to 17"),
        ({"output0": _changed(_yolov10(), ((0, 0, 2), 3.0))}, "boxes of negative size"),
        ({"output0": _changed(_yolov10(), ((0, 0, 5), 89.0))}, "gives class 89, so its classes are not COCO's 80"),
        ({"output0": _yolov10() / np.array([128, 128, 128, 128, 1, 1], np.float32)}, "boxes in shares of the picture"),
        ({**_rt_detr(), "scores": np.array([[0.7, 3.0, 0.3]], np.float32)}, "scores from 0.3 to 3"),
        ({**_detr(92), "pred_boxes": _detr(92)["pred_boxes"] * 640}, "boxes outside the picture only"),
    ],
)
def test_impossible_outputs_are_errors(outputs: dict[str, np.ndarray], message: str, tmp_path: Path) -> None:
    detector = open_detector(str(_onnx(tmp_path / "x.onnx", NET, outputs, sizes="labels" in outputs)))
    with pytest.raises(DataError, match=message):
        detector.detect(GREY)


@pytest.mark.parametrize(
    ("shape", "kind", "message"),
    [
        ([1, 128, 128, 3], TensorProto.FLOAT, r"where one picture \(1, 3, height, width\) is given"),
        ([4, 3, 128, 128], TensorProto.FLOAT, r"where one picture \(1, 3, height, width\) is given"),
        ([1, 3, 128, 128], TensorProto.UINT8, "known are pictures of float and float16"),
        ([3, 128, 128], TensorProto.FLOAT, r"are not one picture \(1, 3, height, width\)"),
    ],
)
def test_inputs_that_are_not_one_picture(shape: list[int], kind: int, message: str, tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["constant"], ["output0"])],
        "known",
        [helper.make_tensor_value_info("image", kind, shape)],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, 84, CELLS])],
        [numpy_helper.from_array(_yolov8(), "constant")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), tmp_path / "x.onnx")
    with pytest.raises(DataError, match=message):
        open_detector(str(tmp_path / "x.onnx"))


def test_an_unknown_second_input_is_refused(tmp_path: Path) -> None:
    path = _onnx(tmp_path / "x.onnx", NET, {"output0": _yolov8()})
    model = onnx.load(path)
    model.graph.input.append(helper.make_tensor_value_info("scale_factor", TensorProto.FLOAT, [1, 2]))
    onnx.save(model, path)
    with pytest.raises(DataError, match="of unknown meaning: scale_factor"):
        open_detector(str(path))


def test_a_file_with_an_open_input_size_is_run_at_the_size_in_its_metadata(tmp_path: Path) -> None:
    path = _onnx(tmp_path / "y.onnx", NET, {"output0": _yolov8()})
    model = onnx.load(path)
    for number, name in ((2, "height"), (3, "width")):
        model.graph.input[0].type.tensor_type.shape.dim[number].dim_param = name
    onnx.save(model, path)
    with pytest.raises(DataError, match="for an input of 640 x 640"):  # an input of 640 x 640 would give 8400 cells
        open_detector(str(path))
    detector = open_detector(str(_meta(path, imgsz="[128, 128]")))
    assert np.allclose(_boxes(detector.detect(GREY)), CENTRED, atol=1e-3)


NANO = Path(__file__).parents[3] / "shared" / "data" / "detectors" / "yolox_nano.onnx"


@pytest.mark.skipif(not NANO.is_file(), reason="needs YOLOX-nano beside the checkout: ../shared/data/detectors/yolox_nano.onnx")
def test_a_real_yolox_finds_ten_people_on_the_four_photographs() -> None:
    detector = open_detector(str(NANO), 0.3)
    found = {name: detector.detect(Frame(name, 0, np.asarray(open_image(PEOPLE / name)))) for name in SEEN}
    assert sum(map(len, found.values())) == 10
    for name, boxes in SEEN.items():
        assert (iou(_corners(boxes[:1]), _corners(_boxes(found[name]))) > 0.5).any()
