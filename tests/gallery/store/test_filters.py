"""Filters: results against SQLite, refused constructs, and hostile texts, which must neither crash nor hang."""

import json
import math
import os
import random
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tbps.errors import QueryError
from tbps.gallery.gallery import Gallery
from tbps.gallery.lifecycle.retention import retain
from tbps.gallery.search.query import Query, Text
from tbps.gallery.store.filter_reading import written
from tbps.gallery.store.filter_sql import ids_sql, sql_of
from tbps.gallery.store.filter_text import MOST_CONDITIONS, MOST_DEPTH, MOST_PATTERN, MOST_VALUES, parse
from tbps.gallery.store.filters import Always, Among, Either, Every, between, equal, values_of
from tests.support.colour_encoder import ColourEncoder, write_pictures

KINDS = {"id": "text", "camera": "text", "identity": "text", "captured_at": "time", "attributes": "JSON text"}
KINDS |= {"age": "number", "serial": "integer", "bag": "truth", "upper_colour": "text", "date": "text"}
TEXT = (Text(text="someone"),)


def sql(where: str) -> str:
    return sql_of(parse(where), KINDS)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("30 < age", "(`age` > 30.0)"),
        ("AGE >= +30.5", "(`age` >= 30.5)"),
        ("age != -.5e1", "(`age` <> -5.0)"),
        ("age between 2 and 3", "((`age` >= 2.0) and (`age` <= 3.0))"),
        ("not age between 2 and 3", "((`age` < 2.0) or (`age` > 3.0))"),
        ("not (bag or not camera like 'x')", "((`bag` = false) and (`camera` like 'x'))"),
        ("bag is not true", "(`bag` is null or `bag` = false)"),
        ("bag = true", "(`bag` = true)"),
        ("upper.Colour = 'a''b`\\'", "(`upper_colour` = 'a''b`\\')"),
        ("`date` = 'x' and \"date\" <> 'y'", "((`date` = 'x') and (`date` <> 'y'))"),
        ("date = '2024'", "(`date` = '2024')"),
        ("date '2024-05-01' <= captured_at", "(`captured_at` >= timestamp '2024-05-01T00:00:00')"),
        ("captured_at < timestamp '2024-05-01T02:00:00+02:00'", "(`captured_at` < timestamp '2024-05-01T00:00:00')"),
        ("camera in ('b', 'a', 'b')", "(`camera` in ('b', 'a'))"),
        ("upper_colour not like 'a\\%%'", "(`upper_colour` not like 'a\\%%')"),
        ("true", "true"),
        ("not true", "false"),
        ("camera\nis\tnot null", "(`camera` is not null)"),
    ],
)
def test_sql_of_filters(where: str, expected: str) -> None:
    assert sql(where) == expected


