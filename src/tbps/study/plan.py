"""Plan a study: turn the rows and seeds of tables into steps with every setting resolved, and estimate their cost."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import CLIPConfig

from tbps.config import unknown_setting
from tbps.data.readers.annotations import SPLITS, VAL_IDENTITIES
from tbps.data.readers.catalog import published, read_dataset
from tbps.data.records import PersonDataset
from tbps.errors import DataError, ModelError, SettingsError
from tbps.model.bundle import load
from tbps.model.clip import shape_config
from tbps.study.ablations import TABLES, AblationRow, AblationTable
from tbps.study.plan_record import PlanRecord
from tbps.study.result import read_result
from tbps.study.step import Data, Start, Step, data_fingerprint, read_step
from tbps.study.work.operations import Estimate, SplitCounts, TrainingData
from tbps.study.work.work import Work

UNKNOWN = "unknown"
RANDOM = "random weights"
_OPENAI = {"openai/clip-vit-base-patch32": 32, "openai/clip-vit-base-patch16": 16}


@dataclass(frozen=True, slots=True)
class Material:
    """Data set and start model of a study.

    If they are not available (a dry run), `dataset` is None, `counts` are the published ones and fingerprints are "unknown".
    `towers`: the model's configuration, None if it is unknown.
    """

    data: Data
    counts: Mapping[str, SplitCounts]
    dataset: PersonDataset | None
    start: Start
    towers: CLIPConfig | None

    @property
    def backbone(self) -> str | None:
        """Name of the model in the paper, such as "ViT-B/16"; None for models that the paper does not use."""
        vision = None if self.towers is None else self.towers.vision_config
        if vision is None or (vision.hidden_size, vision.num_hidden_layers) != (768, 12) or vision.patch_size not in (16, 32):
            return None
        return f"ViT-B/{vision.patch_size}"


@dataclass(frozen=True, slots=True)
class Planned:
    """The step of a row with a seed. `before`: steps to run first, in order. `refused`: why it is impossible, else empty."""

    row: AblationRow
    seed: int
    step: Step
    before: tuple[Step, ...]
    refused: str

    @property
    def first(self) -> Step | None:
        """The step that this one builds on, if any."""
        return self.before[-1] if self.before else None


def open_material(name: str, root: Path, model: str | None, device: str, *, allow_missing: bool = False) -> Material:
    """Read the data set and load the model; `allow_missing` leaves out images with missing files.

    Raises the errors of the reader and of `tbps.model.load`.
    """
    dataset = read_dataset(name, root, allow_missing=allow_missing)
    data = Data(name, str(root.resolve()), data_fingerprint(dataset), allow_missing)
    counts = {split: _counts(dataset.split(split)) for split in SPLITS}
    if model is None:
        return Material(data, counts, dataset, Start(RANDOM, None, "none"), None)
    opened = load(model, device)
    location = str(Path(model).resolve()) if Path(model).is_dir() else model
    return Material(data, counts, dataset, Start(model, location, opened.fingerprint), opened.clip.config)


def imagine_material(name: str, root: Path, model: str | None, *, allow_missing: bool = False) -> Material:
    """Describe data and model of a dry run: those on disk, else published counts and well-known configurations.

    Raises DataError if the folder does not exist and the data set's counts are not published.
    """
    start = Start(model or RANDOM, model, UNKNOWN)
    towers = None if model is None else known_towers(model)
    if root.is_dir():
        dataset = read_dataset(name, root, allow_missing=allow_missing)
        counts = {split: _counts(dataset.split(split)) for split in SPLITS}
        return Material(Data(name, str(root.resolve()), UNKNOWN), counts, dataset, start, towers)
    return Material(Data(name, str(root), UNKNOWN), published_counts(name), None, start, towers)


def published_counts(name: str) -> dict[str, SplitCounts]:
    """Counts of a published data set by split; if it has no val split, the identities kept for validation are subtracted."""
    found = published(name)
    if found is None:
        raise DataError(f"the folder of {name!r} does not exist and its counts are not published; give --root")
    counts = {split: SplitCounts(found.identities[split], found.images[split], found.captions[split]) for split in found.identities}
    if "val" not in counts:
        share, train = VAL_IDENTITIES / counts["train"].identities, counts["train"]
        counts["val"] = SplitCounts(VAL_IDENTITIES, round(share * train.images), round(share * train.captions))
        val = counts["val"]
        counts["train"] = SplitCounts(train.identities - val.identities, train.images - val.images, train.captions - val.captions)
    return counts


def known_towers(model: str) -> CLIPConfig | None:
    """Configuration of a model folder, or of the two OpenAI models that the paper uses; None for others."""
    if (Path(model) / "config.json").is_file():
        try:
            return CLIPConfig.from_pretrained(model)
        except (OSError, ValueError) as error:
            raise ModelError(f"{model}/config.json cannot be read: {error}") from error
    patch = _OPENAI.get(model)
    return None if patch is None else CLIPConfig(vision_config={"patch_size": patch})


def plan(
    table: AblationTable, rows: Sequence[str], seeds: Sequence[int], changes: Mapping[str, Any], material: Material
) -> list[Planned]:
    """Plan the steps of a table, all rows of a seed before the next seed.

    `rows`: names of the rows to plan, () for all. `changes`: settings to replace in every row that has them, and in the work that
    it builds on. Raises SettingsError for an unknown row, and for a setting that nothing in the table has.
    """
    wanted = [table.row(name) for name in rows] or list(table.rows)
    known = _settable(wanted)
    for key in changes:
        if key not in known:
            elsewhere = [name for name, build in TABLES.items() if key in _settable(build().rows)]
            if elsewhere:
                raise SettingsError(f"nothing in table {table.name} has a setting {key!r}; {', '.join(elsewhere)} can set it")
            raise unknown_setting(key, known)
    return [_planned(row, seed, changes, material) for seed in seeds for row in wanted]


def steps_of(planned: Sequence[Planned]) -> list[Step]:
    """List every step once, after those that it builds on; without the steps of refused rows."""
    wanted = [p for p in planned if not p.refused]
    before = {step.fingerprint: step for p in wanted for step in p.before}
    return list((before | {p.step.fingerprint: p.step for p in wanted}).values())


def differences(work: Work, base: Work) -> dict[str, Any]:
    """Recipe settings of `work` that differ from those of `base`: dotted name -> value in `work`."""
    ours, theirs = (dict(_leaves(one.train.model_dump(mode="json"))) for one in (work, base))
    return {key: value for key, value in ours.items() if key != "seed" and theirs.get(key) != value}


def estimate(step: Step, material: Material) -> Estimate:
    """Estimate updates, operations and parameters of a step.

    Raises DataError if the training pairs do not fill a batch, SettingsError as `Work.left_of`.
    """
    work, counts = step.work, material.counts
    joined = work.train.learn_from == "train+val"
    identities = round(work.identities * counts["train"].identities) + (counts["val"].identities if joined else 0)
    if material.dataset is None:
        pairs = round(work.identities * counts["train"].captions) + (counts["val"].captions if joined else 0)
    else:
        dataset = work.dataset(material.dataset)
        pairs = sum(len(dataset.split(name).pairs()) for name in (("train", "val") if joined else ("train",)))
    return work.estimate(TrainingData(pairs, identities, counts["val"]), material.towers)


def measured_rate(study: Path) -> tuple[float, int] | None:
    """Seconds of training per floating-point operation in a study's finished steps, and the number of those; None without any."""
    seconds, flops, count = 0.0, 0.0, 0
    for folder in sorted((study / "steps").glob("*")):
        result = read_result(folder)
        if result is None or "train_seconds" not in result.measured:
            continue
        step = read_step(folder)
        towers = known_towers(step.start.location or "")
        if towers is not None:
            seconds += result.measured["train_seconds"]
            flops += step.work.update_flops(towers) * (result.values["updates"] or 0)
            count += 1
    return (seconds / flops, count) if flops else None


