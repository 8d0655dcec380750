"""The layout of TBPS-CLIP: `{split}_reid.json`, one file per split, with `captions_bt` (paraphrases) beside the captions.

Paths are relative to `imgs/` where that folder exists, else to the folder of the files. Identities are renumbered in order of
appearance over train, val and test.
"""

from dataclasses import replace
from pathlib import Path

from tbps.data.readers.annotations import SPLITS, AnnotationFile, assemble, find_file, read_images
from tbps.data.records import PersonDataset

NAME = "tbps"


def read(root: Path, *, allow_missing: bool = False) -> PersonDataset:
    """Reads the data set in `root`; at least one of the three files must exist."""
    find_file(root, *(f"{split}_reid.json" for split in SPLITS))
    folder = root / "imgs" if (root / "imgs").is_dir() else root
    sources = [AnnotationFile(root / f"{split}_reid.json", folder, split=split) for split in SPLITS]
    tables = {source.file: read_images(source) for source in sources if source.file.is_file()}
    dataset = assemble(NAME, root, tables, allow_missing=allow_missing)
    numbers: dict[int, int] = {}
    images = tuple(replace(image, identity=numbers.setdefault(image.identity, len(numbers))) for image in dataset.images)
    return replace(dataset, images=images)
