"""The paper's numbers, read from `paper_tables.yaml` into rows of a uniform format.

Rows have the names of `tbps.study.ablations`; a test compares both.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

METRICS = ("r1", "r5", "r10", "map", "minp")
_COUNTS = ("params_m", "epochs", "train_s", "test_s", "trained_m")
_REMARKS = ("group", "kept")
_FLAT = (
    "tricks",
    "image_augmentation",
    "text_augmentation",
    "augmentation_combined",
    "losses",
    "pair_augmentation",
)
_BACKBONES = {"_vit_b32": "ViT-B/32", "_vit_b16": "ViT-B/16"}


@dataclass(frozen=True, slots=True)
class PaperRow:
    """The paper's numbers of one row: metrics in percent; for `cost` and `compression` also counts in millions, or seconds.

    `backbone` is empty if the paper does not name it.
    """

    table: str
    row: str
    dataset: str
    backbone: str
    values: Mapping[str, float]


@cache
def paper_rows() -> tuple[PaperRow, ...]:
    """Every row of every table that the paper reports."""
    tables = yaml.safe_load(files("tbps.study.report").joinpath("paper_tables.yaml").read_text(encoding="utf-8"))
    return (
        *(row for name in _FLAT for row in _flat(name, tables[name])),
        *_benchmarks(tables["benchmarks"]),
        *_each("cost", "CUHK-PEDES", "ViT-B/16", tables["cost"]),
        *(row for data, rows in tables["irra_on_top"].items() for row in _each("irra", data, "ViT-B/16", rows)),
        *_few_shot(tables["few_shot"]),
        *_strengths("image-augmentation-strength", tables["image_augmentation_strength"], tables["tricks"]["rows"]["clip*"]),
        *_strengths("text-augmentation-strength", tables["text_augmentation_strength"], tables["tricks"]["rows"]["clip*"]),
        *_compression(tables["compression"]["rows"]),
    )


def reported(table: str, row: str, dataset: str, backbone: str | None) -> PaperRow | None:
    """Find the paper's row, preferably of the same data set and backbone, else of CUHK-PEDES and the larger backbone."""
    rows = [found for found in paper_rows() if found.table == table and found.row == row]
    return max(rows, key=lambda found: (_closeness(found, dataset, backbone), found.backbone == "ViT-B/16"), default=None)


def _closeness(row: PaperRow, dataset: str, backbone: str | None) -> tuple[bool, bool, bool]:
    return row.dataset.lower() == dataset.lower(), row.dataset == "CUHK-PEDES", row.backbone == backbone


def _flat(name: str, table: Mapping[str, Any]) -> Iterator[PaperRow]:
    yield from _each(name.replace("_", "-"), table["dataset"], table["backbone"], table["rows"])


def _each(table: str, dataset: str, backbone: str, rows: Mapping[str, Mapping[str, Any]]) -> Iterator[PaperRow]:
    for row, columns in rows.items():
        yield PaperRow(table, row, dataset, backbone, _numbers(columns))


def _benchmarks(table: Mapping[str, Mapping[str, Any]]) -> Iterator[PaperRow]:
    for dataset, rows in table.items():
        for name, columns in rows.items():
            end = next((end for end in _BACKBONES if name.endswith(end)), "")
            yield PaperRow("benchmarks", name.removesuffix(end), dataset, _BACKBONES.get(end, ""), _numbers(columns))


def _few_shot(table: Mapping[float, Mapping[str, Any]]) -> Iterator[PaperRow]:
    for share, rows in table.items():
        for name, columns in rows.items():
            yield PaperRow("few-shot", f"{100 * share:g}%/{name}", "CUHK-PEDES", "", _numbers(columns))


def _strengths(name: str, table: Mapping[str, Any], base: Mapping[str, Any]) -> Iterator[PaperRow]:
    """Yield the base row, then one row per value of every setting. `used` marks the value that the paper keeps."""
    yield PaperRow(name, "clip*", "CUHK-PEDES", "ViT-B/32", _numbers(base))
    for setting, tried in table["rows"].items():
        for value, numbers in tried.items():
            if value != "used":
                values = dict(zip(table["columns"], numbers, strict=True))
                yield PaperRow(name, f"{setting}={value}", "CUHK-PEDES", "ViT-B/32", _numbers(values))


def _compression(rows: Mapping[int, Mapping[str, Any]]) -> Iterator[PaperRow]:
    """Yield rows for frozen and for dropped layers, for which the paper gives one common count of parameters."""
    for count, columns in rows.items():
        for model, name in (("tbps_clip", "tbps_clip"), ("simplified", "simplified_tbps_clip")):
            for row in (f"{name}/{count} {how}" for how in ("frozen", "dropped")) if count else (f"{name}/0",):
                yield PaperRow("compression", row, "CUHK-PEDES", "ViT-B/16", {"trained_m": float(columns[model])})


def _numbers(columns: Mapping[str, Any]) -> dict[str, float]:
    unknown = [name for name in columns if name not in (*METRICS, *_COUNTS, *_REMARKS)]
    if unknown:
        raise ValueError(f"paper_tables.yaml has an unknown column {unknown[0]!r}")
    return {name: float(columns[name]) for name in (*METRICS, *_COUNTS) if columns.get(name) is not None}
