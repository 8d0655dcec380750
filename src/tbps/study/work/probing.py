"""What every module of a trained model contributes (paper: C1 and C2), and the text layers that contribute least."""

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

from tbps.config import Settings
from tbps.data.cache import ImageCache, cache_folder
from tbps.evaluation.embed import identities
from tbps.evaluation.metrics import Report, retrieval_metrics
from tbps.model.ascent import Ascent, ImageAscent, TextAscent
from tbps.model.bundle import load
from tbps.model.surgery import Module, led_back, modules, pruned, removed
from tbps.storage import write_text
from tbps.study.work.training import Training
from tbps.study.work.work import Facts, Place, Work
from tbps.training.encode import HALVES
from tbps.training.start import start_model


class Probe(Settings):
    """`tolerance`: points of Rank-1 that C2 may lose. `resolution`: how near C2's bisection comes to the crossing."""

    tolerance: float = Field(3.0, ge=0)
    resolution: float = Field(1 / 32, gt=0, lt=1)


@dataclass(frozen=True, slots=True)
class Probed:
    """Of a module: Rank-1 without it, C2, and the seconds that both took."""

    r1: float
    c2: float
    seconds: float


@final
class Probing(Work):
    """Probes every module of both towers of the model that the recipe trains, by Rank-1 on the val split: what is chosen by it
    must not have seen the test split. Layers compute in the recipe's precision.

    Values: metrics of the whole model on val, `largest_drop` of Rank-1 in points, and `c1.MODULE`, `c2.MODULE` for modules as
    `image.1.attention`. probed.json keeps what an interrupted run has found.
    """

    kind: Literal["probing"] = "probing"
    probe: Probe = Probe()

    @property
    def before(self) -> Work:
        """The training."""
        return Training(train=self.train, identities=self.identities)

    def run(self, place: Place) -> Facts | None:
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
        return Facts(contributions(whole, found), measured, "val", whole.queries, whole.gallery)


def key(module: Module) -> str:
    """Its name among the values of a step."""
    return f"{module.tower}.{module.layer}.{module.part}"


def contributions(whole: Report, found: Mapping[str, Probed]) -> dict[str, float | None]:
    """The values of a step. C1: what Rank-1 loses without the module over the largest such loss; 0 where there is no loss."""
    drops = {name: whole.r1 - probed.r1 for name, probed in found.items()}
    largest = max(drops.values())
    return {
        **{"r1": whole.r1, "r5": whole.r5, "r10": whole.r10, "map": whole.map, "minp": whole.minp, "largest_drop": largest},
        **{f"c1.{name}": drop / largest if largest > 0 else 0.0 for name, drop in drops.items()},
        **{f"c2.{name}": probed.c2 for name, probed in found.items()},
    }


def least_text_layers(values: Mapping[str, float | None], count: int) -> tuple[int, ...]:
    """The text layers with the smallest sum of whole-layer C1 and C2, in order; of equal ones the lower first."""
    sums: dict[int, float] = {}
    for name, value in values.items():
        kind, _, module = name.partition(".")
        tower, _, rest = module.partition(".")
        if kind in ("c1", "c2") and tower == "text" and rest.endswith(".layer") and value is not None:
            layer = int(rest.removesuffix(".layer"))
            sums[layer] = sums.get(layer, 0.0) + value
    return tuple(sorted(sorted(sums, key=lambda layer: (sums[layer], layer))[:count]))


def smallest_share(holds: Callable[[float], bool], resolution: float) -> float:
    """A share a in [0, 1] that holds, by bisection between 0, which does not, and 1, the model itself; 0 where 0 holds.

    What is returned holds, and what lies less than `resolution` below it does not. Where `holds` is monotone that is the smallest
    share that holds, up to `resolution`; where it is not, there may be a smaller one in a gap that no step looked into.
    """
    if holds(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while high - low > resolution:
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def probe_evaluations(probe: Probe) -> int:
    """At most so many embeddings of a split does a module take."""
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
