"""Whole numbers keep all digits in metadata, filters, groups, hits and exports; identities and cameras that are numbers."""

import json
from pathlib import Path
from typing import Any

import lancedb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbps.errors import AnnotationError, DataError, QueryError
from tbps.gallery.gallery import Gallery
from tbps.gallery.lifecycle.info import describe
from tbps.gallery.lifecycle.transfer import export, import_export
from tbps.gallery.search.query import Query, Text
from tbps.gallery.store.columns import plan_columns, row_metadata
from tbps.gallery.store.layout import table_of
from tbps.gallery.store.manifest import MANIFEST_FILE
from tbps.gallery.store.numbers import as_double, as_integer, canonical_name, parse_number, spellings
from tbps.preprocess.metadata import strict_json
from tbps.video.detectors.ready_made import JsonDetector
from tests.support.colour_encoder import ColourEncoder, write_pictures

TEXT = (Text(text="someone"),)
BIG = 2**53
NEAR = [BIG - 1, BIG, BIG + 1, BIG + 2, BIG + 3, -BIG - 1, 2**63 - 1, -(2**63), 7]


def filled(folder: Path, rows: list[dict[str, Any]]) -> Gallery:
    """A gallery of pictures with metadata lines, read from a file as `tbps index` does."""
    write_pictures(folder / "photos", len(rows))
    lines = [json.dumps({"file_name": f"{number:04d}.jpg", **row}) + "\n" for number, row in enumerate(rows)]
    (folder / "photos" / "metadata.jsonl").write_text("".join(lines))
    gallery = Gallery.open(folder / "gallery", ColourEncoder())
    gallery.add(folder / "photos")
    return gallery


def numbers(gallery: Gallery, where: str, **more: Any) -> list[int]:
    page = gallery.find(Query(texts=TEXT, k=99, where=where, **more))
    return sorted(int(hit.source[:4]) for hit in page.hits)


def stored(gallery: Gallery, name: str) -> str:
    return str(lancedb.connect(gallery.path).open_table("images").schema.field(name).type)


