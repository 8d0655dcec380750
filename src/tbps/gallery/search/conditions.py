"""Applies the conditions of a query to the rows of a version: filters, cameras, and the column to group by."""

from collections.abc import Mapping, Sequence

import numpy as np

from tbps.errors import QueryError, UnknownIdError
from tbps.gallery.search.query import Query
from tbps.gallery.store.columns import column_name
from tbps.gallery.store.filter_reading import written
from tbps.gallery.store.filters import (
    Condition,
    all_of,
    between,
    check_text,
    equal,
    no_camera,
    sentences,
    unknown_column,
    values_of,
)
from tbps.gallery.store.numbers import canonical_name
from tbps.gallery.store.retention_rules import read_retention
from tbps.gallery.store.scope import Scope
from tbps.gallery.store.version import Version

ID_LENGTH = 24
MOST_EQUALS = 200  # a table has fewer columns
_MOST_NOTICES = 3


def passing_of(query: Query, version: Version, scope: Scope | None) -> tuple[str | None, np.ndarray | None]:
    """The column to group by, and ascending positions of the rows that pass the filters; None: all rows.

    scope: the rows that the caller may see; None: all. Raises QueryError on a column or camera that does not exist among these, and
    on a value that does not fit its column.
    """
    if len(query.equals) > MOST_EQUALS:
        raise QueryError(f"{len(query.equals):,} columns are compared by equals, more than {MOST_EQUALS}")
    group = None if query.group is None else _group_column(query.group, version.kinds if scope is None else scope.kinds)
    conditions: list[Condition] = [] if query.where is None else [written(query.where)]
    conditions += between(query.since, query.until)
    if query.cameras:
        _check_cameras(query.cameras, version, scope)
        conditions.append(equal("camera", query.cameras))
    for column, value in query.equals.items():
        conditions.append(equal(column, (value,)))
        if column_name(column) == "camera":
            _check_cameras([str(value)] if isinstance(value, str) else [], version, scope)
    condition = all_of(conditions)
    if condition is None:
        return group, None if scope is None else scope.positions
    return group, version.passing(condition) if scope is None else scope.passing(condition, version.passing)


def camera_notices(query: Query, version: Version, scope: Scope | None) -> tuple[str, ...]:
    """Notices about cameras that the query's filter names but that have no image."""
    if query.where is None:
        return ()
    compared = list(dict.fromkeys(values_of(written(query.where), "camera")))
    known = _cameras(version, scope) if compared else set()
    return tuple(no_camera(name, known) for name in compared if canonical_name(name) not in known)[:_MOST_NOTICES]


def position_of(id: str, version: Version, scope: Scope | None) -> int:
    """The position of the image with an id. Raises UnknownIdError if there is none in the scope."""
    # Ids of another length are excluded first, since NumPy ignores trailing zero bytes in comparisons.
    same = version.rows.ids == id.encode("ascii", "replace") if len(id) == ID_LENGTH else np.zeros(0, np.bool_)
    positions = np.flatnonzero(same)
    if not len(positions) or (scope is not None and int(positions[0]) not in scope):
        raise UnknownIdError(f"no image of the gallery has the id {id!r}; use the id of a hit")
    return int(positions[0])


def embeddings_of(ids: Sequence[str], version: Version, scope: Scope | None) -> dict[str, np.ndarray]:
    """The embeddings of images by id. Raises UnknownIdError."""
    return {id: version.rows.embeddings[position_of(id, version, scope)].astype(np.float64) for id in ids}


def _group_column(name: str, kinds: Mapping[str, str]) -> str:
    check_text("the column to group by", name)
    column = column_name(name)
    if kinds.get(column) in (None, "JSON text"):
        known = {each: kind for each, kind in kinds.items() if kind != "JSON text"}
        reason = unknown_column(name, known, "to group by")
        raise QueryError(f"{sentences(reason)} Columns: {', '.join(known)}")
    return column


def _check_cameras(cameras: Sequence[str], version: Version, scope: Scope | None) -> None:
    """Raises QueryError on the first camera that has no image and no retention rule; the message suggests a similar name."""
    known = _cameras(version, scope)
    missing = [camera for camera in cameras if canonical_name(camera) not in known]
    if missing and scope is None:  # all images of a camera may have been forgotten by its rule
        ruled = {canonical_name(camera) for camera in read_retention(version.folder).cameras}
        missing = [camera for camera in missing if canonical_name(camera) not in ruled]
    if missing:
        check_text("a camera", missing[0])
        raise QueryError(no_camera(missing[0], known))


def _cameras(version: Version, scope: Scope | None) -> set[str]:
    """The cameras that have images in the scope, and the scope's own cameras even if they have none."""
    column = version.column("camera")
    codes = column.codes if scope is None else column.codes[scope.positions]
    found = {column.values[code] for code in np.unique(codes).tolist() if code >= 0}
    return found if scope is None else found | set(scope.cameras)
