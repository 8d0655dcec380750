"""Parsing of typed descriptions, and structured conditions, whose quoting is checked against comparisons in Python."""

import json
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tbps.errors import QueryError, SettingsError
from tbps.gallery.gallery import Gallery
from tbps.gallery.search.query import Example, Query, Text, phrase
from tbps.gallery.store.filter_sql import sql_of
from tbps.gallery.store.filters import between, equal
from tbps.gallery.store.numbers import canonical_name
from tests.support.colour_encoder import ColourEncoder


@pytest.mark.parametrize(
    ("typed", "text", "weight"),
    [
        ("a red coat", "a red coat", 1),
        ("-backpack", "backpack", -0.5),
        ("  -a red backpack", "a red backpack", -0.5),
        ("a red coat^2", "a red coat", 2),
        ("a red coat ^.25 ", "a red coat ", 0.25),
        ("-backpack^1", "backpack", -1),
        (r"\-5 degrees", "-5 degrees", 1),
        (r"x\^2", "x^2", 1),
        (r"-\-x", "-x", -0.5),
        ("t-shirt - red", "t-shirt - red", 1),
        ("a^b", "a^b", 1),
        ("x^-2", "x^-2", 1),
        ("\udce9t", "?t", 1),
    ],
)
def test_descriptions_as_typed_are_parsed(typed: str, text: str, weight: float) -> None:
    assert phrase(typed) == Text(text=text, weight=weight)


def test_a_query_is_restored_from_json() -> None:
    query = Query(
        texts=(Text(text="a woman"), Text(text="bag", weight=-0.5)),
        like=(Example(id="ab"),),
        right=("cd",),
        cameras=("x",),
        equals={"age": 4, "hat": "cap", "bag": True, "upper": None},
        group="tracklet",
        version=7,
    )
    assert Query.model_validate_json(query.model_dump_json()) == query
    assert Query.parse(json.loads(json.dumps(query.model_dump(mode="json")))).equals["bag"] is True


@pytest.mark.parametrize(
    "values",
    [
        {"k": 0},
        {"k": 10_001},
        {"offset": -1},
        {"share": 1},
        {"rerank": 1001},
        {"colour": "red"},
        {"texts": [{"text": "x" * 20_001}]},
    ],
)
def test_a_query_out_of_range_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        Query.parse(values)


NASTY = [
    "",
    " ",
    "'",
    "''",
    '"',
    "`",
    "\\",
    "\\'",
    "' or ''='",
    "') or (true",
    "--",
    "/* */",
    ";",
    "%",
    "_",
    "\x00",
    "\n",
    "ü",
    "日本",
    "x" * 300,
]
NUMBERS = [0.0, -0.0, 1.0, -1.5, 1e300, 5e-324, 0.1, 2.0**53, 123456789.125]
TIMES = [datetime(2024, 5, 1) + timedelta(microseconds=step) for step in (0, 1, 999_999, 3_600_000_000, 10**12)]


def _rows() -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    rows = []
    for number in range(80):
        row: dict[str, Any] = {"order": NASTY[number % len(NASTY)], "age": NUMBERS[number % len(NUMBERS)], "bag": number % 3 == 0}
        row |= {
            "captured_at": TIMES[number % len(TIMES)].isoformat(),
            "camera": NASTY[int(rng.integers(len(NASTY)))],
            "identity": number,
        }
        for name in rng.choice(list(row), int(rng.integers(0, 3)), replace=False):
            del row[name]
        rows.append(row)
    return rows


ROWS = _rows()


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Any:
    pictures = [Image.fromarray(np.random.default_rng(n).integers(0, 256, (8, 4, 3), np.uint8)) for n in range(len(ROWS))]
    gallery = Gallery.open(tmp_path_factory.mktemp("query") / "gallery", ColourEncoder())
    gallery.add(pictures, ROWS)
    return gallery


def _found(gallery: Gallery, query: Query) -> set[int]:
    page = gallery.find(query.model_copy(update={"texts": (Text(text="someone"),), "k": len(ROWS)}))
    assert page.total == len(page.hits)
    return {int(hit.source.removeprefix("picture-")) for hit in page.hits}


many = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
text = st.one_of(st.sampled_from(NASTY), st.text(max_size=20))


@many
@given(values=st.lists(text, min_size=1, max_size=3))
def test_cameras_are_compared_as_python_does(values: list[str], labelled: Gallery) -> None:
    expected = {n for n, row in enumerate(ROWS) if row.get("camera") in values}
    missing = [value for value in values if canonical_name(value) not in {row.get("camera") for row in ROWS}]
    if missing:
        with pytest.raises(QueryError, match="no camera"):
            _found(labelled, Query(cameras=tuple(values)))
    else:
        assert _found(labelled, Query(cameras=tuple(values))) == expected


@many
@given(value=st.one_of(text, st.none()))
def test_a_column_can_be_named_like_a_keyword_of_sql(value: str | None, labelled: Gallery) -> None:
    assert _found(labelled, Query(equals={"order": value})) == {n for n, row in enumerate(ROWS) if row.get("order") == value}


@many
@given(value=st.one_of(st.sampled_from(NUMBERS), st.floats(allow_nan=False, allow_infinity=False)), typed=st.booleans())
def test_numbers_are_compared_exactly(value: float, typed: bool, labelled: Gallery) -> None:
    expected = {n for n, row in enumerate(ROWS) if row.get("age") == value}
    assert _found(labelled, Query(equals={"age": repr(value) if typed else value})) == expected


@many
@given(since=st.one_of(st.none(), st.sampled_from(TIMES), st.datetimes()), until=st.one_of(st.none(), st.sampled_from(TIMES)))
def test_since_is_inclusive_and_until_exclusive(since: datetime | None, until: datetime | None, labelled: Gallery) -> None:
    expected = set()
    for number, row in enumerate(ROWS):
        seen = None if "captured_at" not in row else datetime.fromisoformat(row["captured_at"])
        inside = seen is not None and (since is None or seen >= since) and (until is None or seen < until)
        if inside or (since is None and until is None):
            expected.add(number)
    sides = {"since": since and since.isoformat(), "until": until and until.isoformat()}
    assert _found(labelled, Query(**sides)) == expected


def test_all_conditions_hold_at_once(labelled: Gallery) -> None:
    query = Query(where="age > 0 or age < -1", cameras=("'", "--", "\\"), equals={"bag": False}, since="2024-05-01T00:00:00.5")
    expected = {
        number
        for number, row in enumerate(ROWS)
        if row.get("camera") in query.cameras
        and row.get("bag") is False
        and (row.get("age", 0) > 0 or row.get("age", 0) < -1)
        and row.get("captured_at", "") > "2024-05-01T00:00:00.5"
    }
    assert _found(labelled, query) == expected
    assert _found(labelled, Query(equals={"bag": "true"})) == {n for n, row in enumerate(ROWS) if row.get("bag")}
    assert _found(labelled, Query(equals={"identity": 7})) == {n for n, row in enumerate(ROWS) if row.get("identity") == 7}


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("colour", "red", r"unknown column 'colour'. Columns: id \(text\)"),
        ("camera` = '' or `id", "x", "unknown column"),
        ("attributes", "{}", "unknown column 'attributes'"),
        ("age", "old", "column 'age' is a number; 'old' is not a valid number"),
        ("age", "nan", "'nan' is not a valid number"),
        ("age", True, "True is not a valid number"),
        ("bag", 1, "column 'bag' is a truth; 1 is not a valid truth"),
        ("captured_at", "noon", "column 'captured_at' is a time"),
    ],
)
def test_a_value_that_does_not_fit_its_column_is_named(column: str, value: Any, expected: str, labelled: Gallery) -> None:
    with pytest.raises(QueryError, match=expected):
        labelled.find(Query(texts=(Text(text="x"),), equals={column: value}))


def test_an_empty_list_of_values_selects_no_row(labelled: Gallery) -> None:
    kinds = labelled.info().columns
    assert sql_of(equal("camera", ()), kinds) == "false"
    assert between(None, None) == []
