"""The name of a data set and the reader of its layout."""

import difflib
from collections.abc import Callable
from pathlib import Path

from tbps.data import cuhk_pedes, folder, icfg_pedes, rstpreid, tbps_json, ufine
from tbps.data.annotations import Published
from tbps.data.records import PersonDataset
from tbps.errors import DataError

_READERS: dict[str, Callable[[Path], PersonDataset]] = {
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
    """The counts that the authors of a data set published, None for others."""
    return _PUBLISHED.get(name)


def names() -> list[str]:
    """Every name that `read_dataset` knows."""
    return list(_READERS)


def read_dataset(name: str, root: Path) -> PersonDataset:
    """The data set of that name in the folder `root`. Raises DataError for an unknown name, AnnotationError for a bad file."""
    if name not in _READERS:
        likely = difflib.get_close_matches(name.lower(), names(), n=1, cutoff=0.4)
        hint = f"; did you mean {likely[0]!r}?" if likely else ""
        raise DataError(f"unknown data set {name!r}: choose one of {', '.join(names())}{hint}")
    return _READERS[name](root)
