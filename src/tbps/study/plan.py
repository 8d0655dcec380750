"""From tables to steps: rows x seeds with every setting resolved, what they would take, and the record that reports read.

STUDY/plans/TABLE-KEY.json   what was asked of a table on one data set, from one start, with one set of changes
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPConfig, CLIPModel

from tbps.config import unknown_setting
from tbps.data.readers.annotations import SPLITS, VAL_IDENTITIES
from tbps.data.readers.catalog import published, read_dataset
from tbps.data.records import PersonDataset
from tbps.errors import DataError, ModelError, SettingsError
from tbps.model.bundle import load
from tbps.model.clip import shape_config
from tbps.model.surgery import PARTS
from tbps.preprocess.image import ImageSpec
from tbps.storage import write_text
from tbps.study.ablations import TABLES, Row, Table
from tbps.study.step import Data, Start, Step, data_fingerprint, read_result, read_step
from tbps.study.work.cost import encode_flops
from tbps.study.work.probing import Probing, probe_evaluations
from tbps.study.work.work import Work
from tbps.training.learned import heads_of
from tbps.training.settings import TrainSettings

UNKNOWN = "unknown"
RANDOM = "random weights"
_OPENAI = {"openai/clip-vit-base-patch32": 32, "openai/clip-vit-base-patch16": 16}


@dataclass(frozen=True, slots=True)
class Counts:
    """What a split holds."""

    identities: int
    images: int
    captions: int


@dataclass(frozen=True, slots=True)
class Material:
    """The data set and the model that a study is about. Where they are not at hand (a dry run) `dataset` is None, counts are the
    published ones and fingerprints are "unknown"; `towers` is the model's configuration where it is known.
    """

    data: Data
    counts: Mapping[str, Counts]
    dataset: PersonDataset | None
    start: Start
    towers: CLIPConfig | None

    @property
    def backbone(self) -> str | None:
        """As the paper calls it, for the two that it uses."""
        vision = None if self.towers is None else self.towers.vision_config
        if vision is None or (vision.hidden_size, vision.num_hidden_layers) != (768, 12) or vision.patch_size not in (16, 32):
            return None
        return f"ViT-B/{vision.patch_size}"


@dataclass(frozen=True, slots=True)
class Planned:
    """A row under a seed. `before`: the steps that come before, in order. `refused`: why it cannot be done, else empty."""

    row: Row
    seed: int
    step: Step
    before: tuple[Step, ...]
    refused: str

    @property
    def first(self) -> Step | None:
        """The step that it builds on, if any."""
        return self.before[-1] if self.before else None


def open_material(name: str, root: Path, model: str | None, device: str, *, allow_missing: bool = False) -> Material:
    """Reads the data set, `allow_missing` without images whose files are missing, and opens the model. Raises as the reader and
    `tbps.model.bundle.load`.
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
    """For a dry run: data and model where they are there, else published counts and well-known towers.

    Raises DataError where the data set is neither there nor published.
    """
    start = Start(model or RANDOM, model, UNKNOWN)
    towers = None if model is None else known_towers(model)
    if root.is_dir():
        dataset = read_dataset(name, root, allow_missing=allow_missing)
        counts = {split: _counts(dataset.split(split)) for split in SPLITS}
        return Material(Data(name, str(root.resolve()), UNKNOWN), counts, dataset, start, towers)
    return Material(Data(name, str(root), UNKNOWN), published_counts(name), None, start, towers)


def published_counts(name: str) -> dict[str, Counts]:
    """A published data set's splits, without the identities that go to val where none is published."""
    found = published(name)
    if found is None:
        raise DataError(f"the folder of {name!r} is not there and its counts are not published; give --root")
    counts = {split: Counts(found.identities[split], found.images[split], found.captions[split]) for split in found.identities}
    if "val" not in counts:
        share, train = VAL_IDENTITIES / counts["train"].identities, counts["train"]
        counts["val"] = Counts(VAL_IDENTITIES, round(share * train.images), round(share * train.captions))
        val = counts["val"]
        counts["train"] = Counts(train.identities - val.identities, train.images - val.images, train.captions - val.captions)
    return counts


def known_towers(model: str) -> CLIPConfig | None:
    """The configuration of a model folder, or of OpenAI's two that the paper uses; None for others."""
    if (Path(model) / "config.json").is_file():
        try:
            return CLIPConfig.from_pretrained(model)
        except (OSError, ValueError) as error:
            raise ModelError(f"{model}/config.json cannot be read: {error}") from error
    patch = _OPENAI.get(model)
    return None if patch is None else CLIPConfig(vision_config={"patch_size": patch})