# Version 0.1 passed each of these to the database.
HOSTILE: dict[str, str] = {
    "sum": "+".join(["1"] * 1000) + " > 0",
    "sum in brackets": f"({'+'.join(['1'] * 1000)}) > 0",
    "product": "*".join(["age"] * 1000) + " > 0",
    "join of texts": "||".join(["camera"] * 1000) + " = 'x'",
    "is null chain": "camera" + " is null" * 1000,
    "casts": "age" + "::int" * 1000 + " = 1",
    "equalities": " = ".join(["1"] * 1000),
    "shifts": "<<".join(["1"] * 1000) + " > 0",
    "like chain": " like ".join(["'a'"] * 1000),
    "minuses": "-" * 3000 + "1 < age",
    "nots": "not " * 2000 + "bag",
    "brackets": "(" * 4900 + "bag" + ")" * 4900,
    "open brackets": "(" * 9999,
    "or chain": " or ".join(f"age = {number}" for number in range(600)),
    "and chain": " and ".join(["bag"] * 1200),
    "long list": f"age in ({','.join(['1'] * 4000)})",
    "long text": f"camera = '{'x' * 20_000}'",
    "list of lists": "age in (" + "(1)," * 300 + "(1))",
    "between chain": "age" + " between 1 and 2" * 300,
    "case": "case " + "when bag then true " * 300 + "end",
    "levenshtein": "levenshtein(repeat('a',300000), repeat('b',300000)) > 1",
    "memory": "length(repeat('a', 2000000000)) > 1",
    "memory of a column": "length(repeat(source, 30000000)) > 1",
    "concat": "concat(source, source) = 'x'",
    "regexp": "regexp_like(source, '(a+)+$')",
    "regular expression": "source ~ '(a+)+$'",
    "similar": "source similar to '(a|a)*'",
    "ilike": "source ilike 'X%'",
    "failed cast": "cast(identity as int) > 1",
    "failed cast by sign": "identity::int > 1",
    "try cast": "try_cast(identity as int) > 1",
    "arrow cast": "arrow_cast(identity, 'Int64') > 1",
    "division by zero": "1 / (age - 5) > 1",
    "modulo": "age % 0 = 1",
    "overflow": "age * 1e308 * 1e308 > 1",
    "dollar quotes": "camera = $$lobby$$",
    "tagged dollar quotes": "camera = $x$lobby$x$",
    "national": "camera = N'lobby'",
    "hexadecimal": "camera = X'6c6f626279'",
    "escaped": r"camera = E'\x6c'",
    "unicode": r"camera = U&'\006c'",
    "adjacent texts": "camera = 'lob' 'by'",
    "union": "true union select 1",
    "subquery": "id in (select id from images)",
    "exists": "exists (select 1)",
    "scalar subquery": "age = (select max(age) from images)",
    "any": "age = any(array[1,2])",
    "with": "with x as (select 1) select true",
    "statement": "true; drop table images",
    "update": "update images set camera = 'x'",
    "comment": "true -- and camera = 'x'",
    "block comment": "true /* camera */ and bag",
    "closing": "true) or (true",
    "limit": "true limit 1",
    "order": "true order by age",
    "window": "row_number() over () = 1",
    "interval": "captured_at > now() - interval '1 day'",
    "now": "captured_at < now()",
    "extract": "extract(year from captured_at) = 2024",
    "columns": "identity = camera",
    "column beside itself": "age = age",
    "nothing but values": "1 = 1",
    "a value": "'x'",
    "null": "camera = null",
    "null in a list": "age in (1, null)",
    "distinct": "camera is distinct from 'x'",
    "nan": "age = nan",
    "infinite": "age > 1e999",
    "zero byte": "camera = 'a\0'",
    "lone surrogate": "camera = '\ud800'",
    "hidden column": "root like '/home/%'",
    "hidden column in quotes": "\"content_hash\" like 'a%'",
    "row id": "_rowid > 1",
    "field of the attributes": "attributes['x'] = 'y'",
    "array": "[1,2] = age",
    "struct": "{'a': 1} = age",
    "lambda": "x -> x = 1",
    "parameter": "age = ?",
    "named parameter": "age = :age",
    "variable": "age = @age",
    "backslash": "camera = \\'x\\'",
    "collate": "camera collate nocase = 'LOBBY'",
    "time zone": "captured_at at time zone 'utc' > '2024-05-01'",
    "escape": "camera like 'a!%' escape '!'",
    "many wildcards": f"camera like '{'%_' * 500}'",
    "pattern on a number": "age like '3%'",
    "wrong kind": "age = 'lobby'",
    "text beside number": "camera > 3",
    "huge exponent": "age > 1e-999999999 and age < 1e999999999",
    "many digits": f"age > {'9' * 5000}",
    "curly quotes": "camera = \N{LEFT SINGLE QUOTATION MARK}x\N{RIGHT SINGLE QUOTATION MARK}",
    "empty brackets": "()",
    "only a word": "and",
}

