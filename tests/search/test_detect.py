"""Detectors: the built-in one on photographs and drawn people, ONNX files whose outputs are known, and detections from JSON."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from walkers import Walker, still, write_detections

from tbps.errors import DataError, SettingsError
from tbps.preprocess.image import open_image
from tbps.search.detect import Detection, Detector, Frame, HogDetector, JsonDetector, iou, open_detector, suppress
from tbps.search.detect_onnx import yolox_grid

PEOPLE = Path(__file__).parents[1] / "people"
# By eye: left, top, width, height of everybody who stands or walks and is higher than a tenth of the picture.
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
    assert (right, wrong) == (6, 1)  # as the decisions say; another OpenCV 4 may differ


def test_the_built_in_detector_finds_a_drawn_person_where_they_are() -> None:
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
    """By counting pixels."""
    canvas = np.zeros((2, 80, 80), bool)
    for plane, d in zip(canvas, (a, b), strict=True):
        plane[int(d.y) : int(d.y + d.height), int(d.x) : int(d.x + d.width)] = True
    return float((canvas[0] & canvas[1]).sum() / (canvas[0] | canvas[1]).sum())


def test_suppression_against_a_slow_one() -> None:
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


def test_only_people_who_are_sure_enough_count(tmp_path: Path) -> None:
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
def test_malformed_detections_are_refused_by_place(tree: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "d.json").write_text(tree)
    with pytest.raises(DataError, match=message):
        open_detector(str(tmp_path / "d.json"))


def test_detectors_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"'yolo' is neither 'hog' nor a .onnx or .json file"):
        open_detector("yolo")
    with pytest.raises(DataError, match="does not exist"):
        open_detector(str(tmp_path / "x.onnx"))
    (tmp_path / "x.onnx").write_bytes(b"no model")
    with pytest.raises(DataError, match="is no ONNX file that can be run"):
        open_detector(str(tmp_path / "x.onnx"))


Probe = tuple[int, int, int, tuple[int, ...]]  # channel, row, column of the input; place in the output that its value is added to


def _onnx(path: Path, side: int, outputs: dict[str, np.ndarray], probes: Sequence[Probe] = (), sizes: bool = False) -> Path:
    """A network whose outputs are known: constants, and in the first of them some of the input's values."""
    nodes, values = [], []
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
    inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, side, side])]
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
    """Anchor 10 (column 2, row 1 of stride 8) sees a person of 16 x 32 around (20, 20), anchor 11 the same less surely,
    anchor 30 a car, anchor 80 (column 0, row 0 of stride 32) a person of 20 x 40 around (32, 32)."""
    grid = yolox_grid(SIDE, SIDE, (8, 16, 32))
    boxes = np.concatenate([(grid[:, :2] + 0.5) * grid[:, 2:], grid[:, 2:]], axis=1)
    boxes[[10, 11, 80]] = [(20, 20, 16, 32), (21, 20, 16, 32), (32, 32, 20, 40)]
    if not decoded:
        boxes = np.concatenate([boxes[:, :2] / grid[:, 2:] - grid[:, :2], np.log(boxes[:, 2:] / grid[:, 2:])], axis=1)
    scores = np.zeros((ANCHORS, 3))
    scores[10], scores[11], scores[30], scores[80] = (0.9, 1.0, 0.1), (0.8, 0.9, 0.1), (0.9, 0.1, 1.0), (0.75, 0.8, 0.0)
    return np.concatenate([boxes, scores], axis=1)[None].astype(np.float32)


@pytest.mark.parametrize("decoded", [True, False])
def test_yolox_boxes_are_decoded_and_scaled_back(decoded: bool, tmp_path: Path) -> None:
    detector = open_detector(str(_onnx(tmp_path / "yolox.onnx", SIDE, {"output": _yolox(decoded)})))
    found = detector.detect(Frame("x", 0, np.zeros((128, 96, 3), np.uint8)))  # shrunk by 2 into 64 x 48
    expected = [(24, 8, 32, 64), (44, 24, 40, 80)]
    assert np.allclose(_boxes(found), expected, atol=1e-3)
    assert [d.score for d in found] == pytest.approx([0.9, 0.6], abs=1e-6)
    cars = open_detector(str(tmp_path / "yolox.onnx"), 0.5, person_class=1).detect(Frame("x", 0, np.zeros((64, 64, 3), np.uint8)))
    assert np.allclose(_boxes(cars), [(6 * 8, 3 * 8, 8, 8)], atol=1e-3) and len(cars) == 1


def test_yolox_sees_blue_first_from_0_to_255_in_the_upper_left_corner_on_grey(tmp_path: Path) -> None:
    """Four values of the input are made the scores (in 256ths) of four anchors that lie apart."""
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
        "logits": np.array([[(2.0, -9.0), (-2.0, 9.0)]], np.float32),
        "pred_boxes": np.array([[(0.5, 0.5, 0.2, 0.4), (0.2, 0.2, 0.1, 0.1)]], np.float32),
    }
    detector = open_detector(str(_onnx(tmp_path / "r.onnx", SIDE, outputs)))
    found = detector.detect(Frame("x", 0, np.zeros((100, 200, 3), np.uint8)))
    assert np.allclose(_boxes(found), [(80, 30, 40, 40)], atol=1e-3)
    assert found[0].score == pytest.approx(1 / (1 + np.exp(-2)), abs=1e-6)


def test_rt_detr_sees_red_first_from_0_to_1_stretched(tmp_path: Path) -> None:
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
            r"99 anchors, which fits no YOLOX with an input of 64 x 64 \(that has 84\)",
        ),
    ],
)
def test_an_unknown_layout_names_its_outputs(outputs: dict[str, np.ndarray], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        open_detector(str(_onnx(tmp_path / "x.onnx", SIDE, outputs)))


def test_a_class_that_the_file_does_not_have(tmp_path: Path) -> None:
    detector = open_detector(str(_onnx(tmp_path / "x.onnx", SIDE, {"output": _yolox(True)})), person_class=2)
    with pytest.raises(DataError, match="has 2 classes; --person-class 2 is none of them"):
        detector.detect(Frame("x", 0, np.asarray(Image.new("RGB", (20, 20)))))


@pytest.mark.parametrize("kind", ["hog", "json", "onnx"])
def test_every_detector_keeps_the_protocol(kind: str, tmp_path: Path) -> None:
    picture, truth = still([Walker(5, 150, 0), Walker(9, 330, 0, tall=200)])
    files = {
        "hog": "hog",
        "json": str(write_detections(tmp_path / "d.json", "x", [truth])),
        "onnx": str(_onnx(tmp_path / "x.onnx", SIDE, {"output": _yolox(False)})),
    }
    first, second = open_detector(files[kind]), open_detector(files[kind], 0.7)
    assert first.fingerprint == open_detector(files[kind]).fingerprint != second.fingerprint
    frame = Frame("x", 0, np.asarray(picture))
    found = first.detect(frame)
    assert found and found == first.detect(frame) == open_detector(files[kind]).detect(frame)
    assert [d.score for d in found] == sorted((d.score for d in found), reverse=True)
    assert all(d.x >= 0 and d.y >= 0 and d.x + d.width <= 480 and d.y + d.height <= 320 and 0 <= d.score <= 1 for d in found)
    assert first.advice
