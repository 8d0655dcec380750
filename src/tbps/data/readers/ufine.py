"""UFine6926 (Zuo et al., CVPR 2024): `UFine6926_Annotations_1024.json`, with paths such as `images/1.jpg` relative to its folder.

Copies that keep the images in `imgs/`, with paths relative to it as in other data sets, are read too. Captions have about 81 words
and exceed CLIP's context. Records name their split; without a val split, it is taken from train by identity.
"""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from tbps.data.readers.annotations import (
    ALL,
    AnnotationFile,
    Published,
    assemble,
    find_file,
    long_captions,
    read_images,
    read_records,
)
from tbps.data.records import PersonDataset

NAME = "ufine6926"
FILE = "UFine6926_Annotations_1024.json"

PUBLISHED = Published(identities={ALL: 6_926}, images={ALL: 26_206}, captions={ALL: 52_412})


def read(root: Path, *, allow_missing: bool = False) -> PersonDataset:
    """Reads the data set in `root`; warns about captions that exceed CLIP's context."""
    file = find_file(root, FILE, instead="request it from the authors")
    images = read_images(AnnotationFile(file, _base(root, read_records(file))))
    dataset = assemble(NAME, root, {file: images}, PUBLISHED, allow_missing=allow_missing)
    return replace(dataset, warnings=(*dataset.warnings, *long_captions(dataset.images)))


def _base(root: Path, records: list[Any]) -> Path:
    """Returns the folder that paths are relative to: `root` as published, or `imgs/` if the first image found is there."""
    for record in records:
        name = record.get("file_path") if isinstance(record, dict) else None
        if isinstance(name, str) and "\0" not in name:
            if os.path.isfile(os.path.join(root, name)):
                return root
            if os.path.isfile(os.path.join(root, "imgs", name)):
                return root / "imgs"
    return root
