"""Training with adapters: the start model's weights do not change, and the saved model is a plain CLIP, W + (alpha / rank) B A."""

import json
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file
from transformers import CLIPModel

from tbps.data.readers.folder import read
from tbps.model.bundle import load
from tbps.model.clip import image_features, text_features
from tbps.study.recipes import simplified_tbps_clip
from tbps.training.log import NoLog
from tbps.training.observer import Silent
from tbps.training.rehearsal import rehearse
from tbps.training.run import Run
from tbps.training.settings import TrainSettings
from tbps.training.start import start_model
from tests.support.short_runs import newest, run

RANK, ALPHA = 3, 12


def quick(**changes: object) -> TrainSettings:
    base = {"batch_size": 16, "schedule.epochs": 2, "schedule.peak_rate": 1e-2, "schedule.initial_rate": 1e-2}
    lora = {"rank": RANK, "alpha": ALPHA, "matrices": "both"}
    return simplified_tbps_clip().override(base | {"lora": lora} | changes)


def plain(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """Weights of a plain CLIP by the formula, from a checkpoint with adapters."""
    weights = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    for name in [name for name in weights if ".lora_A." in name]:
        a, b = weights.pop(name), weights.pop(name.replace("lora_A", "lora_B"))
        weights[name.replace("lora_A.default", "base_layer")] += ALPHA / RANK * b @ a
    return {name.replace("base_layer.", ""): tensor for name, tensor in weights.items()}


VARIANTS: dict[str, dict[str, object]] = {
    "plain": {},
    # eight updates per epoch, because the first ones are skipped until the loss scale fits
    "half, in parts, averaged": {"batch_size": 6, "precision": "float16", "micro_batch": 6, "ema_decay": 0.5},
    "dropout, heads, muon": {
        "lora": {"rank": RANK, "alpha": ALPHA, "matrices": "both", "dropout": 0.2},
        "optimizer.matrices": "muon",
        "losses.ss.weight": 0.4,
        "losses.id.weight": 0.2,
    },
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_start_weights_stay_and_the_best_model_is_plain(
    flags: Path, tiny_model_folder: Path, tmp_path: Path, variant: str
) -> None:
    settings = quick(**VARIANTS[variant]).override({"schedule.epochs": 1})
    outcome = run(settings, flags, tiny_model_folder, tmp_path)
    state, start = newest(tmp_path), load_file(tiny_model_folder / "model.safetensors")
    trained = {name.removeprefix("model.clip.").replace("base_layer.", ""): tensor for name, tensor in state.items()}
    assert [name for name, tensor in start.items() if not torch.equal(trained[name], tensor)] == ["logit_scale"]
    assert all(bool(tensor.any()) for name, tensor in state.items() if ".lora_B." in name)
    expected = plain(state, "model.clip." if settings.ema_decay is None else "model.averaged.module.")
    best = load_file(tmp_path / "best" / "model.safetensors")
    assert best.keys() == start.keys()
    for name, tensor in best.items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-6, atol=1e-6)  # float32 in another order
    clip, own = CLIPModel.from_pretrained(tmp_path / "best"), load(tmp_path / "best").clip
    own.load_state_dict(expected)
    pixels, tokens = torch.randn(2, 3, 32, 32), torch.tensor([[553, 20, 30, 554], [553, 7, 8, 554]])
    with torch.no_grad():
        for features, given in ((image_features, pixels), (text_features, tokens)):
            torch.testing.assert_close(features(clip, given), features(own, given), rtol=1e-5, atol=1e-5)
    report = json.loads((tmp_path / "report.json").read_text())
    assert outcome.standing is not None and report["model"]["r1"] == outcome.standing.model.r1


@pytest.mark.parametrize("variant", list(VARIANTS)[1:])
def test_stopped_and_resumed_equals_uninterrupted(flags: Path, tiny_model_folder: Path, tmp_path: Path, variant: str) -> None:
    settings = quick(**VARIANTS[variant])
    whole = run(settings, flags, tiny_model_folder, tmp_path / "whole")
    run(settings, flags, tiny_model_folder, tmp_path / "parts", stop_after=2)
    assert run(settings, flags, tiny_model_folder, tmp_path / "parts") == whole
    one, other = newest(tmp_path / "whole"), newest(tmp_path / "parts")
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_dry_run_counts_trained_parameters(flags: Path, tiny_model_folder: Path) -> None:
    settings, data = quick(), read(flags)
    rehearsal = rehearse(settings, start_model(settings, data, tiny_model_folder, "cpu"), data, Silent())
    attention, feed_forward = 4 * RANK * (32 + 32), 2 * RANK * (32 + 128)
    added = 2 * 2 * (attention + feed_forward)  # towers, layers
    assert rehearsal.trained == added + 1  # and the temperature
    assert rehearsal.parameters == added + sum(p.numel() for p in load(tiny_model_folder).clip.parameters())


def _updates(data: str, model: str, folder: str, micro: int) -> dict[str, torch.Tensor]:
    """Does three updates without augmentation and dropout; returns the trained parameters."""
    calm = {"image_augmentation.enabled": False, "text_attention_dropout": 0, "optimizer.eps": 0.01, "micro_batch": micro}
    settings, dataset = quick(**calm), read(Path(data))
    run = Run(settings, start_model(settings, dataset, Path(model), "cpu"), dataset, Path(folder), Silent())
    for _ in range(3):
        run.update(NoLog())
    return {name: parameter.detach() for name, parameter in run.learned.named_parameters()}


def _worker(number: int, data: str, model: str, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=number, world_size=2)
    torch.save(_updates(data, model, f"{folder}/run", 3), f"{folder}/{number}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_end_with_the_adapters_of_one(flags: Path, tiny_model_folder: Path, tmp_path: Path) -> None:
    one = _updates(str(flags), str(tiny_model_folder), str(tmp_path / "one"), 16)
    mp.spawn(_worker, args=(str(flags), str(tiny_model_folder), str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / f"{number}.pt", weights_only=True) for number in range(2))
    for name, tensor in one.items():
        assert torch.equal(first[name], second[name]), name
        # float32 sums in another order, in three updates of at most 0.01
        torch.testing.assert_close(first[name], tensor, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")
    assert any(bool(tensor.any()) for name, tensor in one.items() if ".lora_B." in name)
