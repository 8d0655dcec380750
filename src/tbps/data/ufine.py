"""UFine6926 (Zuo et al., CVPR 2024): `UFine6926_Annotations_1024.json`, with paths relative to `imgs/`.

About 81 words a caption: longer than CLIP's context.
"""

from dataclasses import replace
from pathlib import Path

from tbps.data.annotations import Layout, assemble, find_file, long_captions, read_images
from tbps.data.records import PersonDataset

NAME = "ufine6926"
FILE = "UFine6926_Annotations_1024.json"
IDENTITIES = 6_926


def read(root: Path) -> PersonDataset:
    """The data set below `root`, with a remark on how many captions are longer than CLIP's context."""
    file = find_file(root, FILE, instead="request it from the authors")
    dataset = assemble(NAME, root, {file: read_images(Layout(file, root / "imgs"))})
    found = len({image.identity for image in dataset.images})
    difference = [f"{found:,} identities, published {IDENTITIES:,}"] if found != IDENTITIES else []
    return replace(dataset, warnings=(*difference, *dataset.warnings, *long_captions(dataset.images)))
