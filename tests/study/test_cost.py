"""Costs: operations against formulas of a transformer, counts against the paper's, and a whole measurement."""

from pathlib import Path

import pytest
from small_study import Recorder, lasting, quick
from transformers import CLIPConfig

from tbps.study.ablations import Row, Table
from tbps.study.cost import Costing, encode_flops
from tbps.study.executors import run_here
from tbps.study.plan import Material, estimate, known_towers, plan, steps_of, update_flops
from tbps.study.step import read_result
from tbps.study.work import Training


def tower(tokens: int, width: int, layers: int) -> int:
    """Two operations a multiply-add: four projections, scores and their use, and a feed-forward layer four times as wide."""
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
    assert update_flops(Training(train=plain), towers) == 3 * 16 * (image + text)
    assert update_flops(Training(train=full), towers) == 3 * 16 * (4 * image + text)


def test_a_recipe_is_measured(material: Material, tmp_path: Path) -> None:
    work = Costing(train=quick(**{"lock.patch_projection": True, "losses.ss.weight": 0.4}))
    (planned,) = plan(Table("cost", "", "", (Row("full", work, None),)), (), (0,), {}, material)
    watch = Recorder()
    run_here(tmp_path, steps_of([planned]), "cpu", watch, watch.stop)
    result = read_result(planned.step.folder(tmp_path))
    assert result is not None, watch.ended
    values, measured = result["values"], result["measured"]
    assert material.towers is not None
    tiny = sum(encode_flops(material.towers, 32, 32))
    assert values["encode_flops"] == tiny
    patch, head = 32 * 3 * 8 * 8, 16 * 128 + 128 + 128 * 16 + 16
    assert values["parameters"] - values["trained"] == patch
    assert values["parameters"] == _tower_parameters(material) + head
    # captions are shorter than 77 tokens, the image has three views, and losses come on top of three passes
    assert 2 < values["train_flops"] / tiny < 9
    assert estimate(planned.step, material).updates == values["updates"] == 8
    assert measured["train_seconds"] > 0 and measured["test_seconds"] > 0 and measured["peak_bytes"] > 1e8
    assert lasting(tmp_path, planned.step)["kind"] == "costing"


def _tower_parameters(material: Material) -> int:
    from tbps.model.bundle import load

    return sum(parameter.numel() for parameter in load(str(material.start.location)).clip.parameters())
