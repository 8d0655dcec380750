"""Parsing and validation of annotation files, shared by all readers; comparison with published counts.

A reader declares its file and field names (`AnnotationFile`) and the published counts (`Published`). Every error is an
AnnotationError that names the file, the record by its index (from 0) or its line, and the field.
"""

import json
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

from tbps.data.readers.missing import without_missing
from tbps.data.readers.paths import ImageFolder
from tbps.data.records import PersonDataset, PersonImage
from tbps.errors import AnnotationError, CaptionError
from tbps.preprocess.caption import clean_caption
from tbps.seeding import generator

SPLITS = ("train", "val", "test")
ALL = "all"

CONTEXT_WORDS = 75
"""Words that fit CLIP's context: two of its 77 tokens mark start and end, and a word is at least one token."""

MAX_IDENTITY = 2**63 - 1  # identities are compared as 64-bit integers

VAL_IDENTITIES = 200
VAL_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class AnnotationFile:
    """An annotation file and the names of its fields. `split`: the split of the whole file; None where each record has its own."""

    file: Path
    images: Path
    path_field: str = "file_path"
    split: str | None = None


@dataclass(frozen=True, slots=True)
class Published:
    """Counts published by the authors, per split or of "all" together; an absent count is not compared."""

    identities: Mapping[str, int] = field(default_factory=dict)
    images: Mapping[str, int] = field(default_factory=dict)
    captions: Mapping[str, int] = field(default_factory=dict)


def find_file(root: Path, *names: str, instead: str = "") -> Path:
    """Returns the first of `names` that exists in `root`. Raises AnnotationError, with the hint `instead`, if none exists."""
    if not os.path.isdir(root):
        raise AnnotationError(f"{root} is not a folder; give the folder that holds {names[0]}")
    for name in names:
        if os.path.isfile(root / name):
            return root / name
    below = [file.parent for name in names for file in sorted(root.glob(f"*/{name}"))]
    remark = f"; there is one in {below[0]}: give that folder" if below else f"; {instead}" if instead else ""
    raise AnnotationError(f"{root} holds no {' or '.join(names)}{remark}")


def read_images(source: AnnotationFile) -> tuple[PersonImage, ...]:
    """Reads the records of a JSON list as images, each validated separately; see `assemble` for checks across records."""
    folder = ImageFolder(source.images)
    return tuple(_read_image(source, folder, index, record) for index, record in enumerate(read_records(source.file)))


def assemble(
    name: str,
    root: Path,
    tables: Mapping[Path, Sequence[PersonImage]],
    published: Published | None = None,
    place: Callable[[int], str] = "record {}".format,
    *,
    allow_missing: bool = False,
) -> PersonDataset:
    """Builds a data set from the images of each annotation file.

    Checks that all image files exist (with `allow_missing`, leaves out records without one and reports how many) and that no
    identity is in two splits. Differences from the published counts become warnings. Without a val split, moves 200 identities of
    train (or a tenth, if that is fewer) to val, always the same ones. `place`: describes a record by its index, for messages.
    """
    _require_disjoint_splits(tables, place)
    images: list[PersonImage] = []
    left_out: list[str] = []
    for file, members in tables.items():
        kept, remarks = without_missing(file, root, members, place, allow_missing)
        images += kept
        left_out += remarks
    if not images:
        raise AnnotationError(f"{', '.join(map(str, tables))}: no record; an empty annotation file cannot be used")
    warnings = [
        *left_out,
        *_count_differences(images, published or Published()),
        *_remarks(images),
    ]
    if not any(image.split == "val" for image in images):
        carved, remarks = _carve_val(name, images)
        return PersonDataset(name, root, tuple(carved), (*warnings, *remarks))
    return PersonDataset(name, root, tuple(images), tuple(warnings))


def refuse(where: str, name: str, problem: str) -> NoReturn:
    """Raises AnnotationError for one field; `where` names file and record."""
    raise AnnotationError(f"{where}, field {name!r}: {problem}")


def check_captions(where: str, name: str, captions: Any) -> tuple[str, ...]:
    """Validates a non-empty list of texts, each with at least one word."""
    if not isinstance(captions, list | tuple) or not captions:
        refuse(where, name, f"expected a list with at least one caption, found {_shown(captions)}")
    for position, caption in enumerate(captions):
        if not isinstance(caption, str):
            refuse(where, name, f"caption {position} is {_shown(caption)}, expected text")
        if not _has_words(caption):
            refuse(where, name, f"caption {position} is empty; write it or remove it")
    return tuple(captions)


def check_split(where: str, split: Any) -> str:
    """Validates a split: train, val or test."""
    if not isinstance(split, str) or split not in SPLITS:
        refuse(where, "split", f"{_shown(split)} is none of {', '.join(SPLITS)}")
    return SPLITS[SPLITS.index(split)]  # one string object for all images


def check_path(where: str, name: str, images: ImageFolder, value: Any) -> Path:
    """Validates a path inside the image folder."""
    if not isinstance(value, str):
        refuse(where, name, f"expected a path, found {_shown(value)}")
    try:
        return images.resolve(value)
    except AnnotationError as error:
        raise AnnotationError(f"{where}, field {name!r}: {error}") from error
    except UnicodeEncodeError:  # half of a surrogate pair
        refuse(where, name, f"{_shown(value)} is not a file name")


