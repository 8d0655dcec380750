"""Layouts in which mannequins are written: `folder` and those of published data sets.

A layout names the image files and creates the annotation files. Where published file names contain identity and camera (RSTPReid),
so do these; otherwise names are positions in one shuffle of the whole data set.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tbps.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Shot:
    """Record of an image in the data set. Only `identity` depends on the person.

    `identity`: from 0 over all splits, shuffled within each; `position`: from 0, shuffled over the whole data set; `camera`: 1 ..
    15; `captured_at`: ISO 8601.
    """

    split: str
    identity: int
    position: int
    camera: int
    captured_at: str


@dataclass(frozen=True, slots=True)
class Described:
    """Description of an image. `attributes`: see `shown_attributes`; `mentions`: for each caption, slot -> compatible values."""

    captions: tuple[str, ...]
    captions_bt: tuple[str, ...]
    mentions: tuple[Mapping[str, Sequence[str]], ...]
    attributes: Mapping[str, str]
    view: Mapping[str, Any]


DescribedShot = tuple[Shot, Described]


@dataclass(frozen=True, slots=True)
class MannequinLayout:
    """A layout. `annotate`: creates annotation files (name -> content) from descriptions in the order of their positions."""

    name: str
    image: Callable[[Shot], str]  # path below the data set's folder
    annotate: Callable[[Sequence[DescribedShot], "MannequinLayout"], dict[str, str]]
    splits: tuple[str, ...] = ("train", "val", "test")


def find_layout(name: str) -> MannequinLayout:
    """Returns the layout of that name. Raises SettingsError, which lists the names, for an unknown one."""
    if name not in LAYOUTS:
        raise SettingsError(f"unknown layout {name!r}; choose one of {', '.join(LAYOUTS)}")
    return LAYOUTS[name]


def _by_position(shot: Shot) -> str:
    return f"images/{shot.position:06d}.jpg"


def _below_imgs(shot: Shot) -> str:
    return f"imgs/mannequins/{shot.position:06d}.jpg"


def _rstpreid_image(shot: Shot) -> str:
    return f"imgs/{shot.identity:04d}_c{shot.camera}_{shot.position:04d}.jpg"


def _folder(crops: Sequence[DescribedShot], own: MannequinLayout) -> dict[str, str]:
    lines = [
        json.dumps(
            {
                "file_name": own.image(shot),
                "captions": crop.captions,
                "captions_bt": crop.captions_bt,
                "identity": shot.identity,
                "split": shot.split,
                "camera": f"camera-{shot.camera:02d}",
                "captured_at": shot.captured_at,
                "attributes": crop.attributes,
                "mentions": crop.mentions,
                "view": crop.view,
            }
        )
        for shot, crop in crops
    ]
    return {"metadata.jsonl": "".join(f"{line}\n" for line in lines)}


def _cuhk_pedes(crops: Sequence[DescribedShot], own: MannequinLayout) -> dict[str, str]:
    records = [
        {
            "split": shot.split,
            "captions": crop.captions,
            "file_path": own.image(shot).removeprefix("imgs/"),
            "processed_tokens": [_tokens(caption) for caption in crop.captions],
            "id": shot.identity + 1,
        }
        for shot, crop in crops
    ]
    return {"reid_raw.json": _json(records)}


def _icfg_pedes(crops: Sequence[DescribedShot], own: MannequinLayout) -> dict[str, str]:
    records = [
        {
            "split": shot.split,
            "captions": crop.captions[:1],
            "file_path": own.image(shot).removeprefix("imgs/"),
            "processed_tokens": [_tokens(crop.captions[0])],
            "id": shot.identity,
        }
        for shot, crop in crops
    ]
    return {"ICFG-PEDES.json": _json(records)}


def _rstpreid(crops: Sequence[DescribedShot], own: MannequinLayout) -> dict[str, str]:
    records = [
        {
            "id": shot.identity,
            "img_path": own.image(shot).removeprefix("imgs/"),
            "captions": crop.captions,
            "split": shot.split,
        }
        for shot, crop in crops
    ]
    return {"data_captions.json": _json(records)}


def _tbps(crops: Sequence[DescribedShot], own: MannequinLayout) -> dict[str, str]:
    files: dict[str, list[dict[str, Any]]] = {}
    for shot, crop in crops:
        record = {"file_path": own.image(shot).removeprefix("imgs/"), "id": shot.identity, "captions": crop.captions}
        paraphrases = {"captions_bt": crop.captions_bt} if shot.split == "train" else {}
        files.setdefault(f"{shot.split}_reid.json", []).append(record | paraphrases)
    return {name: _json(records) for name, records in files.items()}


def _tokens(caption: str) -> list[str]:
    return caption.lower().replace(",", " ").replace(".", " ").split()


def _json(records: Sequence[Mapping[str, Any]]) -> str:
    return json.dumps(records, indent=0) + "\n"


LAYOUTS: Mapping[str, MannequinLayout] = {
    made.name: made
    for made in (
        MannequinLayout("folder", _by_position, _folder),
        MannequinLayout("cuhk-pedes", _below_imgs, _cuhk_pedes),
        MannequinLayout("icfg-pedes", _below_imgs, _icfg_pedes, splits=("train", "test")),
        MannequinLayout("rstpreid", _rstpreid_image, _rstpreid),
        MannequinLayout("tbps", _below_imgs, _tbps),
    )
}
