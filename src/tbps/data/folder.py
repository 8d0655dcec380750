"""One's own photographs: `metadata.jsonl` beside the images (see `tbps.preprocess.metadata` for the line format).

Columns with a meaning, all optional but the captions: `identity` (text or whole number; without it every image is a person of
its own), `split` (default test), `camera`, `captured_at`, `captions_bt`. All others become attributes.
"""

from pathlib import Path
from typing import Any

from tbps.data.annotations import assemble, check_captions, check_paraphrases, check_path, check_split, find_file, refuse
from tbps.data.records import PersonDataset, PersonImage
from tbps.preprocess.metadata import METADATA_FILE, MetadataRow, read_metadata

NAME = "folder"


def read(root: Path) -> PersonDataset:
    """The data set below `root`; identities are numbered by first appearance.

    Besides the checks that all readers share, two lines with the same `file_name` are refused.
    """
    file = find_file(root, METADATA_FILE, instead="write one JSON object a line with 'file_name' and 'caption'")
    numbers: dict[tuple[str, str], int] = {}
    lines: dict[Path, int] = {}
    images: list[PersonImage] = []
    for row in read_metadata(file):
        image = _read_row(file, row, numbers)
        first = lines.setdefault(image.path, row.line)
        if first != row.line:
            where = f"{file}: line {row.line}"
            refuse(where, "file_name", f"repeats {row.file_name!r} of line {first}; give each image one line")
        images.append(image)
    return assemble(NAME, root, {file: images})


def _read_row(file: Path, row: MetadataRow, numbers: dict[tuple[str, str], int]) -> PersonImage:
    where = f"{file}: line {row.line}"
    columns: dict[str, Any] = dict(row.columns)
    captions = check_captions(where, "captions", row.captions)
    split = columns.pop("split", None)
    return PersonImage(
        path=check_path(where, "file_name", file.parent, row.file_name),
        identity=numbers.setdefault(_person(where, columns.pop("identity", None)), len(numbers)),
        split="test" if split is None else check_split(where, split),
        captions=captions,
        captions_bt=check_paraphrases(where, columns.pop("captions_bt", None), captions),
        camera=_label(where, "camera", columns.pop("camera", None)),
        captured_at=_label(where, "captured_at", columns.pop("captured_at", None)),
        attributes=columns,
    )


def _person(where: str, identity: Any) -> tuple[str, str]:
    """A key that is the same for the same person; the number 7 and the text "7" are the same person."""
    if isinstance(identity, int) and not isinstance(identity, bool) and identity < 0:
        refuse(where, "identity", f"expected text or a whole number from 0, found {identity}")
    name = _label(where, "identity", identity)
    return ("own", where) if name is None else ("named", name)


def _label(where: str, name: str, value: Any) -> str | None:
    """Text, or a whole number as text."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        refuse(where, name, f"expected text or a whole number, found {value!r}")
    return str(value)
