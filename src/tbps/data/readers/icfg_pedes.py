"""ICFG-PEDES (Ding et al., 2021): `ICFG-PEDES.json`, with paths relative to `imgs/` and one caption per image.

The folders `imgs/train` and `imgs/test` are MSMT17's and do not equal the splits. No val split is published.
"""

from pathlib import Path

from tbps.data.readers.annotations import AnnotationFile, Published, assemble, find_file, read_images
from tbps.data.records import PersonDataset

NAME = "icfg-pedes"
FILE = "ICFG-PEDES.json"

PUBLISHED = Published(
    identities={"train": 3_102, "test": 1_000},
    images={"train": 34_674, "test": 19_848},
    captions={"train": 34_674, "test": 19_848},
)


def read(root: Path, *, allow_missing: bool = False) -> PersonDataset:
    """Reads the data set in `root`; val is taken from train by identity."""
    file = find_file(root, FILE, "ICFG_PEDES.json", instead="request it from the authors")
    images = read_images(AnnotationFile(file, root / "imgs"))
    return assemble(NAME, root, {file: images}, PUBLISHED, allow_missing=allow_missing)
