"""Parses filters: a small subset of SQL, defined by a grammar.

    camera = 'lobby'            = != <> < <= > >=, the column on either side
    age between 20 and 30       not between
    camera in ('lobby', 'x')    not in
    upper_colour like 'dark%'   not like; % any characters, _ one, \\% \\_ \\\\ the characters % _ \\; case-sensitive
    bag, not bag, bag is true   columns that are true or false; is false, is not true, is not false
    identity is null            is not null
    and or not ( )              true matches every image, false none

Values are texts in single quotes (a quote inside is written twice), numbers, true and false, and times as texts or as
timestamp '2024-05-01T08:30:00'. Columns may be quoted with backticks or double quotes; a dot in a name is an underscore.

The grammar is LALR(1), so parsing takes linear time and does not recurse. Limits are checked on the tokens before parsing. Error
messages name the construct that is not in the grammar.
"""

import re
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any, NoReturn, cast

from lark import Lark, Token, Transformer
from lark.exceptions import UnexpectedCharacters, UnexpectedEOF, UnexpectedToken

from tbps.errors import QueryError
from tbps.gallery.store import filters
from tbps.gallery.store.columns import column_name
from tbps.gallery.store.filters import Condition, Literal_, check_text, shortened
from tbps.gallery.store.numbers import parse_number
from tbps.preprocess.metadata import parse_time

MOST_CHARACTERS = 10_000
"""Maximum length of a filter's text."""
MOST_CONDITIONS = 200
MOST_DEPTH = 10
MOST_VALUES = 1000  # of all lists together
MOST_PATTERN = 200

ALLOWED = (
    "A filter compares columns with values by = <> < <= > >=, between, in, like, is null; and, or, not and brackets join them."
)

