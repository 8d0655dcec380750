"""Metadata columns to table columns."""

import json
from datetime import datetime

import pytest

from tbps.gallery.store.columns import MAX_COLUMNS, plan_columns, row_metadata
from tbps.preprocess.metadata import parse_time


def test_kinds_do_not_depend_on_the_order_of_rows() -> None:
    rows = [{"a": 1, "b": True, "c": "x", "d": 1}, {"a": 2.5, "b": False, "d": "y", "e": [1]}]
    expected = {"a": "number", "b": "truth", "c": "text", "d": "text"}
    assert plan_columns(rows, {}).kinds == expected
    assert plan_columns(reversed(rows), {}).kinds == expected


def test_an_existing_column_keeps_its_kind_and_other_values_are_reported() -> None:
    plan = plan_columns([{"age": "forty"}, {"age": 41}, {"age": True}], {"age": "number"})
    assert plan.kinds == {"age": "number"}
    assert plan.notes == ("column 'age' is a number; 2 other values are kept in attributes only",)
    assert row_metadata({"age": "forty"}, plan.kinds).extras == {"age": None}
    assert json.loads(row_metadata({"age": "forty"}, plan.kinds).attributes) == {"age": "forty"}


@pytest.mark.parametrize("name", ["id", "Embedding", "_rowid", "a b", "a'; drop table images", "größe", "1st", "x" * 64, ""])
def test_names_that_cannot_be_columns_stay_in_the_attributes(name: str) -> None:
    plan = plan_columns([{name: "v"}], {})
    assert plan.kinds == {}
    assert plan.notes == (f"column {name!r} is kept in attributes but cannot be filtered on",)
    assert json.loads(row_metadata({name: "v"}, plan.kinds).attributes) == {name: "v"}


def test_identity_camera_and_capture_time_are_converted() -> None:
    row = row_metadata({"identity": 7, "camera": "c1", "captured_at": "2024-05-01T10:30:00+02:00", "hat": "red"}, {"hat": "text"})
    assert (row.identity, row.camera, row.captured_at) == ("7", "c1", datetime(2024, 5, 1, 8, 30))
    assert json.loads(row.attributes) == {"hat": "red"}
    assert row.extras == {"hat": "red"}


def test_a_nested_attributes_object_is_read_one_level_deep() -> None:
    columns = {"attributes": {"upper": "red", "bag": {"kind": "tote"}}, "split": "test"}
    plan = plan_columns([columns], {})
    assert plan.kinds == {"split": "text", "upper": "text"}
    assert json.loads(row_metadata(columns, plan.kinds).attributes) == {
        "upper": "red",
        "bag": {"kind": "tote"},
        "split": "test",
    }


def test_an_invalid_time_stays_in_the_attributes_and_is_reported() -> None:
    plan = plan_columns([{"captured_at": "yesterday"}, {"captured_at": 3}, {"captured_at": "2024-05-01"}], {})
    assert len(plan.notes) == 1 and plan.notes[0].startswith("captured_at: 2 values")
    row = row_metadata({"captured_at": "yesterday"}, {})
    assert row.captured_at is None
    assert json.loads(row.attributes) == {"captured_at": "yesterday"}


def test_numbers_beyond_float_and_lone_surrogates_do_not_break_a_row() -> None:
    columns = {"huge": 10**400, "odd": "a\ud800b"}
    row = row_metadata(columns, plan_columns([columns], {}).kinds)
    assert row.extras == {"huge": f"1{'0' * 400}", "odd": "a?b"}
    row.attributes.encode()


def test_a_flood_of_columns_is_bounded() -> None:
    plan = plan_columns([{f"c{n:04d}": 1 for n in range(300)}], {"old": "text"})
    assert len(plan.kinds) == MAX_COLUMNS
    assert "old" in plan.kinds
    assert len(plan.notes) == 301 - MAX_COLUMNS


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-05-01", datetime(2024, 5, 1)),
        (" 2024-05-01 08:30 ", datetime(2024, 5, 1, 8, 30)),
        ("2024-05-01T08:30:00Z", datetime(2024, 5, 1, 8, 30)),
        ("2024-05-01T00:30:00.25+01:00", datetime(2024, 4, 30, 23, 30, 0, 250000)),
        ("0001-01-01T00:00:00+10:00", None),
        ("01/05/2024", None),
        ("", None),
    ],
)
def test_times(text: str, expected: datetime | None) -> None:
    assert parse_time(text) == expected
