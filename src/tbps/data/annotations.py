"""What every reader of an annotation file shares: strict reading of records, checks across records, published counts.

A reader says where its fields are (`Layout`) and what was published (`Published`); the rest happens here. Every refusal is an
AnnotationError that names the file, the index of the record (from 0) and the field.
"""

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

from tbps.data.records import PersonDataset, PersonImage
from tbps.errors import AnnotationError, CaptionError
from tbps.preprocess.caption import clean_caption
from tbps.preprocess.metadata import resolve_inside
from tbps.seeding import generator

SPLITS = ("train", "val", "test")

# Two of CLIP's 77 tokens mark start and end, and a word is at least one token.
CONTEXT_WORDS = 75

VAL_IDENTITIES = 200
VAL_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Layout:
    """Where an annotation file keeps its fields. `split`: the split of the whole file, None where each record names its own."""

    file: Path
    images: Path
    path_field: str = "file_path"
    split: str | None = None


@dataclass(frozen=True, slots=True)
class Published:
    """Counts that the authors published, per split; an absent count is not compared."""

    identities: Mapping[str, int] = field(default_factory=dict)
    images: Mapping[str, int] = field(default_factory=dict)
    captions: Mapping[str, int] = field(default_factory=dict)


def find_file(root: Path, *names: str, instead: str = "") -> Path:
    """The first of these files below `root`. Raises AnnotationError naming what was looked for and the remark `instead`."""
    if not root.is_dir():
        raise AnnotationError(f"{root} is not a folder; give the folder that holds {names[0]}")
    for name in names:
        if (root / name).is_file():
            return root / name
    raise AnnotationError(f"{root} holds no {' or '.join(names)}{'; ' + instead if instead else ''}")


def read_images(layout: Layout) -> tuple[PersonImage, ...]:
    """The records of a JSON list as images, each validated on its own; see `assemble` for the checks across records."""
    return tuple(_read_image(layout, index, record) for index, record in enumerate(_read_records(layout.file)))


def assemble(
    name: str, root: Path, tables: Mapping[Path, Sequence[PersonImage]], published: Published | None = None
) -> PersonDataset:
    """A data set from the images of each annotation file.

    Checks that all image files exist and that no identity lies in two splits; compares with the published counts; moves whole
    identities, the same ones every time, from train to val where there is no val: 200, or a tenth where that is fewer.
    """
    for file, members in tables.items():
        _require_files(file, members)
    _require_disjoint_splits(tables)
    images: Sequence[PersonImage] = [image for members in tables.values() for image in members]
    if not images:
        raise AnnotationError(f"{', '.join(map(str, tables))}: no record; an empty annotation file cannot be used")
    warnings = [*_count_differences(images, published or Published()), *_remarks(images)]
    if not any(image.split == "val" for image in images):
        images, remarks = _carve_val(name, images)
        warnings.extend(remarks)
    return PersonDataset(name, root, tuple(images), tuple(warnings))


def refuse(where: str, name: str, problem: str) -> NoReturn:
    """Raises the AnnotationError of one field; `where` names file and record."""
    raise AnnotationError(f"{where}, field {name!r}: {problem}")


def check_captions(where: str, name: str, captions: Any) -> tuple[str, ...]:
    """A non-empty list of texts, each with a word in it."""
    if not isinstance(captions, list | tuple) or not captions:
        refuse(where, name, f"expected a list with at least one caption, found {_shown(captions)}")
    for position, caption in enumerate(captions):
        if not isinstance(caption, str):
            refuse(where, name, f"caption {position} is {_shown(caption)}, expected text")
        if not _has_words(caption):
            refuse(where, name, f"caption {position} is empty; write it or remove it")
    return tuple(captions)


def check_split(where: str, split: Any) -> str:
    """One of train, val and test."""
    if not isinstance(split, str) or split not in SPLITS:
        refuse(where, "split", f"{_shown(split)} is none of {', '.join(SPLITS)}")
    return split


def check_path(where: str, name: str, images: Path, value: Any) -> Path:
    """A path inside the folder of images."""
    if not isinstance(value, str):
        refuse(where, name, f"expected a path, found {_shown(value)}")
    try:
        return resolve_inside(images, value)
    except AnnotationError as error:
        raise AnnotationError(f"{where}, field {name!r}: {error}") from error


def check_paraphrases(where: str, value: Any, captions: Sequence[str]) -> tuple[str, ...]:
    """`captions_bt`: absent, or exactly one paraphrase for each caption."""
    if value is None:
        return ()
    paraphrases = check_captions(where, "captions_bt", value)
    if len(paraphrases) != len(captions):
        refuse(where, "captions_bt", f"{len(paraphrases)} paraphrases for {len(captions)} captions; align them one to one")
    return paraphrases


