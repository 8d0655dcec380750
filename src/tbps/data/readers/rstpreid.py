"""RSTPReid (Zhu et al., 2021): `data_captions.json`, with `img_path` relative to `imgs/` and two captions per image.

A file name such as `0000_c5_0022.jpg` contains identity, camera and index.
"""

import re
from dataclasses import replace
from pathlib import Path

from tbps.data.readers.annotations import SPLITS, AnnotationFile, Published, assemble, find_file, read_images
from tbps.data.records import PersonDataset, PersonImage

NAME = "rstpreid"
FILE = "data_captions.json"
CAMERAS = 15
# Numbers of identities per split of a faulty early release.
FAULTY = (3_901, 100, 100)

PUBLISHED = Published(
    identities={"train": 3_701, "val": 200, "test": 200},
    images={"train": 18_505, "val": 1_000, "test": 1_000},
    captions={"train": 37_010, "val": 2_000, "test": 2_000},
)

_FILE_NAME = re.compile(r"(\d+)_c(\d+)_\d+")
_CODE = re.compile(r"[{}<>\\=\[\]]|\w\(|function|return |null\b")


def read(root: Path, *, allow_missing: bool = False) -> PersonDataset:
    """Reads the data set in `root` and the camera of each image; warns about the faulty release and about damaged captions."""
    file = find_file(root, FILE, instead="request it from the authors")
    records = read_images(AnnotationFile(file, root / "imgs", path_field="img_path"))
    dataset = assemble(NAME, root, {file: records}, PUBLISHED, allow_missing=allow_missing)
    images = tuple(replace(image, camera=_camera(image)) for image in dataset.images)
    return replace(dataset, images=images, warnings=(*_remarks(images), *dataset.warnings))


def _camera(image: PersonImage) -> str | None:
    match = _FILE_NAME.match(image.path.stem)
    return f"c{match[2]}" if match else None


def _remarks(images: tuple[PersonImage, ...]) -> list[str]:
    remarks = []
    identities = tuple(len({image.identity for image in images if image.split == split}) for split in SPLITS)
    if identities == FAULTY:
        remarks.append("this is the faulty early release (3,901/100/100 identities); results do not compare: get the corrected one")
    cameras = {image.camera for image in images}
    if None in cameras:
        nameless = sum(image.camera is None for image in images)
        remarks.append(f"{nameless:,} file names do not have the form 0000_c5_0022.jpg and tell no camera")
    if len(cameras - {None}) != CAMERAS:
        remarks.append(f"{len(cameras - {None})} cameras, published {CAMERAS}")
    code = sum(bool(_CODE.search(caption)) for image in images for caption in image.captions)
    if code:
        remarks.append(f"{code:,} captions seem to contain fragments of program code")
    return remarks
