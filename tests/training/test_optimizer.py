"""Every trained parameter has exactly one optimizer; Muon gets the layers' matrices and nothing else."""

from pathlib import Path

import pytest
import torch
from torch import nn

from tbps.model.bundle import load
from tbps.model.clip import LockSettings, bottom_parameters
from tbps.training.optimizer import OptimizerSettings, optimizers


def test_one_dimensional_parameters_do_not_decay_and_locked_ones_are_left_out() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3), nn.Linear(3, 2))
    model[2].weight.requires_grad_(False)
    (optimizer,) = optimizers(model, OptimizerSettings())
    decayed, kept = ([p for p in group["params"]] for group in optimizer.param_groups)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.02, 0.0]
    assert [p is model[0].weight for p in decayed] == [True]
    assert all(p.ndim == 1 for p in kept) and len(kept) == 4
    assert not any(p is model[2].weight for p in decayed) and torch.is_tensor(kept[0])


@pytest.mark.parametrize("matrices", ["adamw", "muon"])
def test_every_trained_parameter_once(tiny_model_folder: Path, matrices: str) -> None:
    clip = load(tiny_model_folder).clip
    for parameter in bottom_parameters(clip, LockSettings(patch_projection=True, text_layers=1)):
        parameter.requires_grad_(False)
    made = optimizers(clip, OptimizerSettings(matrices=matrices))
    held = [id(p) for optimizer in made for group in optimizer.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in clip.parameters() if p.requires_grad)


def test_muon_takes_the_matrices_inside_the_layers(tiny_model_folder: Path) -> None:
    clip = load(tiny_model_folder).clip
    _, muon = optimizers(clip, OptimizerSettings(matrices="muon"))
    taken = {id(p) for p in muon.param_groups[0]["params"]}
    names = {name for name, p in clip.named_parameters() if id(p) in taken}
    parts = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "mlp.fc1", "mlp.fc2")
    towers = ("text_model", "vision_model")
    assert names == {f"{tower}.encoder.layers.{n}.{part}.weight" for tower in towers for n in (0, 1) for part in parts}


def test_a_step_of_muon_turns_a_matrix_by_a_nearly_orthogonal_one(tiny_model_folder: Path) -> None:
    """The update is U V^T of the gradient's singular vectors, up to the 0.7 to 1.2 of five Newton-Schulz steps."""
    clip = load(tiny_model_folder).clip
    _, muon = optimizers(clip, OptimizerSettings(matrices="muon", weight_decay=0))
    weight = clip.vision_model.encoder.layers[0].mlp.fc1.weight
    before, weight.grad = weight.detach().clone(), torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    muon.param_groups[0]["lr"] = 1.0
    muon.step()
    update = (before - weight.detach()) / (0.2 * max(weight.shape) ** 0.5)
    values = torch.linalg.svdvals(update)
    assert values.min() > 0.6 and values.max() < 1.3
    u, _, vt = torch.linalg.svd(weight.grad, full_matrices=False)
    assert torch.cosine_similarity((u @ vt).flatten(), update.flatten(), dim=0) > 0.95