_GRAMMAR = r"""
?start: either
either: every (OR every)*
every: unit (AND unit)*
?unit: NOT unit -> opposite
    | "(" either ")"
    | test
?test: column -> holds
    | TRUE -> always
    | FALSE -> never
    | column COMPARE literal -> compare
    | literal COMPARE column -> reversed
    | column negated BETWEEN literal AND literal -> between
    | column negated IN "(" literal ("," literal)* ")" -> among
    | column negated LIKE TEXT -> like
    | column IS negated (NULL | TRUE | FALSE) -> is_
negated: [NOT]
column: NAME | QUOTED
?literal: TEXT -> text
    | NUMBER -> number
    | TRUE -> true
    | FALSE -> false
    | (TIMESTAMP | DATE) TEXT -> time

TEXT: /'(?:[^']|'')*'/
QUOTED: /`[^`]*`|"[^"]*"/
NUMBER: /[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?(?![0-9A-Za-z_.])/
COMPARE: /[<>=!]+/
TIMESTAMP.1: /timestamp(?=\s*')/i
DATE.1: /date(?=\s*')/i
NAME: /[A-Za-z_][A-Za-z0-9_.]*/
%declare AND OR NOT IN BETWEEN LIKE IS NULL TRUE FALSE
%ignore /\s+/
"""
_WORDS = frozenset(("AND", "OR", "NOT", "IN", "BETWEEN", "LIKE", "IS", "NULL", "TRUE", "FALSE"))
_SIGNS = {"=": "=", "<>": "<>", "!=": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_REVERSED = {"=": "=", "<>": "<>", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_REFUSED_SIGNS = {
    "--": "it holds a comment (--); leave it out",
    "/*": "it holds a comment (/*); leave it out",
    "::": "casts (::) are not supported",
    "||": "joining texts (||) is not supported",
    "<<": "bit shifts (<<) are not supported",
    ">>": "bit shifts (>>) are not supported",
    ";": "found: ; which is not allowed outside of a text",
    "$": "dollar quotes ($) are not supported; a text is written in single quotes",
    "\\": "a backslash stands outside a text; it is an ordinary character inside one",
    "?": "parameters (?) are not supported; write the value",
    "[": "lists in square brackets are not supported; write in ('a', 'b')",
    "{": "curly brackets are not supported",
    "\N{LEFT SINGLE QUOTATION MARK}": "a text is written in straight single quotes (')",
    "\N{RIGHT SINGLE QUOTATION MARK}": "a text is written in straight single quotes (')",
    "\N{LEFT DOUBLE QUOTATION MARK}": "a text is written in straight single quotes (')",
    "\N{RIGHT DOUBLE QUOTATION MARK}": "a text is written in straight single quotes (')",
}
_ARITHMETIC = "+-*/%^&|~"
_QUERIES = ("select", "with", "from", "exists", "values", "table")


@lru_cache(maxsize=64)
def parse(where: str) -> Condition:
    """Parses a filter. Raises QueryError that names the construct that is not supported, or the limit that is exceeded."""
    try:
        return _parse(where)
    except _RefusedError as error:
        raise QueryError(f"filter {shortened(where)}: {str(error).rstrip('.')}. {ALLOWED} Example: camera = 'lobby'") from error


class _RefusedError(Exception):
    """A text is not a valid filter; the message gives the reason."""


def _parse(where: str) -> Condition:
    if not where.strip():
        raise QueryError("the filter is empty; leave it out or write a condition such as camera = 'lobby'")
    if len(where) > MOST_CHARACTERS:
        raise QueryError(f"the filter has {len(where):,} characters, more than {MOST_CHARACTERS:,}; shorten it")
    check_text("the filter", where)
    if "\0" in where:
        raise _RefusedError("it holds a zero byte")
    tokens = _tokens(where)
    _check_bounds(tokens)
    _check_constructs(tokens)
    try:
        found = cast(Condition, _parser().parse(where))
    except UnexpectedEOF:
        _end(tokens)
    except UnexpectedToken as error:
        _end(tokens) if error.token.type == "$END" else _unexpected(error.token, tokens)
    return found


def _tokens(where: str) -> Sequence[Token]:
    try:
        return list(_parser().lex(where))
    except UnexpectedCharacters as error:
        raise _RefusedError(_about_character(where, error.pos_in_stream or 0)) from error


def _about_character(where: str, at: int) -> str:
    two, one = where[at : at + 2], where[at]
    if one == "'":
        return "Unterminated string literal: a text that begins with a single quote does not end with one"
    if one in '`"':
        return f"the name that begins with {one} does not end with it"
    for sign in (two, one):
        if sign in _REFUSED_SIGNS:
            return _REFUSED_SIGNS[sign]
    if one in _ARITHMETIC:
        return f"arithmetic ({one}) is not supported; compare a column with a value"
    if one.isdigit() or one == ".":
        return f"{shortened(re.split(r'[^0-9A-Za-z_.]', where[at:], maxsplit=1)[0])} is not a number"
    return f"found: {shortened(one)}, which is not allowed outside of a text"


def _check_bounds(tokens: Sequence[Token]) -> None:
    """Checks the limits of a filter before it is parsed, since untrusted callers write filters."""
    depth = deepest = nots = 0
    before = ""
    for token in tokens:
        nots = nots + 1 if token.type == "NOT" and before not in ("NAME", "QUOTED", "IS") else 0  # `is not`, `not in`
        before = token.type
        depth += (token.type == "LPAR") - (token.type == "RPAR")
        deepest = max(deepest, depth + nots)
        if depth < 0:
            raise _RefusedError("it closes a bracket that it never opened")
    if deepest > MOST_DEPTH:
        raise _RefusedError(f"brackets and nots are nested {deepest:,} deep; the limit of this recursion is {MOST_DEPTH}")
    joined = 1 + sum(token.type in ("AND", "OR") for token in tokens)
    if joined > MOST_CONDITIONS:
        raise _RefusedError(f"it joins {joined:,} conditions, more than {MOST_CONDITIONS}; in (...) takes {MOST_VALUES:,} values")
    values = 1 + sum(token.type == "COMMA" for token in tokens)
    if values > MOST_VALUES:
        raise _RefusedError(f"it lists {values:,} values, more than {MOST_VALUES:,}")


def _check_constructs(tokens: Sequence[Token]) -> None:
    """Raises _RefusedError on constructs of SQL that filters do not support."""
    for token, following in zip(tokens, [*tokens[1:], None], strict=True):
        if token.type == "COMPARE" and token not in _SIGNS:
            raise _RefusedError(f"the sign {shortened(str(token))} is unknown; there are = <> != < <= > >=")
        if token.type != "NAME" or following is None:
            continue
        if following.type == "LPAR" and token.lower() in (*_QUERIES, "any", "all", "some"):
            raise _RefusedError(f"subqueries ({token.lower()}) are not supported")
        if following.type == "LPAR":
            raise _RefusedError(f"Invalid function {shortened(str(token))}: filters have no functions and no casts")
        if following.type in ("TEXT", "QUOTED") and following.start_pos == token.end_pos:
            raise _RefusedError(f"texts with a prefix ({token}'...') are not supported; a text is written in single quotes")


def _end(tokens: Sequence[Token]) -> NoReturn:
    if sum((token.type == "LPAR") - (token.type == "RPAR") for token in tokens) > 0:
        raise _RefusedError("it opens a bracket that it never closes")
    raise _RefusedError("it ends too early. Expected: an expression such as camera = 'lobby'")


def _unexpected(token: Token, tokens: Sequence[Token]) -> NoReturn:
    before = next((each for each in reversed(tokens) if (each.end_pos or 0) <= (token.start_pos or 0)), None)
    word = str(token).lower()
    if word in _QUERIES:
        raise _RefusedError(f"subqueries ({word}) are not supported")
    if token.type in ("NAME", "QUOTED") and before is not None and before.type == "COMPARE":
        unquoted = str(token)[1:-1] if token.type == "QUOTED" else str(token)
        raise _RefusedError(
            f"unknown column {shortened(unquoted)}; text is written in single quotes, and a column is compared with a value, "
            "not with another column"
        )
    if token.type == "NUMBER" and token[0] in "+-":
        raise _RefusedError(f"arithmetic ({token[0]}) is not supported; compare a column with a value")
    if token.type == "NULL":
        raise _RefusedError("nothing is equal to null; write is null or is not null")
    if token.type == "COMPARE" and before is not None and before.type in ("TEXT", "NUMBER", "TRUE", "FALSE", "RPAR"):
        raise _RefusedError(f"found: {token} after a value or a bracket; each comparison has one column and one value")
    if token.type in ("RPAR", "AND", "OR") and before is not None and before.type in ("TEXT", "NUMBER"):
        raise _RefusedError(f"the value {shortened(str(before))} is compared with no column")
    if token.type in ("TEXT", "NUMBER", "TRUE", "FALSE") and before is not None and before.type == "COMPARE":
        raise _RefusedError(f"found: {token[:100]}, so that two values are compared; one side is a column")
    if token.type == "NAME":
        raise _RefusedError(f"found: {word[:100]}, which is not supported here")
    raise _RefusedError(f"found: {token[:100]}, which is not allowed here")


def _word(token: Token) -> Token:
    """Assigns keywords their own token types."""
    kind = token.upper()
    return token.update(type=kind) if kind in _WORDS else token


class _Conditions(Transformer[Token, Any]):
    """Builds the conditions during parsing, the innermost first."""

    def either(self, parts: list[Any]) -> Condition:
        kept = [part for part in parts if not isinstance(part, Token)]
        return kept[0] if len(kept) == 1 else filters.Either(tuple(kept))

    def every(self, parts: list[Any]) -> Condition:
        kept = [part for part in parts if not isinstance(part, Token)]
        return kept[0] if len(kept) == 1 else filters.Every(tuple(kept))

    def opposite(self, parts: list[Any]) -> Condition:
        return filters.Not(parts[-1])

    def holds(self, parts: list[Any]) -> Condition:
        return filters.Holds(parts[0])

    def always(self, _: list[Any]) -> Condition:
        return filters.Always(True)

    def never(self, _: list[Any]) -> Condition:
        return filters.Always(False)

    def compare(self, parts: list[Any]) -> Condition:
        column, sign, value = parts
        return filters.Compare(column, _SIGNS[sign], value)  # type: ignore[arg-type]  # the table holds signs only

    def reversed(self, parts: list[Any]) -> Condition:
        value, sign, column = parts
        return filters.Compare(column, _REVERSED[_SIGNS[sign]], value)  # type: ignore[arg-type]  # as above

    def between(self, parts: list[Any]) -> Condition:
        column, negated, _, low, _, high = parts
        found = filters.Every((filters.Compare(column, ">=", low), filters.Compare(column, "<=", high)))
        return filters.Not(found) if negated else found

    def among(self, parts: list[Any]) -> Condition:
        column, negated, _, *values = parts
        found = filters.Among(column, tuple(values))
        return filters.Not(found) if negated else found

    def like(self, parts: list[Any]) -> Condition:
        column, negated, _, token = parts
        found = filters.Like(column, _pattern(_unquoted(token)))
        return filters.Not(found) if negated else found

    def is_(self, parts: list[Any]) -> Condition:
        column, _, negated, word = parts
        found = filters.Is(column, {"NULL": None, "TRUE": True, "FALSE": False}[word.type])
        return filters.Not(found) if negated else found

    def negated(self, parts: list[Any]) -> bool:
        return parts[0] is not None

    def column(self, parts: list[Any]) -> str:
        (token,) = parts
        return column_name(token[1:-1] if token.type == "QUOTED" else str(token))

    def text(self, parts: list[Any]) -> Literal_:
        return _unquoted(parts[0])

    def number(self, parts: list[Any]) -> Literal_:
        if (value := parse_number(parts[0])) is None:
            raise _RefusedError(f"{shortened(str(parts[0]))} is not a finite number")
        return value

    def true(self, _: list[Any]) -> Literal_:
        return True

    def false(self, _: list[Any]) -> Literal_:
        return False

    def time(self, parts: list[Any]) -> Literal_:
        if (moment := parse_time(_unquoted(parts[1]))) is None:
            raise _RefusedError(f"{parts[1]} is not a time; write timestamp '2024-05-01T08:30:00'")
        return moment


def _unquoted(token: Token) -> str:
    return token[1:-1].replace("''", "'")


def _pattern(pattern: str) -> str:
    """Checks a pattern of `like`: its length, and that backslashes only escape %, _ and themselves."""
    if len(pattern) > MOST_PATTERN:
        raise _RefusedError(f"a pattern of like has {len(pattern):,} characters, more than {MOST_PATTERN}")
    if re.search(r"\\(?![%_\\])", re.sub(r"\\[%_\\]", "", pattern)):
        raise _RefusedError("in a pattern of like a backslash stands only before %, _ or another backslash, which it makes literal")
    return pattern


@cache
def _parser() -> Lark:
    return Lark(
        _GRAMMAR,
        parser="lalr",
        lexer="basic",
        transformer=_Conditions(),
        lexer_callbacks={"NAME": _word},
        maybe_placeholders=True,
        propagate_positions=False,
    )
