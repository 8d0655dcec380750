"""Distillation of a student that is pruned from its teacher: loss, exact resuming, and the rows of the table."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPModel

from tbps.data.records import PersonDataset
from tbps.losses import distill
from tbps.model.bundle import PersonModel, load
from tbps.model.surgery import PruneSettings, pruned
from tbps.study.ablations import OURS, TAUGHT, AblationRow, AblationTable, table
from tbps.study.plan import Material, estimate, plan, steps_of
from tbps.study.recipes import distilled
from tbps.study.result import read_result
from tbps.study.step import StepState, run_step
from tbps.study.work.cost import Costing
from tbps.study.work.observer import ProgressObserver
from tbps.study.work.operations import encode_flops
from tbps.study.work.training import Training
from tbps.training.log import NoLog
from tbps.training.observer import Silent
from tbps.training.run import Outcome, Run
from tbps.training.settings import TrainSettings
from tbps.training.start import start_model
from tbps.training.trainer import train
from tests.study.small_study import lasting, quick

STUDENT = {"prune.depth": 0.5, "prune.width": 0.5, "losses.distill.weight": 1.0}


def begun(settings: TrainSettings, data: PersonDataset, model: Path, folder: Path) -> Run:
    return Run(settings, start_model(settings, data, model, "cpu"), data, folder, Silent())


@pytest.fixture
def data(material: Material) -> PersonDataset:
    assert material.dataset is not None
    return material.dataset


def test_the_student_is_pruned_and_the_teacher_stays(data: PersonDataset, tiny_model_folder: Path, tmp_path: Path) -> None:
    settings = quick(**STUDENT | {"losses.n_itc.weight": 0})
    run = begun(settings, data, tiny_model_folder, tmp_path)
    whole = load(tiny_model_folder).clip
    start = pruned(whole, settings.prune).state_dict()
    assert all(torch.equal(tensor, start[name]) for name, tensor in run.model.clip.state_dict().items())
    run.update(NoLog())
    run.update(NoLog())
    assert run.teacher is not None
    assert all(torch.equal(tensor, whole.state_dict()[name]) for name, tensor in run.teacher.state_dict().items())
    moved = {name for name, tensor in run.model.clip.state_dict().items() if not torch.equal(tensor, start[name])}
    still = {"logit_scale"}  # distillation does not use the temperature
    assert {name for name in start if not name.endswith("k_proj.bias")} - moved == still
    assert run.trained == run.parameters == sum(tensor.numel() for tensor in start.values())


def test_the_loss_compares_student_and_teacher(data: PersonDataset, tiny_model_folder: Path, tmp_path: Path) -> None:
    """Compares the loss of the first batch with one computed from embeddings of both models, without augmentation and dropout."""
    settings = quick(**STUDENT | {"losses.n_itc.weight": 0, "losses.distill.scale": 30.0})
    run = begun(settings, data, tiny_model_folder, tmp_path)
    batch = next(run.batches.epoch(0, start=0))
    arrays = batch.images.permute(0, 2, 3, 1).numpy()
    split = data.split("train")
    captions = [split.images[p.image].captions[p.caption] for p in (split.pairs()[n] for n in batch.pairs)]

    def sides(clip: CLIPModel) -> tuple[torch.Tensor, torch.Tensor]:
        model = PersonModel(clip.eval(), run.model.tokenizer, run.model.spec, "")
        return torch.from_numpy(model.encode_arrays(arrays)), torch.from_numpy(model.encode_texts(captions))

    expected = distill(*sides(run.model.clip), (*sides(load(tiny_model_folder).clip), None), 30.0)
    run.update(NoLog())
    run.read_losses()
    assert run.state.loss_sum == pytest.approx(expected.item(), rel=1e-4)


def test_stopped_and_resumed_equals_uninterrupted(data: PersonDataset, tiny_model_folder: Path, tmp_path: Path) -> None:
    settings = quick(**STUDENT)

    def run(folder: Path, stop_after: int) -> Outcome:
        updates = iter(range(1, 100))
        start = start_model(settings, data, tiny_model_folder, "cpu")
        return train(settings, start, data, folder, Silent(), lambda: next(updates) == stop_after)

    assert not run(tmp_path / "parts", 3).finished
    assert run(tmp_path / "parts", 0) == run(tmp_path / "whole", 0)
    one, other = (load_file(tmp_path / name / "best" / "model.safetensors") for name in ("parts", "whole"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    best = load(tmp_path / "parts" / "best").clip
    assert best.config.vision_config.num_hidden_layers == 1 and best.config.text_config.num_attention_heads == 1


def test_the_table_pairs_every_size_with_and_without_a_teacher() -> None:
    ours = table("distillation")
    assert ours.source == OURS and ours.rows[0].work == table("cost").row("simplified_tbps_clip").work
    taught = [row for row in ours.rows if row.name.endswith(TAUGHT)]
    assert len(taught) == (len(ours.rows) - 1) / 2 >= 3
    for row in taught:
        alone = ours.row(str(row.base))
        assert row.work.train.prune == alone.work.train.prune != PruneSettings()
        assert (row.work.train.losses.distill.weight, alone.work.train.losses.distill.weight) == (10, 0)
        assert row.start == alone.start == ours.rows[0].work
    assert distilled().prune == ours.row("depth 1/2").work.train.prune


def test_a_taught_row_starts_from_the_whole_model_and_is_measured(material: Material, tmp_path: Path) -> None:
    """Runs in this process, so measured memory and time are not representative."""
    full = Training(train=quick())
    rows = (AblationRow("full", full, None), AblationRow("small taught", Costing(train=quick(**STUDENT)), "full", full))
    steps = steps_of(plan(AblationTable("distillation", "", "", rows), (), (0,), {}, material))
    assert len(steps) == 2 and steps[1].first == steps[0].fingerprint
    for step in steps:
        end = run_step(tmp_path, step, "cpu", ProgressObserver(lambda *_: None), lambda: False, material.dataset)
        assert end.state is StepState.DONE, end.error
    whole, small = (lasting(tmp_path, step).values for step in steps)
    clips = [load(step.folder(tmp_path) / "run" / "best").clip for step in steps]
    assert [found["parameters"] for found in (whole, small)] == [sum(p.numel() for p in clip.parameters()) for clip in clips]
    assert [estimate(step, material).parameters for step in steps] == [found["parameters"] for found in (whole, small)]
    assert small["parameters"] < whole["parameters"] / 2 and small["encode_flops"] == sum(encode_flops(clips[1].config, 32, 32))
    result = read_result(steps[1].folder(tmp_path))
    assert result is not None and 0 < result.measured["encode_seconds"] < 1