def _read_records(file: Path) -> list[Any]:
    try:
        records = json.loads(file.read_bytes())
    except OSError as error:
        raise AnnotationError(f"{file}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise AnnotationError(f"{file}: is not JSON ({error})") from error
    if not isinstance(records, list):
        raise AnnotationError(f"{file}: expected a JSON list of records, found {type(records).__name__}")
    return records


def _read_image(layout: Layout, index: int, record: Any) -> PersonImage:
    where = f"{layout.file}: record {index}"
    if not isinstance(record, dict):
        raise AnnotationError(f"{where}: expected a JSON object, found {_shown(record)}")
    needed = [layout.path_field, "id", "captions", *([] if layout.split else ["split"])]
    for name in needed:
        if name not in record:
            refuse(where, name, f"is missing; the record has {', '.join(sorted(map(str, record))) or 'no field'}")
    identity = record["id"]
    if not isinstance(identity, int) or isinstance(identity, bool) or identity < 0:
        refuse(where, "id", f"expected a whole number from 0, found {_shown(identity)}")
    captions = check_captions(where, "captions", record["captions"])
    return PersonImage(
        path=check_path(where, layout.path_field, layout.images, record[layout.path_field]),
        identity=identity,
        split=layout.split or check_split(where, record["split"]),
        captions=captions,
        captions_bt=check_paraphrases(where, record.get("captions_bt"), captions),
    )


def _has_words(caption: str) -> bool:
    """Whether cleaning leaves anything; a letter or digit is proof enough and found fast."""
    if any(character.isalnum() for character in caption):
        return True
    try:
        return bool(clean_caption(caption))
    except CaptionError:
        return False


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _require_files(file: Path, images: Sequence[PersonImage]) -> None:
    missing = [index for index, image in enumerate(images) if not image.path.is_file()]
    if missing:
        raise AnnotationError(
            f"{file}: {len(missing):,} of {len(images):,} image files are missing, the first at record {missing[0]}: "
            f"{images[missing[0]].path}"
        )


def _require_disjoint_splits(tables: Mapping[Path, Sequence[PersonImage]]) -> None:
    first: dict[int, tuple[str, str]] = {}
    for file, images in tables.items():
        for index, image in enumerate(images):
            where = f"{file}: record {index}"
            split, earlier = first.setdefault(image.identity, (image.split, where))
            if split != image.split:
                refuse(where, "split", f"identity {image.identity} is in {image.split}, but in {split} at {earlier}")


def _count_differences(images: Sequence[PersonImage], published: Published) -> Iterable[str]:
    for split in SPLITS:
        members = [image for image in images if image.split == split]
        found = {
            "identities": len({image.identity for image in members}),
            "images": len(members),
            "captions": sum(len(image.captions) for image in members),
        }
        expected = {"identities": published.identities, "images": published.images, "captions": published.captions}
        for what, count in found.items():
            if split in expected[what] and expected[what][split] != count:
                yield f"{split}: {count:,} {what}, published {expected[what][split]:,}"


def _remarks(images: Sequence[PersonImage]) -> Iterable[str]:
    """Quirks that are worth knowing and no error."""
    repeated = len(images) - len({image.path for image in images})
    if repeated:
        yield f"{repeated:,} records repeat an image file of an earlier record"
    owners: defaultdict[str, set[int]] = defaultdict(set)
    for image in images:
        for caption in image.captions:
            owners[caption].add(image.identity)
    shared = sum(len(identities) > 1 for identities in owners.values())
    if shared:
        yield f"{shared:,} captions are worded the same on more than one identity"


def long_captions(images: Sequence[PersonImage]) -> list[str]:
    """The remark on captions that CLIP's context certainly cuts, if there are any."""
    lengths = [len(re.findall(r"\w+", caption)) for image in images for caption in image.captions]
    cut = sum(length > CONTEXT_WORDS for length in lengths)
    return [f"{cut:,} of {len(lengths):,} captions have more than {CONTEXT_WORDS} words: a context of 77 tokens cuts them"] * bool(
        cut
    )


def _carve_val(name: str, images: Sequence[PersonImage]) -> tuple[Sequence[PersonImage], list[str]]:
    identities = sorted({image.identity for image in images if image.split == "train"})
    count = min(VAL_IDENTITIES, math.ceil(len(identities) * VAL_SHARE))
    if len(identities) < 2:
        return images, []
    chosen = set(generator(0, "val", name).choice(identities, count, replace=False).tolist())
    carved = [replace(image, split="val") if image.split == "train" and image.identity in chosen else image for image in images]
    moved = sum(image.split == "val" for image in carved)
    return carved, [f"no val split: {count:,} identities with {moved:,} images were moved from train to val"]
