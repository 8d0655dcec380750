"""What a recipe costs, measured: parameters, floating-point operations, training and test time, peak memory (paper: table 9)."""

import copy
import resource
import shutil
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Literal, final

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPConfig, CLIPModel

from tbps.data.records import PersonDataset
from tbps.evaluation.embed import decoded, embed_split, identities
from tbps.evaluation.metrics import retrieval_metrics
from tbps.model.bundle import load
from tbps.model.clip import image_features, text_features
from tbps.study.work.training import train_in
from tbps.study.work.work import Facts, Place, Work
from tbps.training.log import NoLog
from tbps.training.settings import TrainSettings
from tbps.training.start import start_model
from tbps.training.trainer import Run

_WARM_UP, _TIMES = 5, 30


@final
class Costing(Work):
    """Trains by a recipe in a process of its own, and measures it.

    Values: beside those of a training, `encode_flops`, one image and one caption of full length; `train_flops`, one pair of one
    update, backward and all views included. Operations count a multiplication and an addition as two. Measured: seconds of all
    updates, to embed and score the test split, and to embed one image and its caption on the CPU (`encode_seconds`); peak bytes,
    of the device on a GPU, on a CPU of the whole process, libraries included.
    """

    kind: Literal["costing"] = "costing"

    def run(self, place: Place) -> Facts | None:
        """`Work.run`."""
        dataset = self.dataset(place.dataset)
        values = _count(self.train, dataset, place)
        facts = train_in(place, self.train, dataset)
        if facts is None:
            return None
        peak = peak_bytes(place.device)
        split = dataset.split(facts.split)
        measured = {
            **facts.measured,
            "test_seconds": _test_seconds(place.run / "best", split, place.device),
            "encode_seconds": _encode_seconds(place.run / "best", split),
            "peak_bytes": peak,
        }
        shutil.rmtree(place.run / "checkpoints", ignore_errors=True)
        return replace(facts, values={**facts.values, **values}, measured=measured)


def encode_flops(config: CLIPConfig, height: int, width: int) -> tuple[int, int]:
    """Operations to embed one image of that size, and one caption of full length, counted on towers without weights."""
    with torch.device("meta"):
        clip = CLIPModel(copy.deepcopy(config))
        pixels = torch.zeros(1, 3, height, width)
        tokens = torch.zeros(1, config.text_config.max_position_embeddings, dtype=torch.long)
    clip.set_attn_implementation("eager")  # whose products are all counted
    with FlopCounterMode(display=False) as image, torch.no_grad():
        image_features(clip, pixels)
    with FlopCounterMode(display=False) as text, torch.no_grad():
        text_features(clip, tokens)
    return int(image.get_total_flops()), int(text.get_total_flops())


def peak_bytes(device: str) -> float:
    """The most memory held so far: by tensors on a GPU, on a CPU by this process."""
    if device.startswith("cuda"):
        return float(torch.cuda.max_memory_allocated(device))
    return 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _count(settings: TrainSettings, dataset: PersonDataset, place: Place) -> dict[str, float]:
    """From one real update, of which nothing stays."""
    model = start_model(settings, dataset, place.model, place.device)
    with tempfile.TemporaryDirectory() as folder:
        run = Run(settings, model, dataset, Path(folder), place.observer)
        with FlopCounterMode(display=False) as counter:
            run.update(NoLog())
    return {
        "encode_flops": sum(encode_flops(run.model.clip.config, model.spec.height, model.spec.width)),
        "train_flops": counter.get_total_flops() / settings.batch_size,
    }


def _test_seconds(folder: Path, split: PersonDataset, device: str) -> float:
    model = load(folder, device)
    started = time.monotonic()
    text, image = embed_split(split, decoded(split.images, model.spec), model.encode_arrays, model.encode_texts)
    retrieval_metrics(text, image, *identities(split))
    return time.monotonic() - started


def _encode_seconds(folder: Path, split: PersonDataset) -> float:
    """The median of thirty times that the split's first image and its caption take."""
    model = load(folder, "cpu")
    arrays, caption = next(decoded(split.images[:1], model.spec)), split.images[0].captions[:1]
    times = []
    for _ in range(_WARM_UP + _TIMES):
        started = time.perf_counter()
        model.encode_arrays(arrays)
        model.encode_texts(caption)
        times.append(time.perf_counter() - started)
    return statistics.median(times[_WARM_UP:])