@pytest.fixture(scope="module")
def near(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    return filled(tmp_path_factory.mktemp("near"), [{"serial": value} for value in NEAR])


def test_neighbouring_numbers_are_distinguished(near: Gallery) -> None:
    assert stored(near, "serial") == "int64" and near.info().columns["serial"] == "number"
    for place, value in enumerate(NEAR):
        assert numbers(near, f"serial = {value}") == numbers(near, f"serial in ({value}, 12345)") == [place]
        assert numbers(near, f"serial <> {value}") == [n for n in range(len(NEAR)) if n != place]
        for sign, expected in (
            ("<", [n for n, v in enumerate(NEAR) if v < value]),
            (">=", [n for n, v in enumerate(NEAR) if v >= value]),
        ):
            assert numbers(near, f"serial {sign} {value}") == expected, (sign, value)
        for asked in (value, str(value)):
            page = near.find(Query(texts=TEXT, equals={"serial": asked}))
            assert [hit.attributes["serial"] for hit in page.hits] == [value]
        report = near.forget(f"serial = {value}", dry_run=True)
        assert (report.images, report.sample[0].source) == (1, f"{place:04d}.jpg")
    assert numbers(near, "serial = 9007199254740993.0") == [2]
    assert numbers(near, "serial > 9007199254740992.5 and serial < 9007199254740994") == [2]
    assert numbers(near, f"serial > {2**63 - 1}") == numbers(near, f"serial = {2**64}") == numbers(near, "serial < -1e30") == []


def test_groups_hits_and_exports_keep_all_digits(near: Gallery, tmp_path: Path) -> None:
    page = near.find(Query(texts=TEXT, k=99, group="serial"))
    assert page.total == len(NEAR)
    assert {hit.group.value for hit in page.hits if hit.group} == set(NEAR)
    assert {hit["attributes"]["serial"] for hit in json.loads(json.dumps(page.as_dict()))["hits"]} == set(NEAR)
    summary = near.summary()
    assert summary is not None
    (column,) = [column for column in summary.columns if column.name == "serial"]
    assert column.kind == "number" and set(column.values or ()) == set(NEAR)
    export(near.path, tmp_path / "copy.tar")
    assert import_export(tmp_path / "again", tmp_path / "copy.tar", ColourEncoder()).notes == ()
    again = Gallery.open(tmp_path / "again", ColourEncoder())
    assert stored(again, "serial") == "int64"
    for place, value in enumerate(NEAR):
        assert numbers(again, f"serial = {value}") == [place]


def test_forgetting_by_number_keeps_neighbouring_numbers(tmp_path: Path) -> None:
    gallery = filled(tmp_path, [{"serial": value} for value in (BIG, BIG + 1, BIG + 2)])
    assert gallery.forget(f"serial = {BIG + 1}").images == 1
    assert sorted(hit.attributes["serial"] for hit in gallery.search("x", 9)) == [BIG, BIG + 2]


def test_a_column_of_doubles_from_version_0_1(tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "photos", 8)
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    gallery.add([pictures[0]], [{"x": "text"}])
    table = table_of(gallery.path / MANIFEST_FILE)
    assert table is not None
    table.add_columns({"serial": "number"})  # as version 0.1 stored every number
    report = gallery.add(list(pictures[1:]), [{"serial": value} for value in (BIG, BIG + 1, BIG + 2, 3, 2.5, 10**30, "x")])
    assert report.added == 7
    assert report.notes == ("column 'serial' is a number; 3 other values are kept in attributes only",)
    assert stored(gallery, "serial") == "double"
    assert numbers(gallery, f"serial = {BIG}") == [1], "not the neighbour, which a double cannot hold"
    assert numbers(gallery, f"serial = {BIG + 1}") == numbers(gallery, f"serial in ({BIG + 1}, {BIG + 3})") == []
    assert gallery.find(Query(texts=TEXT, equals={"serial": BIG + 1})).total == 0
    assert gallery.forget(f"serial = {BIG + 1}", dry_run=True).images == 0
    assert numbers(gallery, f"serial > {BIG + 1}") == numbers(gallery, f"serial >= {BIG + 1}") == [3]
    assert numbers(gallery, f"serial <> {BIG + 1} and serial < {BIG + 1}") == [1, 4, 5]


def test_numbers_that_a_double_cannot_hold_are_reported(tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "photos", 2)
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    gallery.add([pictures[0]], [{"serial": 1.5}])
    report = gallery.add([pictures[1]], [{"serial": BIG + 1}])
    assert report.notes == ("column 'serial' is a number; 1 other values are kept in attributes only",)
    assert {hit.attributes["serial"] for hit in gallery.search("x", 2)} == {1.5, BIG + 1}


@pytest.mark.parametrize(
    ("values", "kind", "kept", "note"),
    [
        ([1, 2], "integer", [1, 2], None),
        ([1, 2.5], "number", [1.0, 2.5], None),
        ([1.0, 2.0], "number", [1.0, 2.0], None),
        ([BIG, 0.5], "number", [float(BIG), 0.5], None),
        ([BIG + 1, 0.5, 7.0], "text", ["9007199254740993", "0.5", "7"], "1 whole numbers whose digits a double cannot hold"),
        ([1, 2**63], "text", ["1", "9223372036854775808"], "1 of its whole numbers exceed 64 bits"),
        ([-(2**63), 2**63 - 1], "integer", [-(2**63), 2**63 - 1], None),
        ([True, 1], "text", ["true", "1"], None),
        ([1, "a"], "text", ["1", "a"], None),
        ([10**400, 1], "text", [str(10**400), "1"], "exceed 64 bits"),
    ],
)
def test_kinds_of_new_columns(values: list[Any], kind: str, kept: list[Any], note: str | None) -> None:
    for order in (values, values[::-1]):
        plan = plan_columns([{"n": value} for value in order], {})
        assert plan.kinds == {"n": kind}
        assert len(plan.notes) == (note is not None) and all(note in each for each in plan.notes if note)
    found = [row_metadata({"n": value}, plan.kinds).extras["n"] for value in values]
    assert found == kept and [type(each) for each in found] == [type(each) for each in kept]
    assert [json.loads(row_metadata({"n": value}, plan.kinds).attributes)["n"] for value in values] == values


def test_fractions_in_a_column_of_whole_numbers(tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "photos", 6)
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    gallery.add(list(pictures[:2]), [{"size": 3, "serial": BIG + 1}, {"size": 4}])
    before = gallery.find(Query(texts=TEXT))
    report = gallery.add(list(pictures[2:4]), [{"size": 3.5}, {"serial": 0.5}])
    assert report.notes == ("column 'serial' is a column of whole numbers of 64 bits; 1 other values are kept in attributes only",)
    assert (stored(gallery, "size"), stored(gallery, "serial")) == ("double", "int64")
    assert numbers(gallery, "size >= 3.5") == [1, 2] and numbers(gallery, "size = 3") == [0]
    assert numbers(gallery, f"serial = {BIG + 1}") == [0]
    assert [hit.id for hit in gallery.find(Query(texts=TEXT)).hits if hit.source in ("0000.jpg", "0001.jpg")] == [
        hit.id for hit in before.hits
    ]
    assert gallery.add(list(pictures[4:]), [{"size": 5.0, "serial": 8.0}, {"size": 6}]).notes == ()
    assert numbers(gallery, "size > 4 and size < 7") == [4, 5] and numbers(gallery, "serial = 8") == [4]


@pytest.mark.parametrize("after", ["added", "dropped"])
def test_a_kill_while_a_column_is_widened_loses_nothing(after: str, tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "photos", 3)
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    gallery.add(list(pictures[:2]), [{"size": 3}, {"size": 4}])
    table = lancedb.connect(gallery.path).open_table("images")  # the state that the killed writer left
    table.add_columns({"WIDENED_size": "cast(`size` as double)"})
    if after == "dropped":
        table.drop_columns(["size"])
    assert "WIDENED_size" not in gallery.info().columns
    assert len(gallery.find(Query(texts=TEXT)).hits) == 2
    gallery.add([pictures[2]], [{"size": 3.5}])
    assert stored(gallery, "size") == "double" and numbers(gallery, "size > 3") == [1, 2] and numbers(gallery, "size < 3.5") == [0]
    assert "WIDENED_size" not in lancedb.connect(gallery.path).open_table("images").schema.names


def test_an_export_of_doubles_into_whole_numbers_and_back(tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "photos", 6)
    whole, double = (Gallery.open(tmp_path / name, ColourEncoder()) for name in ("whole", "double"))
    whole.add(list(pictures[:3]), [{"serial": value} for value in (BIG + 1, 5, 6)])
    double.add(list(pictures[3:]), [{"serial": value} for value in (7.0, 8.5, 9.0)])
    export(whole.path, tmp_path / "whole.tar")
    export(double.path, tmp_path / "double.tar")
    told = "column 'serial' is a column of whole numbers of 64 bits; 1 other values are kept in attributes only"
    assert import_export(whole.path, tmp_path / "double.tar").notes == (told,)
    assert numbers(whole, "serial > 6") == [0, 3, 5]
    told = "column 'serial' is a number; 1 other values are kept in attributes only"
    assert import_export(double.path, tmp_path / "whole.tar").notes == (told,)
    assert numbers(double, "serial > 5") == [2, 3, 4, 5] and describe(double.path).columns["serial"] == "number"


@pytest.mark.parametrize("content", ['{"file_name": "0000.jpg", "n": 1e999}', '{"file_name": "0000.jpg", "n": [{"a": -1e400}]}'])
def test_numbers_that_are_not_finite_are_refused_in_metadata_files(content: str, tmp_path: Path) -> None:
    write_pictures(tmp_path / "photos", 1)
    (tmp_path / "photos" / "metadata.jsonl").write_text(content)
    with pytest.raises(AnnotationError, match="line 1"):
        Gallery.open(tmp_path / "gallery", ColourEncoder()).add(tmp_path / "photos")


def test_nan_from_python_is_left_out(tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "photos", 2)
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    nan = float("nan")
    report = gallery.add(list(pictures), [{"age": nan, "camera": nan, "deep": [nan]}, {"age": 4, "identity": float("inf")}])
    assert report.notes == (
        "column 'age': 1 values are NaN, infinite or of more than 4,096 bits and were left out",
        "column 'camera': 1 values are NaN, infinite or of more than 4,096 bits and were left out",
        "column 'identity': 1 values are NaN, infinite or of more than 4,096 bits and were left out",
    )
    for hit in gallery.search("x", 2):
        assert json.loads(json.dumps(hit.as_dict(), allow_nan=False)) and (hit.camera, hit.identity) == (None, None)
    assert numbers(gallery, "age is null") == [0] and numbers(gallery, "age = 4") == [1]


def test_spellings_of_one_number_are_one_identity_and_one_camera(tmp_path: Path) -> None:
    names: list[Any] = [7, 7.0, "7", "7.0", "7.00", 1e3, "1000", -0.0, "0", "07", "7.5", 7.5, "1e3", True, "7.0.0", 10**17, 1e17]
    expected = [
        "7",
        "7",
        "7",
        "7",
        "7",
        "1000",
        "1000",
        "0",
        "0",
        "07",
        "7.5",
        "7.5",
        "1e3",
        "true",
        "7.0.0",
        str(10**17),
        str(10**17),
    ]
    pictures = write_pictures(tmp_path / "photos", len(names))
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    gallery.add(list(pictures), [{"identity": value, "camera": value} for value in names])
    page = gallery.find(Query(texts=TEXT, k=99, group="identity"))
    assert sorted(hit.group.value for hit in page.hits if hit.group) == sorted(set(expected))
    for asked in ("7", "7.0"):
        assert numbers(gallery, f"identity = '{asked}'") == numbers(gallery, "true", cameras=(asked,)) == [0, 1, 2, 3, 4]
        assert gallery.find(Query(texts=TEXT), within=(asked,)).total == 5
        assert gallery.forget(identity=asked, dry_run=True).images == 5
    assert gallery.find(Query(texts=TEXT, equals={"identity": 7.0})).total == 5
    assert gallery.find(Query(texts=TEXT, equals={"identity": True})).total == 1
    assert gallery.add(list(pictures), [{"identity": value, "camera": value} for value in expected]).duplicates == ()


def test_tracklets_that_are_numbers(tmp_path: Path) -> None:
    gallery = filled(tmp_path, [{"tracklet": BIG + number % 2} for number in range(6)])
    assert [hit.source for hit in gallery.tracklet(str(BIG + 1))] and len(gallery.tracklet(str(BIG + 1))) == 3
    assert {hit.attributes["tracklet"] for hit in gallery.tracklet(str(BIG))} == {BIG}


def test_names_of_version_0_1_that_were_doubles(tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "photos", 3)
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    gallery.add(list(pictures), [{"identity": 7, "camera": 3}, {"identity": "a", "camera": "b"}, {"identity": "b", "camera": "c"}])
    table = lancedb.connect(gallery.path).open_table("images")
    table.update("identity = 'a'", values={"identity": "7.0", "camera": "3.0"})  # as version 0.1 stored 7.0 and 3.0
    gallery = Gallery.open(gallery.path, ColourEncoder())
    for asked in ("7", "7.0", 7, 7.0):
        assert gallery.find(Query(texts=TEXT, equals={"identity": asked})).total == 2
    hits = gallery.find(Query(texts=TEXT, cameras=("3",), group="identity")).hits
    assert [(hit.identity, hit.camera, hit.group.count) for hit in hits if hit.group] == [("7", "3", 2)]
    summary = gallery.summary(("3.0",))
    assert summary is not None and summary.cameras == (("3", 2),)
    assert gallery.add([pictures[1]], [{"identity": 7.0, "camera": 3.0}]).duplicates == ()
    assert gallery.forget(identity="7").images == 2 and len(gallery) == 1


def test_ids_of_coco_above_2_to_the_53(tmp_path: Path) -> None:
    images = [{"id": BIG + step, "file_name": f"{step}.jpg"} for step in range(3)]
    boxes = [{"image_id": BIG + step, "bbox": [step, 0, 10, 20]} for step in range(3)]
    file = tmp_path / "boxes.json"
    file.write_text(json.dumps({"images": images, "annotations": boxes}))
    found = JsonDetector(file)._found
    assert {name: [box.x for box in at] for (name, _), at in found.items()} == {f"{step}.jpg": [float(step)] for step in range(3)}
    for wrong in (float(BIG), True, [1], None):
        file.write_text(json.dumps({"images": images, "annotations": [{**boxes[0], "image_id": wrong}]}))
        with pytest.raises(DataError, match=r"annotations\[0\]"):
            JsonDetector(file)
        file.write_text(json.dumps({"images": [{**images[0], "id": wrong}], "annotations": []}))
        with pytest.raises(DataError, match=r"images\[0\]"):
            JsonDetector(file)
    file.write_text(json.dumps({"images": [images[0], {**images[1], "id": BIG}], "annotations": []}))
    with pytest.raises(DataError, match="ids must differ"):
        JsonDetector(file)
    for number in ("1e999", str(10**400)):
        file.write_text(json.dumps({"images": images, "annotations": boxes}).replace("[0, 0,", f"[{number}, 0,"))
        with pytest.raises(DataError, match=r"boxes\.json"):
            JsonDetector(file)


@given(st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**80), 2**80)))
def test_a_number_read_back_from_its_text_is_itself(value: float) -> None:
    assert parse_number(repr(value)) == value
    assert (as_double(value) is None) == (isinstance(value, int) and float(value) != value)
    assert (as_integer(value) is None) == (int(value) != value or not -(2**63) <= value < 2**63)
    assert (
        canonical_name(repr(float(value))) in spellings(str(int(value))) or float(value) != int(value) or "e" in repr(float(value))
    )


