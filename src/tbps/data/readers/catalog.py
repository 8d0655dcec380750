"""Data set names and their readers."""

import difflib
from pathlib import Path
from typing import Protocol

from tbps.data.readers import cuhk_pedes, folder, icfg_pedes, rstpreid, tbps_json, ufine
from tbps.data.readers.annotations import Published
from tbps.data.records import PersonDataset
from tbps.errors import DataError


class Reader(Protocol):
    """Reader of a layout. `allow_missing`: leaves out records whose image file is missing; a warning counts them."""

    def __call__(self, root: Path, *, allow_missing: bool = False) -> PersonDataset: ...


_READERS: dict[str, Reader] = {
    cuhk_pedes.NAME: cuhk_pedes.read,
    icfg_pedes.NAME: icfg_pedes.read,
    rstpreid.NAME: rstpreid.read,
    tbps_json.NAME: tbps_json.read,
    ufine.NAME: ufine.read,
    folder.NAME: folder.read,
}

_PUBLISHED = {
    cuhk_pedes.NAME: cuhk_pedes.PUBLISHED,
    icfg_pedes.NAME: icfg_pedes.PUBLISHED,
    rstpreid.NAME: rstpreid.PUBLISHED,
}


def published(name: str) -> Published | None:
    """Returns the counts published by the authors of a data set; None if there are none."""
    return _PUBLISHED.get(name)


def names() -> list[str]:
    """Lists the names that `read_dataset` accepts."""
    return list(_READERS)


def read_dataset(name: str, root: Path, *, allow_missing: bool = False) -> PersonDataset:
    """Reads a data set in the folder `root`; with `allow_missing`, records whose image file is missing are left out.

    Raises DataError for an unknown name, AnnotationError for an invalid file.
    """
    if name not in _READERS:
        likely = difflib.get_close_matches(name.lower(), names(), n=1, cutoff=0.4)
        hint = f"; did you mean {likely[0]!r}?" if likely else ""
        raise DataError(f"unknown data set {name!r}: choose one of {', '.join(names())}{hint}")
    return _READERS[name](root, allow_missing=allow_missing)
