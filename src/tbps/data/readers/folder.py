"""Reader of your own photographs: `metadata.jsonl` beside the images (`tbps.preprocess.metadata` describes the lines).

Recognised columns, all optional except the captions: `identity` (text or whole number; images without one have distinct
identities), `split` (default test), `camera`, `captured_at`, `captions_bt`. All others become attributes.
"""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

from tbps.data.readers.annotations import assemble, check_captions, check_paraphrases, check_path, check_split, find_file, refuse
from tbps.data.readers.paths import ImageFolder
from tbps.data.records import PersonDataset, PersonImage
from tbps.preprocess.metadata import METADATA_FILE, MetadataRow, read_metadata
from tbps.preprocess.names import label

NAME = "folder"


def read(root: Path, *, allow_missing: bool = False) -> PersonDataset:
    """Reads the data set in `root`; identities are numbered in order of appearance.

    Raises AnnotationError as all readers do, and for two lines with the same `file_name`.
    """
    file = find_file(root, METADATA_FILE, instead="write one JSON object per line with 'file_name' and 'caption'")
    folder = ImageFolder(file.parent)
    known: dict[Hashable, Any] = {}
    numbers: dict[tuple[str, str], int] = {}
    lines: dict[Path, int] = {}
    images: list[PersonImage] = []
    for row in read_metadata(file):
        where = f"{file}: line {row.line}"
        image = _read_row(where, row, folder, numbers, known)
        first = lines.setdefault(image.path, row.line)
        if first != row.line:
            refuse(where, "file_name", f"repeats {row.file_name!r} of line {first}; give each image one line")
        images.append(image)
    numbered = list(lines.values())
    return assemble(NAME, root, {file: images}, place=lambda index: f"line {numbered[index]}", allow_missing=allow_missing)


def _read_row(
    where: str, row: MetadataRow, folder: ImageFolder, numbers: dict[tuple[str, str], int], known: dict[Hashable, Any]
) -> PersonImage:
    columns: dict[str, Any] = dict(row.columns)
    captions = check_captions(where, "captions", row.captions)
    split = columns.pop("split", None)
    return PersonImage(
        path=check_path(where, "file_name", folder, row.file_name),
        identity=numbers.setdefault(_person(where, columns.pop("identity", None)), len(numbers)),
        split="test" if split is None else check_split(where, split),
        captions=captions,
        captions_bt=check_paraphrases(where, columns.pop("captions_bt", None), captions),
        camera=_shared(_label(where, "camera", columns.pop("camera", None)), known),
        captured_at=_label(where, "captured_at", columns.pop("captured_at", None)),
        attributes=_shared(columns, known),
    )


def _shared(value: Any, known: dict[Hashable, Any]) -> Any:
    """Returns an equal value that shares texts and lists of texts with earlier values (`known`).

    Columns repeat a few words many times; the copies that JSON creates per image would take most of a data set's memory.
    """
    if isinstance(value, str):
        return known.setdefault(value, value)
    if isinstance(value, dict):
        return {known.setdefault(key, key): _shared(item, known) for key, item in value.items()}
    if isinstance(value, list):
        if not {str}.issuperset(map(type, value)):
            return [_shared(item, known) for item in value]
        found = known.get(tuple(value))
        return found if found is not None else known.setdefault(tuple(value), [_shared(item, known) for item in value])
    return value


def _person(where: str, identity: Any) -> tuple[str, str]:
    """Returns a key of the person; the number 7 and the text "7" are the same person."""
    if isinstance(identity, int) and not isinstance(identity, bool) and identity < 0:
        refuse(where, "identity", f"expected text or a whole number from 0, found {identity}")
    name = _label(where, "identity", identity)
    return ("own", where) if name is None else ("named", name)


def _label(where: str, name: str, value: Any) -> str | None:
    """Validates text or a whole number, and returns it as text."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        refuse(where, name, f"expected text or a whole number, found {value!r}")
    return label(str(value))
