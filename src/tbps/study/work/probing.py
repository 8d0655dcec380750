"""Probing: how much every module of a trained model contributes to Rank-1 (paper: C1 and C2).

C1 of a module: drop in Rank-1 without the module, divided by the largest such drop. C2: the smallest share a in [0, 1] for which
the module with weights (1 - a) start + a trained keeps Rank-1 within a tolerance.
"""

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, final

import torch
from pydantic import Field
from torch import Tensor
from transformers import CLIPConfig

from tbps.config import Settings
from tbps.data.cache import ImageCache, cache_folder
from tbps.data.embedding import identities
from tbps.evaluation.metrics import Report, retrieval_metrics
from tbps.model.ascent import Ascent, ImageAscent, TextAscent
from tbps.model.bundle import load
from tbps.model.surgery import PARTS, Module, led_back, modules, pruned, removed
from tbps.storage import write_text
from tbps.study.work.operations import Estimate, TrainingData, pair_flops
from tbps.study.work.training import Training
from tbps.study.work.work import Place, Work, WorkOutcome
from tbps.training.encode import HALVES
from tbps.training.start import start_model


class Probe(Settings):
    """Settings of the search for C2."""

    tolerance: float = Field(3.0, ge=0)
    """Largest drop in Rank-1, in percentage points, that C2 accepts."""
    resolution: float = Field(1 / 32, gt=0, lt=1)
    """Width of the interval at which the bisection for C2 ends."""


@dataclass(frozen=True, slots=True)
class Probed:
    """Result of one module: Rank-1 without it, C2, and the seconds that both took."""

    r1: float
    c2: float
    seconds: float


@final
class Probing(Work):
    """Probe every module of both towers of the model that the recipe trains.

    Rank-1 is measured on the val split, because layers are chosen by it and must not be chosen on the test split. Layers compute in
    the recipe's precision.

    Values: the whole model's metrics on val; `largest_drop` in percentage points of Rank-1; `c1.MODULE` and `c2.MODULE` for modules
    such as `image.1.attention`. probed.json keeps the results of an interrupted attempt.
    """

    kind: Literal["probing"] = "probing"
    """Name of the kind."""
    probe: Probe = Probe()
    """Settings of the search for C2."""

    @property
    def before(self) -> Work:
        """The training of the model that is probed."""
        return Training(train=self.train, identities=self.identities)

    @property
    def legend(self) -> str:
        """Definition of C1 and C2, for readers of a report."""
        points = f"{self.probe.tolerance:g}"
        return (
            "C1: what Rank-1 loses without a module, its residual path kept, over the largest such loss. C2: how far a module must "
            "be on the line from its weights before training (0) to its trained ones (1) for Rank-1 to lose at most "
            f"{points} {'point' if points == '1' else 'points'}. All on the val split."
        )

    def estimate(self, data: TrainingData, towers: CLIPConfig | None) -> Estimate:
        """`Work.estimate`, as an upper bound: every probe runs its tower from the module's layer on, on the whole val split."""
        if towers is None:
            return Estimate(0, None, None)
        left = self.left_of(towers)
        image, text = pair_flops(self.train, left)
        depths = (left.vision_config.num_hidden_layers, left.text_config.num_hidden_layers)
        passes = [len(PARTS) * probe_evaluations(self.probe) * (int(depth) + 1) / 2 for depth in depths]
        flops = passes[0] * data.val.images * image + passes[1] * data.val.captions * text
        return Estimate(0, flops, self.parameters(towers, data.identities))

    def run(self, place: Place) -> WorkOutcome | None:
        """`Work.run`."""
        assert place.model is not None
        dataset = self.dataset(place.dataset)
        split, model = dataset.split("val"), load(place.model, place.device)
        start = pruned(start_model(self.train, dataset, place.origin, place.device).clip, self.train.prune).state_dict()
        images = ImageCache.open(split, model.spec, cache_folder(), place.observer.on_cache).images
        captions = [split.images[pair.image].captions[pair.caption] for pair in split.pairs()]
        text_ids, image_ids = identities(split)
        half = HALVES.get(self.train.precision)
        ascents = (ImageAscent(model, images, half), TextAscent(model, captions, half))
        image, text = (ascent.rows() for ascent in ascents)
        whole = retrieval_metrics(text, image, text_ids, image_ids)

        def r1_of(ascent: Ascent) -> float:
            rows = (text, ascent.rows()) if ascent.tower == "image" else (ascent.rows(), image)
            return retrieval_metrics(*rows, text_ids, image_ids).r1

        found, every, file = _read(place.folder), modules(model.clip), place.folder / "probed.json"
        for ascent in ascents:
            for module in (module for module in every if module.tower == ascent.tower):
                if module.layer > ascent.layer:
                    ascent.climb()
                if key(module) not in found:
                    if place.stop():
                        return None
                    found[key(module)] = _probe(ascent, module, start, partial(r1_of, ascent), whole.r1, self.probe)
                    write_text(file, json.dumps({name: asdict(probed) for name, probed in found.items()}, indent=2) + "\n")
                    place.observer.on_probe(len(found), len(every))
        measured = {"probe_seconds": sum(probed.seconds for probed in found.values())}
        return WorkOutcome(contributions(whole, found), measured, "val", whole.queries, whole.gallery)