ATTACK = """
import json, sys
from tests.support.colour_encoder import ColourEncoder
from tbps.errors import QueryError
from tbps.gallery.gallery import Gallery
from tbps.gallery.search.query import Query, Text
gallery = Gallery.open(sys.argv[1], ColourEncoder())
for name, where in json.load(open(sys.argv[2])).items():
    query = Query(texts=(Text(text="someone"),), where=where)
    for way in (lambda: gallery.find(query), lambda: gallery.find(query, within=("lobby",)), lambda: gallery.search("x", 3, where),
                lambda: gallery.forget(where, dry_run=True), lambda: gallery.check(["x"], 1, where),
                lambda: gallery.explain(query, gallery.search("x", 1)[0].id)):
        try:
            way()
            told = "answered"
        except QueryError as error:
            told = str(error)
        print(json.dumps([name, told]), flush=True)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("filters")
    pictures = write_pictures(place / "photos", 40)
    rows = [_row(number) for number in range(40)]
    Gallery.open(place / "gallery", ColourEncoder()).add(list(pictures), rows)
    return place / "gallery"


SECRETS = [f"Quoll-{number}" for number in range(40)]
PATTERNS = ["a%b", "a_b", "a\\b", "axb", "A%B", "", "%", "_", "é", "a\nb"]


def _row(number: int) -> dict[str, Any]:
    row: dict[str, Any] = {"camera": ("lobby", "gate")[number % 2], "identity": SECRETS[number]}
    row |= {"age": number / 2, "serial": 2**53 + number % 5, "bag": number % 3 == 0, "mark": PATTERNS[number % len(PATTERNS)]}
    for name in ("age", "serial", "bag", "mark", "camera"):
        if number % 7 == len(name) % 7:
            del row[name]
    return row


def test_hostile_filters_neither_crash_nor_hang(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "shapes.json").write_text(json.dumps(HOSTILE))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-c", ATTACK, folder, tmp_path / "shapes.json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    told: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        name, said = json.loads(line)
        told.setdefault(name, []).append(said)
    assert {name: len(said) for name, said in told.items()} == dict.fromkeys(HOSTILE, 6)
    for name, said in told.items():
        assert "answered" not in said, f"{name} was answered"
        assert all(len(each) < 2000 and not any(secret in each for secret in SECRETS) for each in said), said
    assert len(Gallery.open(folder, ColourEncoder())) == 40


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("levenshtein(camera, 'x') < 3", "Invalid function 'levenshtein'"),
        ("cast(age as int) = 3", "Invalid function 'cast'"),
        ("age::int = 3", r"casts \(::\)"),
        ("age + 1 > 3", r"arithmetic \(\+\)"),
        ("camera = $$x$$", "dollar quotes"),
        ("camera = N'x'", r"a prefix \(N'...'\)"),
        ("camera = null", "is null"),
        ("camera = identity", "is compared with a value, not with another column"),
        ("camra = 'x'", r"unknown column 'camra'; did you mean 'camera'\? Columns: id \(text\)"),
        ("age = '3'", "'3' is compared with a column of another kind, 'age' is a number"),
        ("serial like '3%'", "needs a text, but column 'serial' is a number"),
        ("not camera", "column 'camera' is a text, not a boolean"),
        ("bag > false", "column 'bag' is a truth"),
        ("camera is true", "never true"),
        ("camera like 'a\\x'", "backslash stands only before"),
        (f"camera like '{'a' * (MOST_PATTERN + 1)}'", "201 characters"),
        (" or ".join(["bag"] * (MOST_CONDITIONS + 1)), "joins 201 conditions"),
        (f"age in ({', '.join(['1'] * (MOST_VALUES + 1))})", "lists 1,001 values"),
        ("(" * (MOST_DEPTH + 1) + "bag" + ")" * (MOST_DEPTH + 1), "nested 11 deep"),
        ("(" * 6 + "not not not not not bag" + ")" * 6, "nested 11 deep"),
        ("camera = 'x", "does not end with one"),
        ("(bag", "never closes"),
        ("captured_at > '01/05/2024'", "write a time"),
    ],
)
def test_unsupported_constructs_are_named(where: str, message: str) -> None:
    with pytest.raises(QueryError, match=message):
        sql(where)
    if "Columns:" not in message:
        with pytest.raises(QueryError, match="Example: camera = 'lobby'"):
            sql_of(written(where), KINDS)


def test_the_largest_filters_are_answered(folder: Path) -> None:
    gallery = Gallery.open(folder, ColourEncoder())
    deepest = "bag"
    for level in range(MOST_DEPTH):
        others = [f"age {'>' if level % 2 else '<>'} {number}.25" for number in range((MOST_CONDITIONS - 1) // MOST_DEPTH)]
        deepest = f"({(' and ' if level % 2 else ' or ').join([*others[:9], deepest, *others[9:]])})"
    lists = f"age in ({', '.join(map(str, range(MOST_VALUES)))}) or not bag"
    chain = " or ".join(f"age = {number}" for number in range(MOST_CONDITIONS))
    ages = {number: _row(number).get("age") for number in range(40)}
    assert gallery.find(Query(texts=TEXT, where=chain, k=99)).total == sum(
        age is not None and age == int(age) for age in ages.values()
    )
    for where in (deepest, lists, f"camera like '{'%_' * (MOST_PATTERN // 2)}'"):
        for query in (Query(texts=TEXT, where=where, k=99), Query(texts=TEXT, where=where, group="camera", cameras=("lobby",))):
            assert gallery.find(query).total <= 40


def test_ten_thousand_ids_and_cameras(folder: Path) -> None:
    gallery = Gallery.open(folder, ColourEncoder())
    known = [hit.id for hit in gallery.search("x", 5)]
    ids = [f"{number:024x}" for number in range(10_000)]
    assert gallery.forget(ids=[*ids[:5000], *known, *ids[5000:], *known], dry_run=True).images == 5
    assert gallery.forget(ids=[*ids, *known], where="camera = 'lobby'", dry_run=True).images == sum(
        hit.camera == "lobby" for hit in gallery.search("x", 5)
    )
    assert gallery.forget(ids=["' or true or id = '"], dry_run=True).images == 0
    assert ids_sql([]) == "false"
    many = sql_of(Either((Among("camera", tuple(ids)), Every(tuple(Always(True) for _ in range(5000))))), KINDS)
    depth = deepest = 0
    for character in many:
        depth += (character == "(") - (character == ")")
        deepest = max(deepest, depth)
    assert deepest < 30, "chains become balanced trees"


# Random conditions against SQLite, which has the same three-valued logic.

_ATOMS = ["age = 3", "age <> 3.5", "3 <= age", "age not between 2 and 9.5", "age in (1, 2, 3)", "age not in (1, 2, 3)"]
_ATOMS += ["serial = 9007199254740993", "serial > 9007199254740992", "serial <> 9007199254740994", "serial < 9007199254740993"]
_ATOMS += [
    "serial in (9007199254740993, 9007199254740995)",
    "serial not in (9007199254740993)",
    "bag",
    "bag = false",
    "bag is true",
]
_ATOMS += ["bag is not true", "bag is not false", "mark like 'a%b'", "mark not like '%\\%%'", "mark like 'a\\_b'", "mark = 'a\\b'"]
_ATOMS += ["mark like '_'", "mark like 'a_b'", "mark in ('', '%')", "camera is null", "camera is not null", "camera = 'lobby'"]
_ATOMS += [
    "camera <> 'lobby'",
    "camera not in ('gate', 'x')",
    "mark < 'a'",
    "mark >= 'é'",
    "true",
    "false",
    "age > 9007199254740993",
]

conditions = st.recursive(
    st.sampled_from(_ATOMS),
    lambda inner: st.one_of(
        inner.map("not ({})".format),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: f"({' and '.join(parts)})"),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: f"({' or '.join(parts)})"),
    ),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def both(folder: Path) -> Iterator[tuple[Gallery, sqlite3.Connection]]:
    database = sqlite3.connect(":memory:")
    database.execute("pragma case_sensitive_like = on")
    database.execute("create table images (source, camera, age, serial, bag, mark)")
    names = ("camera", "age", "serial", "bag", "mark")
    rows = [(f"{number:04d}.jpg", *(_row(number).get(name) for name in names)) for number in range(40)]
    database.executemany("insert into images values (?,?,?,?,?,?)", rows)
    yield Gallery.open(folder, ColourEncoder()), database
    database.close()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(where=conditions)
def test_every_condition_selects_the_same_rows_as_sqlite(where: str, both: tuple[Gallery, sqlite3.Connection]) -> None:
    gallery, database = both
    theirs = where.replace("%b'", "%b' escape '\\'").replace("%\\%%'", "%\\%%' escape '\\'").replace("\\_b'", "\\_b' escape '\\'")
    expected = {source for (source,) in database.execute(f"select source from images where {theirs}")}
    try:
        found = gallery.search("someone", k=99, where=where)
    except QueryError as error:
        assert "nested" in str(error)
        return
    assert {hit.source for hit in found} == expected
    query = Query(texts=TEXT, where=where, k=99)
    assert {hit.source for hit in gallery.find(query, within=("lobby",)).hits} == {h.source for h in found if h.camera == "lobby"}


NUMBERS = st.one_of(
    st.integers(-(2**70), 2**70),
    st.sampled_from([-(2**63), 2**63 - 1, 2**63, 2**53, 2**53 + 1, -(2**53) - 1, 0]),
    st.fractions(max_denominator=1000),
    st.floats(allow_nan=False, allow_infinity=False).map(Fraction),
)


@settings(max_examples=400, deadline=None)
@given(number=NUMBERS, sign=st.sampled_from(["=", "<>", "<", "<=", ">", ">="]), kind=st.sampled_from(["integer", "number"]))
def test_comparisons_with_numbers_that_a_column_cannot_hold(number: Fraction | int, sign: str, kind: str) -> None:
    """Evaluates the SQL of a comparison in Python, and compares it with exact fractions for all nearby numbers of the column."""
    from tbps.gallery.store.filters import Compare

    text = sql_of(Compare("x", sign, Fraction(number)), {"x": kind})  # type: ignore[arg-type]
    expression = text.replace("`x` is not null", "True").replace("false", "False").replace("`x`", "x")
    expression = expression.replace(" = ", " == ").replace("<>", "!=")
    near = [math.floor(number) + step for step in range(-2, 3)]
    if kind == "number":
        middle = float(min(max(Fraction(number), Fraction(-1.7e308)), Fraction(1.7e308)))
        held: list[Any] = [math.nextafter(middle, -math.inf), middle, math.nextafter(middle, math.inf)]
    else:
        held = [value for value in [*near, -(2**63), 2**63 - 1] if -(2**63) <= value < 2**63]
    signs = {"=": "==", "<>": "!="}
    for value in held:
        expected = eval(f"value {signs.get(sign, sign)} number", {"value": Fraction(value), "number": Fraction(number)})
        assert eval(expression, {"x": value}) == expected, (text, value)


@settings(max_examples=300, deadline=None)
@given(text=st.text(alphabet="ab '`\"()<>=!,.%_\\-+*/;:$#@0123456789eE\n\0andornotilke", max_size=60), seed=st.integers(0, 2**32))
def test_any_text_is_parsed_or_refused_with_a_query_error(text: str, seed: int) -> None:
    words = ["camera", "age", "bag", "=", "<", "(", ")", "and", "or", "not", "in", "is", "null", "like", "'x'", "3", ",", text]
    generator = random.Random(seed)
    for where in (text, " ".join(generator.choice(words) for _ in range(generator.randrange(1, 25)))):
        try:
            found = sql(where)
        except QueryError as error:
            assert "\n" not in str(error) or "\n" in where
            continue
        assert found.count("(") == found.count(")")


def test_rules_for_thousands_of_cameras(tmp_path: Path) -> None:
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    pictures = write_pictures(tmp_path / "photos", 4)
    times = ["2024-05-01T00:00:00", "2024-05-01T00:00:00", "2024-05-01T00:00:00", None]
    cameras = ["it's 7", "gate 4999", None, "gate 1"]
    gallery.add(list(pictures), [{"camera": c, "captured_at": t} for c, t in zip(cameras, times, strict=True)])
    rules = {f"gate {number}": 1 + number % 400 for number in range(5000)}
    (gallery.path / "retention.json").write_text(json.dumps({"default_days": 30, "cameras": {**rules, "it's 7": 10}}))
    day = datetime(2024, 5, 1)
    for days, gone in ((5, 0), (10, 0), (11, 1), (31, 2), (1 + 4999 % 400, 2), (2 + 4999 % 400, 3)):
        report = retain(gallery.path, dry_run=True, today=day + timedelta(days=days))
        assert report is not None and report.images == gone, days


def test_many_spellings_of_one_column_are_refused(folder: Path) -> None:
    names = {
        "".join(letter.upper() if number >> at & 1 else letter for at, letter in enumerate("upper_colour")) for number in range(999)
    }
    gallery = Gallery.open(folder, ColourEncoder())
    with pytest.raises(QueryError, match="more than 200"):
        gallery.find(Query(texts=TEXT, equals=dict.fromkeys(names, "x")))
    assert gallery.find(Query(texts=TEXT, equals={"BAG": True, "Camera": "lobby"})).total == len(
        gallery.search("x", 99, "bag and camera = 'lobby'")
    )


def test_conditions_made_of_the_fields_of_a_query() -> None:
    assert sql_of(Every(tuple(between("2024-05-01", None))), KINDS) == "(`captured_at` >= timestamp '2024-05-01T00:00:00')"
    assert sql_of(equal("upper.colour", ("x", None)), KINDS) == "((`upper_colour` in ('x')) or (`upper_colour` is null))"
    assert sql_of(equal("age", ("9007199254740993",)), KINDS) == "false"
    assert sql_of(equal("serial", ("9007199254740993",)), KINDS) == "(`serial` in (9007199254740993))"
    assert sql_of(equal("identity", (7.0,)), KINDS) == "(`identity` in ('7', '7.0'))"
    for value in (math.nan, math.inf, -math.inf, "\ud800"):
        with pytest.raises(QueryError, match=r"not a finite number|not a character"):
            equal("age", (value,))
    assert list(values_of(written("camera = 'a' or not (camera in ('b', 'c') and age = 3)"), "camera")) == ["a", "b", "c"]
