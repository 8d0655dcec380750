"""Costs: floating-point operations against the formulas of a transformer, and a complete measurement."""

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPConfig

from tbps.model.bundle import load
from tbps.model.clip import choose_attention
from tbps.model.heads import Heads
from tbps.model.surgery import pruned
from tbps.study.ablations import AblationRow, AblationTable
from tbps.study.executors import run_here
from tbps.study.plan import Material, estimate, known_towers, plan, steps_of
from tbps.study.result import read_result
from tbps.study.work.compressing import Compressing
from tbps.study.work.cost import Costing
from tbps.study.work.operations import encode_flops
from tbps.study.work.training import Training
from tbps.study.work.work import Work
from tbps.training.encode import encode
from tbps.training.gradient_cache import backward
from tbps.training.objective import Features, Labels, Losses, objective
from tbps.training.views import Views
from tests.study.small_study import Recorder, lasting, quick


def tower(tokens: int, width: int, layers: int) -> int:
    """Operations of a tower: four projections, attention scores and weighted sums, a feed-forward layer four times as wide."""
    return 2 * layers * (4 * tokens * width**2 + 2 * tokens**2 * width + 8 * tokens * width**2)


@pytest.mark.parametrize(("patch", "size"), [(32, (224, 224)), (16, (224, 224)), (16, (384, 128))])
def test_operations_of_the_towers_of_the_paper(patch: int, size: tuple[int, int]) -> None:
    patches = size[0] // patch * (size[1] // patch)
    image = 2 * patches * 3 * patch**2 * 768 + tower(patches + 1, 768, 12) + 2 * 768 * 512
    text = tower(77, 512, 12) + 2 * 512 * 512
    assert encode_flops(CLIPConfig(vision_config={"patch_size": patch}), *size) == (image, text)


def test_an_update_is_three_passes_of_every_view() -> None:
    towers = known_towers("openai/clip-vit-base-patch16")
    assert towers is not None and known_towers("somebody/clip") is None
    image, text = encode_flops(towers, 224, 224)
    plain, full = quick(), quick(**{"losses.mvs.views": "image", "losses.ss.weight": 0.4, "losses.n_itc.labels": "identity"})
    assert Training(train=plain).update_flops(towers) == 3 * 16 * (image + text)
    assert Training(train=full).update_flops(towers) == 3 * 16 * (4 * image + text)


TAUGHT = {"losses.distill.weight": 1.0}


BOTH_VIEWS = {"losses.mvs.views": "both", "losses.n_itc.soft_pass": "separate", "losses.n_itc.soft_label": 0.5}


@pytest.mark.parametrize(
    "work",
    [
        Training(train=quick()),
        Training(train=quick(**{"prune.depth": 0.5})),
        Training(train=quick(**{"prune.width": 0.5})),
        Training(train=quick(**{"prune.depth": 0.5, "prune.width": 0.5} | TAUGHT)),
        Training(train=quick(**{"prune.text_layers": [2]} | BOTH_VIEWS | TAUGHT)),
        Training(train=quick(**{"prune.depth": 0.5, "micro_batch": 4} | TAUGHT)),
        Compressing(train=quick(), layers=1, how="dropped"),
    ],
)
def test_estimated_operations_of_an_update_equal_those_that_torch_counts(work: Work, tiny_model_folder: Path) -> None:
    """Captions have full length. The tolerance of 3 % covers gradients of pixels, which are not computed, and the losses."""
    model, size = load(tiny_model_folder), work.train.batch_size
    settings = work.settings((2,)) if isinstance(work, Compressing) else work.train
    teacher = model.clip if settings.losses.distill.weight > 0 else None
    clip = pruned(model.clip, settings.prune).requires_grad_(True)
    for towers in (clip, model.clip):
        choose_attention(towers)
    tokens = torch.full((size, 77), 5)
    tokens[:, -1] = clip.config.text_config.vocab_size - 1
    pixels = torch.zeros(size, 3, 32, 32)
    second = {"image_second": pixels} if settings.losses.second_image else {}
    second |= {"text_second": tokens} if settings.losses.second_text else {}
    part_size = settings.micro_batch or size

    def encode_part(part: int, *, calm: bool, words: bool) -> Features:
        views = Views(pixels, tokens, **second).part(slice(part * part_size, (part + 1) * part_size))
        return encode(clip, Heads(), views, settings, calm=calm, words=words, teacher=teacher)

    def loss(features: Features) -> Losses:
        labels = Labels(torch.arange(size))
        return objective(features, labels, clip.logit_scale.exp(), 0.5, Heads(), settings.losses)

    with FlopCounterMode(display=False) as counter:
        backward(encode_part, size // part_size, loss, 0.0, 1)
    assert counter.get_total_flops() == pytest.approx(work.update_flops(model.clip.config), rel=0.03)


def test_a_teacher_adds_one_forward_pass(tiny_model_folder: Path) -> None:
    towers = load(tiny_model_folder).clip.config
    small = {"prune.depth": 0.5, "prune.width": 0.5}
    alone, taught = (Training(train=quick(**small | more)).update_flops(towers) for more in ({}, TAUGHT))
    assert taught - alone == 16 * sum(encode_flops(towers, 32, 32))
    half = pruned(load(tiny_model_folder).clip, Training(train=quick(**small)).train.prune).config
    assert alone == 3 * 16 * sum(encode_flops(half, 32, 32))


def test_a_recipe_is_measured(material: Material, tmp_path: Path) -> None:
    work = Costing(train=quick(**{"lock.patch_projection": True, "losses.ss.weight": 0.4}))
    (planned,) = plan(AblationTable("cost", "", "", (AblationRow("full", work, None),)), (), (0,), {}, material)
    watch = Recorder()
    run_here(tmp_path, steps_of([planned]), "cpu", watch, watch.stop)
    result = read_result(planned.step.folder(tmp_path))
    assert result is not None, watch.ended
    values, measured = result.values, result.measured
    assert material.towers is not None
    tiny = sum(encode_flops(material.towers, 32, 32))
    assert values["encode_flops"] == tiny
    patch, head = 32 * 3 * 8 * 8, 16 * 128 + 128 + 128 * 16 + 16
    assert values["parameters"] - values["trained"] == patch
    assert values["parameters"] == _tower_parameters(material) + head
    # bounds: captions have fewer than 77 tokens, images have three views, and losses add to the three passes
    assert 2 < values["train_flops"] / tiny < 9
    found = estimate(planned.step, material)
    assert found.updates == values["updates"] == 8 and found.parameters == values["parameters"]
    assert measured["train_seconds"] > 0 and measured["test_seconds"] > 0 and measured["peak_bytes"] > 1e8
    assert lasting(tmp_path, planned.step).kind == "costing"


def _tower_parameters(material: Material) -> int:
    return sum(parameter.numel() for parameter in load(str(material.start.location)).clip.parameters())
