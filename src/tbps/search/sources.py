"""Which pictures there are to index: a folder, a folder with a `metadata.jsonl`, or a list of files and pictures."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from tbps.errors import AnnotationError, DataError
from tbps.preprocess.metadata import METADATA_FILE, read_metadata, resolve_inside
from tbps.search.manifest import MANIFEST_FILE

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})

Picture = str | Path | Image.Image
Failure = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One picture to index: `name` below `root` for a file, `picture` its path or the picture itself."""

    name: str
    root: str
    picture: Path | Image.Image
    columns: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sources:
    """Candidates in a fixed order, what is already known to fail with the reason, and remarks."""

    candidates: tuple[Candidate, ...]
    failed: tuple[Failure, ...] = ()
    notes: tuple[str, ...] = ()


def find_sources(images: str | Path | Iterable[Picture], metadata: str | Path | Sequence[Mapping[str, Any]] | None) -> Sources:
    """Every picture of a folder and its subfolders by name, or those that its `metadata.jsonl` names, or those of a list.

    Hidden files and folders, other galleries and links that lead out of the folder are left out. `metadata` is another file in
    place of the folder's own, or one mapping for each picture of a list.
    Raises DataError when there is nothing to index, AnnotationError on a malformed metadata file.
    """
    if isinstance(images, str | Path) and os.path.isdir(images):
        if metadata is not None and not isinstance(metadata, str | Path):
            raise DataError("a folder takes its metadata from a file; pass its path, or pass the pictures as a list")
        return _of_folder(Path(images), None if metadata is None else Path(metadata))
    if isinstance(images, str | Path):
        if not os.path.exists(images):
            raise DataError(f"{images} does not exist; give a folder of pictures")
        images = [images]
    if isinstance(metadata, str | Path):
        raise DataError(
            f"the names in {metadata} are relative to a folder; index that folder, or pass one mapping for each picture of the list"
        )
    return _of_list(list(images), metadata)


def _of_list(pictures: Sequence[Picture], metadata: Sequence[Mapping[str, Any]] | None) -> Sources:
    if not pictures:
        raise DataError("there is no picture to index: the list is empty")
    if metadata is not None and len(metadata) != len(pictures):
        raise DataError(f"{len(pictures)} pictures but {len(metadata)} metadata mappings; give one for each picture")
    rows = metadata if metadata is not None else [{}] * len(pictures)
    candidates = []
    for number, (picture, columns) in enumerate(zip(pictures, rows, strict=True)):
        if isinstance(picture, Image.Image):
            candidates.append(Candidate(f"picture-{number:06d}", "", picture, columns))
        else:
            path = Path(picture).absolute()
            candidates.append(Candidate(path.name, str(path.parent), path, columns))
    return Sources(tuple(candidates))


def _of_folder(folder: Path, metadata: Path | None) -> Sources:
    root = Path(os.path.realpath(folder))
    if metadata is not None and not os.path.isfile(metadata):
        raise DataError(f"metadata file {metadata} does not exist")
    file = metadata or root / METADATA_FILE
    failed: list[Failure] = []
    files = sorted(_walk(root, root, failed))
    found = _named_by(file, root, files) if file.is_file() else _all_of(root, files, failed)
    if not found.candidates and not found.failed:
        what = f"{file} names no picture" if file.is_file() else f"{folder} holds no picture ({', '.join(sorted(SUFFIXES))})"
        raise DataError(f"{what}; give a folder of pictures")
    return found


def _all_of(root: Path, names: Sequence[str], failed: Sequence[Failure]) -> Sources:
    return Sources(tuple(Candidate(name, str(root), root / name) for name in names), tuple(failed))


def _named_by(file: Path, root: Path, names: Sequence[str]) -> Sources:
    candidates: list[Candidate] = []
    failed: list[Failure] = []
    lines: dict[Path, int] = {}
    for row in read_metadata(file):
        try:
            path = resolve_inside(root, row.file_name)
        except AnnotationError as error:
            failed.append((row.file_name, f"line {row.line}: {error}"))
            continue
        if path in lines:
            failed.append((row.file_name, f"line {row.line}: already named in line {lines[path]}, whose metadata are kept"))
        elif not os.path.isfile(path):  # Path.is_file raises on a name too long for the disk
            failed.append((row.file_name, f"line {row.line}: there is no such file"))
        else:
            lines[path] = row.line
            candidates.append(Candidate(path.relative_to(root).as_posix(), str(root), path, row.columns))
    unnamed = len(set(names) - {candidate.name for candidate in candidates})
    notes = (f"{unnamed} pictures of the folder are not named in {file.name} and were left out",) if unnamed else ()
    return Sources(tuple(candidates), tuple(failed), notes)


def _walk(folder: Path, root: Path, failed: list[Failure]) -> Iterator[str]:
    try:
        with os.scandir(folder) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)
    except OSError as error:
        if folder == root:
            raise DataError(f"{folder} cannot be read ({error.strerror})") from error
        failed.append((folder.relative_to(root).as_posix(), f"cannot be read ({error.strerror})"))
        return
    if any(entry.name == MANIFEST_FILE for entry in entries):  # a gallery holds no photographs
        return
    for entry in entries:
        name = Path(entry.path).relative_to(root).as_posix()
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path), root, failed)
        elif entry.is_symlink() and entry.is_dir():
            failed.append((name, "is a link to a folder, which is not followed; index that folder itself"))
        elif Path(entry.name).suffix.lower() in SUFFIXES:
            if entry.is_symlink() and not Path(os.path.realpath(entry.path)).is_relative_to(root):
                failed.append((name, "is a link that leads out of the folder; copy the file instead"))
            else:
                yield name