def plan(table: Table, rows: Sequence[str], seeds: Sequence[int], changes: Mapping[str, Any], material: Material) -> list[Planned]:
    """The steps of a table, all rows of a seed before the next seed; `rows`: those wanted, () for all.

    `changes` are made to every row, and to what it builds on, where those have such a setting. Raises SettingsError for an unknown
    row, and for a setting that nothing of the table has.
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
    """Every step once, each after those that it builds on; none of rows that are refused."""
    wanted = [p for p in planned if not p.refused]
    before = {step.fingerprint: step for p in wanted for step in p.before}
    return list((before | {p.step.fingerprint: p.step for p in wanted}).values())


def differences(work: Work, base: Work) -> dict[str, Any]:
    """Dotted settings of the recipe in which work differs from its base, with its own values."""
    ours, theirs = (dict(_leaves(one.train.model_dump(mode="json"))) for one in (work, base))
    return {key: value for key, value in ours.items() if key != "seed" and theirs.get(key) != value}


@dataclass(frozen=True, slots=True)
class Estimate:
    """`flops`: about what updates, or probes, compute; `parameters`: of towers and heads, without what LoRA or few shots add. None
    where the towers are unknown.
    """

    updates: int
    flops: float | None
    parameters: int | None


def estimate(step: Step, material: Material) -> Estimate:
    """What a step would take. Raises DataError where there are fewer pairs than a batch holds, SettingsError as `Work.left_of`."""
    towers, counts = material.towers, material.counts
    joined = step.work.train.learn_from == "train+val"
    classes = round(step.work.identities * counts["train"].identities) + (counts["val"].identities if joined else 0)
    parameters = None if towers is None else parameters_of(step.work, towers, classes)
    if isinstance(step.work, Probing):
        return Estimate(0, None if towers is None else probe_flops(step.work, towers, counts["val"]), parameters)
    train, share = step.work.train, step.work.identities
    if material.dataset is None:
        pairs = round(share * counts["train"].captions) + (counts["val"].captions if joined else 0)
    else:
        dataset = step.work.dataset(material.dataset)
        pairs = sum(len(dataset.split(name).pairs()) for name in (("train", "val") if joined else ("train",)))
    if pairs < train.batch_size:
        raise DataError(f"{pairs} pairs to learn from do not fill a batch of {train.batch_size}; --set batch_size=...")
    updates = pairs // train.batch_size * train.schedule.epochs
    return Estimate(updates, None if towers is None else updates * update_flops(step.work, towers), parameters)


def update_flops(work: Work, towers: CLIPConfig) -> float:
    """About what one update computes: `_passes` of every view of a batch by what learns, and one of the first views by the teacher
    that it has and for soft labels of their own.
    """
    losses = work.train.losses
    image, text = _towers_flops(work, work.left_of(towers))
    images = 1 + losses.second_image + 2 * losses.ss_image
    texts = 1 + losses.second_text
    image_passes, text_passes = _passes(work.train)
    pair = image_passes * images * image + text_passes * texts * text
    if losses.separate_pass:
        pair += (1 + losses.second_image) * image + (1 + losses.second_text_in_mvs) * text
    if losses.distill.weight > 0:
        pair += sum(_towers_flops(work, towers))
    return float(work.train.batch_size * pair)


def _passes(train: TrainSettings) -> tuple[int, int]:
    """What an update computes of image and text tower, in forward passes: one forward, one for the gradients of the states, and one
    for those of the weights; one more where the batch is encoded in parts, first without gradients. Below what learns on locked
    towers there are no gradients; that locked layers (`lock`), and matrices with adapters (`lora`), have none is not taken off.
    """
    twice = int(train.micro_batch is not None and train.micro_batch < train.batch_size)
    if train.few_shot is None:
        return 3 + twice, 3 + twice
    return 1 + twice, (1 if train.few_shot.prompt is None else 2) + twice


def parameters_of(work: Work, towers: CLIPConfig, identities: int) -> int:
    """Of what is left of the towers, and of the heads of losses; `identities`: how many there are to classify."""
    left = work.left_of(towers)
    return _parameters(left.to_json_string()) + _head_parameters(work.train, left, identities)


def probe_flops(work: Probing, towers: CLIPConfig, split: Counts) -> float:
    """At most what probing computes: every module changed so many times, and the tower from its layer on run on the whole split."""
    towers = work.left_of(towers)
    flops = _towers_flops(work, towers)
    depths = (towers.vision_config.num_hidden_layers, towers.text_config.num_hidden_layers)
    passes = [len(PARTS) * probe_evaluations(work.probe) * (int(depth) + 1) / 2 for depth in depths]
    return passes[0] * split.images * flops[0] + passes[1] * split.captions * flops[1]


def measured_rate(study: Path) -> tuple[float, int] | None:
    """Seconds of updates a floating-point operation in the steps that are done in a study, and how many those are; None without."""
    seconds, flops, count = 0.0, 0.0, 0
    for folder in sorted((study / "steps").glob("*")):
        result = read_result(folder)
        if result is None or "train_seconds" not in result["measured"]:
            continue
        step = read_step(folder)
        towers = known_towers(step.start.location or "")
        if towers is not None:
            seconds += float(result["measured"]["train_seconds"])
            flops += update_flops(step.work, towers) * float(result["values"]["updates"])
            count += 1
    return (seconds / flops, count) if flops else None


def record_plan(study: Path, table: Table, planned: Sequence[Planned], changes: Mapping[str, Any], material: Material) -> Path:
    """Adds rows and seeds to the record of that table, data, start and changes, and returns its file."""
    what = [material.data.fingerprint, material.start.fingerprint, {key: str(value) for key, value in sorted(changes.items())}]
    key = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:8]
    file = study / "plans" / f"{table.name}-{key}.json"
    record: dict[str, Any] = {
        "table": table.name,
        "data": {
            "name": material.data.name,
            "fingerprint": material.data.fingerprint,
            "counts": {name: [c.identities, c.images, c.captions] for name, c in material.counts.items()},
        },
        "start": {"name": material.start.name, "fingerprint": material.start.fingerprint, "backbone": material.backbone},
        "changes": {key: str(value) for key, value in changes.items()},
        "rows": {},
        "refused": {},
    }
    if file.exists():
        record |= {key: value for key, value in json.loads(file.read_text(encoding="utf-8")).items() if key in ("rows", "refused")}
    for p in planned:
        if p.refused:
            record["refused"][p.row.name] = p.refused
        else:
            record["rows"].setdefault(p.row.name, {})[str(p.seed)] = p.step.fingerprint
    write_text(file, json.dumps(record, indent=2) + "\n")
    return file


def _settable(rows: Iterable[Row]) -> list[str]:
    """Every key that some work of the rows, or of what they build on, knows."""
    return list(dict.fromkeys(key for row in rows for work in _chain(row) for key in work.settable()))


def _chain(row: Row) -> list[Work]:
    """What a row builds on, in order, and its own work last."""
    chain = [row.work]
    before = row.start or row.work.before
    while before is not None:
        chain.insert(0, before)
        before = before.before
    return chain


def _changed(work: Work, changes: Mapping[str, Any]) -> Work:
    known = work.settable()
    return work.changed({key: value for key, value in changes.items() if key in known})


def _planned(row: Row, seed: int, changes: Mapping[str, Any], material: Material) -> Planned:
    if material.start.name == RANDOM and _changed(row.work, changes).train.shape is None:
        raise SettingsError(f"row {row.name} fine-tunes a model; give one with --model, or --set shape=... for random weights")
    steps: list[Step] = []
    for work in _chain(row):
        on = steps[-1].fingerprint if steps else None
        steps.append(Step(_changed(work, changes).seeded(seed), material.data, material.start, on))
    *before, step = steps
    towers = material.towers if step.work.train.shape is None else shape_config(step.work.train.shape)
    return Planned(row, seed, step, tuple(before), "" if towers is None else step.work.refusal(towers))


def _counts(split: PersonDataset) -> Counts:
    return Counts(len({image.identity for image in split.images}), len(split.images), len(split.pairs()))


def _towers_flops(work: Work, towers: CLIPConfig) -> tuple[int, int]:
    """To embed one image of the recipe's size, and one caption."""
    size = towers.vision_config.image_size
    spec = work.train.image.of(ImageSpec(height=size, width=size))
    return _encode_flops(towers.to_json_string(), spec.height, spec.width)


def _head_parameters(train: TrainSettings, towers: CLIPConfig, identities: int) -> int:
    with torch.device("meta"):
        heads = heads_of(train, towers.projection_dim, towers.text_config.vocab_size, identities)
    return sum(parameter.numel() for parameter in heads.parameters())


@cache
def _parameters(towers: str) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in CLIPModel(CLIPConfig.from_dict(json.loads(towers))).parameters())


@cache
def _encode_flops(towers: str, height: int, width: int) -> tuple[int, int]:
    return encode_flops(CLIPConfig.from_dict(json.loads(towers)), height, width)


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