def record_of(table: AblationTable, planned: Sequence[Planned], changes: Mapping[str, Any], material: Material) -> PlanRecord:
    """Make the record of planned rows and seeds, which `PlanRecord.save` adds to a study."""
    rows: dict[str, dict[int, str]] = {}
    for p in planned:
        if not p.refused:
            rows.setdefault(p.row.name, {})[p.seed] = p.step.fingerprint
    return PlanRecord(
        table=table.name,
        data=material.data.name,
        data_fingerprint=material.data.fingerprint,
        counts=material.counts,
        start=material.start.name,
        start_fingerprint=material.start.fingerprint,
        backbone=material.backbone,
        changes={key: str(value) for key, value in changes.items()},
        rows=rows,
        refused={p.row.name: p.refused for p in planned if p.refused},
    )


def _settable(rows: Iterable[AblationRow]) -> list[str]:
    """Keys that the work of any row, or the work it builds on, accepts."""
    return list(dict.fromkeys(key for row in rows for work in _chain(row) for key in work.settable()))


def _chain(row: AblationRow) -> list[Work]:
    """The works that a row builds on, in order, then its own."""
    chain = [row.work]
    before = row.start or row.work.before
    while before is not None:
        chain.insert(0, before)
        before = before.before
    return chain


def _changed(work: Work, changes: Mapping[str, Any]) -> Work:
    known = work.settable()
    return work.changed({key: value for key, value in changes.items() if key in known})


def _planned(row: AblationRow, seed: int, changes: Mapping[str, Any], material: Material) -> Planned:
    if material.start.name == RANDOM and _changed(row.work, changes).train.shape is None:
        raise SettingsError(f"row {row.name} fine-tunes a model; give one with --model, or --set shape=... for random weights")
    steps: list[Step] = []
    for work in _chain(row):
        on = steps[-1].fingerprint if steps else None
        steps.append(Step(_changed(work, changes).seeded(seed), material.data, material.start, on))
    *before, step = steps
    towers = material.towers if step.work.train.shape is None else shape_config(step.work.train.shape)
    return Planned(row, seed, step, tuple(before), "" if towers is None else step.work.refusal(towers))


def _counts(split: PersonDataset) -> SplitCounts:
    return SplitCounts(len({image.identity for image in split.images}), len(split.images), len(split.pairs()))


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
