"""Training with CoOp and CLIP-Adapter: locked weights do not change; trained ones are resumed, saved and loaded exactly."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tbps.data.embedding import decoded, embed_split, identities
from tbps.data.readers.folder import read
from tbps.errors import SettingsError
from tbps.evaluation.metrics import retrieval_metrics
from tbps.model.bundle import load
from tbps.model.clip import image_features, text_features
from tbps.model.few_shot import ADDED
from tbps.study.recipes import recipe
from tbps.training.log import NoLog
from tbps.training.observer import Silent
from tbps.training.rehearsal import rehearse
from tbps.training.run import Run
from tbps.training.settings import TrainSettings
from tbps.training.start import start_model
from tests.support.short_runs import newest, run

LEARNED = {"coop": ADDED[:1], "clip_adapter": ADDED[1:]}
TOWARDS = {"batch_size": 16, "schedule.epochs": 2, "schedule.peak_rate": 1e-2, "schedule.initial_rate": 1e-2, "checkpoint_steps": 2}
VARIANTS: dict[str, dict[str, object]] = {
    "in parts, averaged": {"micro_batch": 5, "ema_decay": 0.5},
    "heads, dropout, locks": {
        "losses.ss.weight": 0.4,
        "text_attention_dropout": 0.2,
        "lock.text_layers": 1,
        "lock.image_layers": 1,
    },
}


def quick(name: str, **changes: object) -> TrainSettings:
    return recipe(name).override(TOWARDS | changes)


@pytest.fixture(scope="module")
def start(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a temperature above the limit that training sets; locked temperatures must keep it."""
    model, folder = load(tiny_model_folder), tmp_path_factory.mktemp("start")
    model.clip.logit_scale.data.fill_(4.7)
    model.save(folder)
    return folder


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", LEARNED)
def test_locked_weights_stay_and_the_best_model_opens(flags: Path, start: Path, tmp_path: Path, name: str, variant: str) -> None:
    settings = quick(name, **VARIANTS[variant]).override({"schedule.epochs": 1})
    outcome = run(settings, flags, start, tmp_path)
    state, locked = newest(tmp_path), load_file(start / "model.safetensors")
    assert all(torch.equal(state[f"model.clip.{key}"], tensor) for key, tensor in locked.items())
    before = start_model(settings, read(flags), start, "cpu").clip
    kept = "model.clip." if settings.ema_decay is None else "model.averaged.module."
    added = load_file(tmp_path / "best" / "few_shot.safetensors")
    assert added.keys() == set(LEARNED[name])
    for key, tensor in added.items():
        assert torch.equal(tensor, state[kept + key]) and not torch.equal(tensor, before.get_parameter(key))
    stored = load_file(tmp_path / "best" / "model.safetensors")
    assert stored.keys() == locked.keys() and all(torch.equal(stored[key], tensor) for key, tensor in locked.items())
    best, split = load(tmp_path / "best"), read(flags).split("test")
    text, image = embed_split(split, decoded(split.images, best.spec), best.encode_arrays, best.encode_texts)
    found = retrieval_metrics(text, image, *identities(split))
    assert best.few_shot == settings.few_shot and outcome.standing is not None
    report = json.loads((tmp_path / "report.json").read_text())
    assert found.r1 == outcome.standing.model.r1 == report["model"]["r1"]


@pytest.mark.parametrize(("name", "variant"), list(zip(LEARNED, VARIANTS, strict=True)))
def test_stopped_and_resumed_equals_uninterrupted(flags: Path, start: Path, tmp_path: Path, name: str, variant: str) -> None:
    settings = quick(name, **VARIANTS[variant])
    whole = run(settings, flags, start, tmp_path / "whole")
    run(settings, flags, start, tmp_path / "parts", stop_after=2)
    assert run(settings, flags, start, tmp_path / "parts") == whole
    one, other = newest(tmp_path / "whole"), newest(tmp_path / "parts")
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("name", LEARNED)
def test_only_trained_parameters_are_optimised_and_get_gradients(flags: Path, start: Path, tmp_path: Path, name: str) -> None:
    settings, dataset = quick(name), read(flags)
    begun = Run(settings, start_model(settings, dataset, start, "cpu"), dataset, tmp_path, Silent())
    clip = begun.model.clip
    learned = {id(clip.get_parameter(key)) for key in LEARNED[name]}
    held = [p for optimizer in begun.state.optimizers for group in optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in held} == learned and len(held) == len(learned)
    images = image_features(clip, torch.zeros(2, 3, 32, 32))
    texts = text_features(clip, begun.model.tokenise(["man", "a woman"]))
    assert (images.requires_grad, texts.requires_grad) == (name == "clip_adapter", name == "coop")
    given: list[str] = []
    for key, parameter in clip.named_parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(lambda _, key=key: given.append(key))
    begun.update(NoLog())
    assert set(given) == set(LEARNED[name])


@pytest.mark.parametrize("name", LEARNED)
def test_micro_batches_have_the_gradient_of_the_whole_batch(flags: Path, start: Path, tmp_path: Path, name: str) -> None:
    found = []
    for size in (16, 5):
        settings, dataset = quick(name, micro_batch=size, **{"optimizer.eps": 0.01}), read(flags)
        begun = Run(settings, start_model(settings, dataset, start, "cpu"), dataset, tmp_path / str(size), Silent())
        for _ in range(3):
            begun.update(NoLog())
        found.append([begun.model.clip.get_parameter(key).detach() for key in LEARNED[name]])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)  # float32 sums in another order, three updates of 0.01


def test_a_dry_run_counts_trained_parameters(flags: Path, start: Path) -> None:
    places = len(load(start).tokenizer("a pedestrian photo of")["input_ids"]) - 2
    backbone = sum(p.numel() for p in load(start).clip.parameters())
    for name, count in (("coop", places * 32), ("clip_adapter", 2 * 16 * 4)):
        rehearsal = rehearse(quick(name), start_model(quick(name), read(flags), start, "cpu"), read(flags), Silent())
        assert (rehearsal.trained, rehearsal.parameters) == (count, backbone + count)


def test_training_of_all_weights_can_start_from_a_model_with_a_prompt(flags: Path, start: Path, tmp_path: Path) -> None:
    run(quick("coop", **{"schedule.epochs": 1}), flags, start, tmp_path / "coop")
    run(quick("clip", **{"schedule.epochs": 1}), flags, tmp_path / "coop" / "best", tmp_path / "clip")
    first, second = load(tmp_path / "coop" / "best"), load(tmp_path / "clip" / "best")
    assert first.few_shot == second.few_shot
    one, other = first.clip.state_dict(), second.clip.state_dict()
    assert not np.any([torch.equal(one[key], other[key]) for key in (*ADDED[:1], "text_projection.weight")])
    with pytest.raises(SettingsError, match="start from its backbone"):
        start_model(quick("clip_adapter"), read(flags), tmp_path / "coop" / "best", "cpu")


def test_lora_and_few_shot_together_are_refused() -> None:
    with pytest.raises(SettingsError, match="lora and few_shot"):
        quick("coop", lora={"rank": 2})