def key(module: Module) -> str:
    """Name of a module among the values of a step, such as `image.1.attention`."""
    return f"{module.tower}.{module.layer}.{module.part}"


def contributions(whole: Report, found: Mapping[str, Probed]) -> dict[str, float | None]:
    """Compute the values of a step. C1 is 0 for all modules if Rank-1 does not drop without any of them."""
    drops = {name: whole.r1 - probed.r1 for name, probed in found.items()}
    largest = max(drops.values())
    return {
        **{"r1": whole.r1, "r5": whole.r5, "r10": whole.r10, "map": whole.map, "minp": whole.minp, "largest_drop": largest},
        **{f"c1.{name}": drop / largest if largest > 0 else 0.0 for name, drop in drops.items()},
        **{f"c2.{name}": probed.c2 for name, probed in found.items()},
    }


def least_text_layers(values: Mapping[str, float | None], count: int) -> tuple[int, ...]:
    """Find the text layers with the smallest C1 + C2, in ascending order; ties go to the lower layer."""
    sums: dict[int, float] = {}
    for name, value in values.items():
        kind, _, module = name.partition(".")
        tower, _, rest = module.partition(".")
        if kind in ("c1", "c2") and tower == "text" and rest.endswith(".layer") and value is not None:
            layer = int(rest.removesuffix(".layer"))
            sums[layer] = sums.get(layer, 0.0) + value
    return tuple(sorted(sorted(sums, key=lambda layer: (sums[layer], layer))[:count]))


def smallest_share(holds: Callable[[float], bool], resolution: float) -> float:
    """Find by bisection a share in [0, 1] for which `holds` is true, but false at a share at most `resolution` lower.

    Assumes that `holds(1)` is true; returns 0 if `holds(0)` is. For a monotone `holds`, the result is the smallest such share, up
    to `resolution`; otherwise a smaller one may lie between two tested shares.
    """
    if holds(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while high - low > resolution:
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def probe_evaluations(probe: Probe) -> int:
    """Largest number of times that the tower embeds the split to probe one module."""
    return 2 + math.ceil(-math.log2(probe.resolution))


def _probe(
    ascent: Ascent, module: Module, start: Mapping[str, Tensor], r1: Callable[[], float], whole: float, probe: Probe
) -> Probed:
    started = time.monotonic()
    with torch.no_grad(), removed(ascent.clip, module):
        without = r1()

    def holds(share: float) -> bool:
        with torch.no_grad(), led_back(ascent.clip, module, start, share):
            return r1() >= whole - probe.tolerance

    c2 = smallest_share(holds, probe.resolution)
    return Probed(without, c2, time.monotonic() - started)


def _read(folder: Path) -> dict[str, Probed]:
    file = folder / "probed.json"
    kept: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return {name: Probed(**values) for name, values in kept.items()}
