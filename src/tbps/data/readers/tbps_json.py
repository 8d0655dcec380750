"""The layout of TBPS-CLIP: `{split}_reid.json`, one file a split, with `captions_bt` (paraphrases) beside the captions.

Paths are relative to `imgs/` where that folder exists, else to the folder of the files. Identities are numbered anew by first
appearance over train, val and test.
"""

from dataclasses import replace
from pathlib import Path

from tbps.data.readers.annotations import SPLITS, Layout, assemble, find_file, read_images
from tbps.data.records import PersonDataset

NAME = "tbps"


def read(root: Path, *, allow_missing: bool = False) -> PersonDataset:
    """The data set below `root`; at least one of the three files must be there."""
    find_file(root, *(f"{split}_reid.json" for split in SPLITS))
    folder = root / "imgs" if (root / "imgs").is_dir() else root
    layouts = [Layout(root / f"{split}_reid.json", folder, split=split) for split in SPLITS]
    tables = {layout.file: read_images(layout) for layout in layouts if layout.file.is_file()}
    dataset = assemble(NAME, root, tables, allow_missing=allow_missing)
    numbers: dict[int, int] = {}
    images = tuple(replace(image, identity=numbers.setdefault(image.identity, len(numbers))) for image in dataset.images)
    return replace(dataset, images=images)