def check_paraphrases(where: str, value: Any, captions: Sequence[str]) -> tuple[str, ...]:
    """Validates `captions_bt`: absent, or exactly one paraphrase per caption."""
    if value is None:
        return ()
    paraphrases = check_captions(where, "captions_bt", value)
    if len(paraphrases) != len(captions):
        refuse(where, "captions_bt", f"{len(paraphrases)} paraphrases for {len(captions)} captions; align them one to one")
    return paraphrases


def read_records(file: Path) -> list[Any]:
    """Reads a JSON list without validating its records. Raises AnnotationError if the file holds anything else."""
    try:
        records = json.loads(file.read_bytes())
    except OSError as error:
        raise AnnotationError(f"{file}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise AnnotationError(f"{file}: is not JSON ({error})") from error
    if not isinstance(records, list):
        raise AnnotationError(f"{file}: expected a JSON list of records, found {type(records).__name__}")
    return records


def _read_image(source: AnnotationFile, folder: ImageFolder, index: int, record: Any) -> PersonImage:
    where = f"{source.file}: record {index}"
    if not isinstance(record, dict):
        raise AnnotationError(f"{where}: expected a JSON object, found {_shown(record)}")
    needed = [source.path_field, "id", "captions", *([] if source.split else ["split"])]
    for name in needed:
        if name not in record:
            refuse(where, name, f"is missing; the record has {', '.join(sorted(map(str, record))) or 'no field'}")
    identity = record["id"]
    if not isinstance(identity, int) or isinstance(identity, bool) or not 0 <= identity <= MAX_IDENTITY:
        refuse(where, "id", f"expected a whole number from 0 to {MAX_IDENTITY}, found {_shown(identity)}")
    captions = check_captions(where, "captions", record["captions"])
    return PersonImage(
        path=check_path(where, source.path_field, folder, record[source.path_field]),
        identity=identity,
        split=source.split or check_split(where, record["split"]),
        captions=captions,
        captions_bt=check_paraphrases(where, record.get("captions_bt"), captions),
    )


def _has_words(caption: str) -> bool:
    """Returns whether cleaning leaves a word; looks for a letter or digit first, which is fast."""
    if any(map(str.isalnum, caption)):
        return True
    try:
        return bool(clean_caption(caption))
    except CaptionError:
        return False


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _require_disjoint_splits(tables: Mapping[Path, Sequence[PersonImage]], place: Callable[[int], str]) -> None:
    first: dict[int, tuple[PersonImage, Path, int]] = {}
    for file, images in tables.items():
        for index, image in enumerate(images):
            other, other_file, other_index = first.setdefault(image.identity, (image, file, index))
            if other.split != image.split:
                refuse(
                    f"{file}: {place(index)}",
                    "split",
                    f"identity {image.identity} is in {image.split}, but in {other.split} at {other_file}: {place(other_index)} "
                    f"({image.path.name} and {other.path.name}); put each identity into one split",
                )


def _count_differences(images: Sequence[PersonImage], published: Published) -> Iterable[str]:
    for split in (*SPLITS, ALL):
        members = [image for image in images if split in (image.split, ALL)]
        found = {
            "identities": len({image.identity for image in members}),
            "images": len(members),
            "captions": sum(len(image.captions) for image in members),
        }
        expected = {"identities": published.identities, "images": published.images, "captions": published.captions}
        for what, count in found.items():
            if split in expected[what] and expected[what][split] != count:
                yield f"{'' if split == ALL else f'{split}: '}{count:,} {what}, published {expected[what][split]:,}"


def _remarks(images: Sequence[PersonImage]) -> Iterable[str]:
    """Yields remarks on unusual data that are not errors."""
    repeated = len(images) - len({image.path for image in images})
    if repeated:
        yield f"{repeated:,} records repeat an image file of an earlier record"
    first: dict[str, int] = {}
    shared = {
        caption for image in images for caption in image.captions if first.setdefault(caption, image.identity) != image.identity
    }
    if shared:
        yield f"{len(shared):,} captions are worded the same on more than one identity"


def long_captions(images: Sequence[PersonImage]) -> list[str]:
    """Returns a warning about captions that certainly exceed CLIP's context; empty if there are none."""
    lengths = [len(re.findall(r"\w+", caption)) for image in images for caption in image.captions]
    cut = sum(length > CONTEXT_WORDS for length in lengths)
    remark = f"{cut:,} of {len(lengths):,} captions have more than {CONTEXT_WORDS} words: a context of 77 tokens cuts them"
    return [remark] if cut else []


def _carve_val(name: str, images: Sequence[PersonImage]) -> tuple[Sequence[PersonImage], list[str]]:
    identities = sorted({image.identity for image in images if image.split == "train"})
    count = min(VAL_IDENTITIES, math.ceil(len(identities) * VAL_SHARE))
    if len(identities) < 2:
        return images, []
    chosen = set(generator(0, "val", name).choice(identities, count, replace=False).tolist())
    carved = [replace(image, split="val") if image.split == "train" and image.identity in chosen else image for image in images]
    moved = sum(image.split == "val" for image in carved)
    return carved, [f"no val split: {count:,} identities with {moved:,} images were moved from train to val"]