@pytest.mark.parametrize(
    "text", ["", "nan", "inf", "-Infinity", "1e999", "1_0", "0x1", "1e", "--1", "1 2", "\u0663", "9" * 500, "1e99999"]
)
def test_texts_that_are_not_numbers(text: str) -> None:
    assert parse_number(text) is None
    with pytest.raises(QueryError):
        from tbps.gallery.store.filter_sql import sql_of
        from tbps.gallery.store.filters import equal

        sql_of(equal("n", (text,)), {"n": "number"})


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("9007199254740993.0", 9007199254740993),
        ("9.007199254740993e15", 9007199254740993),
        ("-9007199254740993.000", -9007199254740993),
        ("12345678901234567891.0", 12345678901234567891),
        ("9007199254740992.0", 9007199254740992.0),
        ("1e22", 1e22),
        ("1.2345678901234567e+19", 1.2345678901234567e19),  # as the double is printed
        ("1.7976931348623157e308", 1.7976931348623157e308),
        ("7.0", 7.0),
        ("0.1", 0.1),
    ],
)
def test_json_numbers_with_a_point_keep_the_digits_of_whole_numbers(text: str, number: int | float) -> None:
    found = strict_json(text)
    assert (found, type(found)) == (number, type(number))


def test_whole_numbers_with_a_point_in_metadata_keep_their_digits(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    values = ["9007199254740992", "9007199254740993.0", "9007199254740994"]
    named = zip(write_pictures(photos, 3), values, strict=True)
    lines = [f'{{"file_name": "{file.name}", "identity": {value}, "serial": {value}}}' for file, value in named]
    (photos / "metadata.jsonl").write_text("\n".join(lines))
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    gallery.add(photos)
    for where in ("serial = 9007199254740993", "identity = '9007199254740993'"):
        assert [hit.attributes["serial"] for hit in gallery.search("red", where=where)] == [9007199254740993]
