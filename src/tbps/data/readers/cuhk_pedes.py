"""CUHK-PEDES (Li et al., CVPR 2017): `reid_raw.json`, with paths relative to `imgs/`."""

from pathlib import Path

from tbps.data.readers.annotations import AnnotationFile, Published, assemble, find_file, read_images
from tbps.data.records import PersonDataset

NAME = "cuhk-pedes"
FILE = "reid_raw.json"

PUBLISHED = Published(
    identities={"train": 11_003, "val": 1_000, "test": 1_000},
    images={"train": 34_054, "val": 3_078, "test": 3_074},
    captions={"train": 68_126, "val": 6_158, "test": 6_156},
)


def read(root: Path, *, allow_missing: bool = False) -> PersonDataset:
    """Reads the data set in `root`. The older file `caption_all.json` has no splits and is refused with an explanation."""
    older = "its caption_all.json is the older release without splits; get reid_raw.json from the authors"
    file = find_file(root, FILE, instead=older if (root / "caption_all.json").exists() else "request it from the authors")
    images = read_images(AnnotationFile(file, root / "imgs"))
    return assemble(NAME, root, {file: images}, PUBLISHED, allow_missing=allow_missing)
