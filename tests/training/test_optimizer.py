"""Every trained parameter is in exactly one optimizer; Muon gets the matrices of the layers only."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler

from tbps.model.bundle import load
from tbps.model.clip import LockSettings, bottom_parameters
from tbps.study.recipes import irra
from tbps.training.learned import choose_what_learns, heads_of
from tbps.training.optimizer import OptimizerSettings, optimizers, update_together


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
def test_every_trained_parameter_is_in_one_optimizer(tiny_model_folder: Path, matrices: str) -> None:
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


def test_an_update_of_muon_is_nearly_orthogonal(tiny_model_folder: Path) -> None:
    """The update is U V^T of the gradient's SVD, with singular values of 0.7 to 1.2 after five Newton-Schulz steps."""
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


def adam_of_irra(named: dict[str, torch.Tensor], steps: list[dict[str, torch.Tensor]], rate: float) -> dict[str, torch.Tensor]:
    """Updates as in the description of IRRA's `solver/build.py`: one group per parameter, Adam with decay added to the gradient.

    Names are IRRA's. Computed in float64 by the formula of Adam (Kingma and Ba, algorithm 1).
    """
    found = {}
    for name, weight in named.items():
        factor, decay = 1.0, 4e-5
        if "cross" in name:
            factor = 5.0
        if "bias" in name:
            factor, decay = 2.0, 0.0
        if "classifier" in name or "mlm_head" in name:
            factor = 5.0
        value, first, second = weight.double().clone(), torch.zeros_like(weight).double(), torch.zeros_like(weight).double()
        for number, gradients in enumerate(steps, start=1):
            gradient = gradients[name].double() + decay * value
            first = 0.9 * first + 0.1 * gradient
            second = 0.999 * second + 0.001 * gradient**2
            corrected = (first / (1 - 0.9**number)) / ((second / (1 - 0.999**number)).sqrt() + 1e-3)
            value = value - factor * rate * corrected
        found[name] = value
    return found


def irras_name(name: str) -> str:
    """Returns IRRA's name of one of our parameters, as far as IRRA's groups depend on it."""
    for ours, theirs in (
        ("heads.classifier.linear", "classifier"),
        ("heads.cross_modal.attention", "cross_attn"),
        ("heads.cross_modal.layers", "cross_modal_transformer"),
        ("heads.cross_modal.text_norm", "ln_pre_t"),
        ("heads.cross_modal.image_norm", "ln_pre_i"),
        ("heads.cross_modal.last_norm", "ln_post"),
        ("heads.cross_modal", "mlm_head"),
        ("clip", "base_model"),
    ):
        if name.startswith(ours):
            return name.replace(ours, theirs, 1)
    raise AssertionError(name)


def test_irras_optimizer_is_adam_with_coupled_decay_in_its_groups(tiny_model_folder: Path) -> None:
    """Every parameter of towers and heads after four updates with given gradients, against the formula."""
    settings = irra()
    model = load(tiny_model_folder)
    heads = heads_of(settings, model.dim, model.clip.config.text_config.vocab_size, 5)
    learned = nn.ModuleDict({"clip": model.clip, "heads": heads})
    (made,) = optimizers(learned, settings.optimizer, choose_what_learns(model.clip, heads, settings))
    assert type(made) is torch.optim.Adam
    rate, generator = 1e-2, torch.Generator().manual_seed(0)
    named = {name: p for name, p in learned.named_parameters() if name != "clip.logit_scale"}
    start = {irras_name(name): p.detach().clone() for name, p in named.items()}
    assert len(start) == len(named)
    steps = []
    for _ in range(4):
        gradients = {name: torch.randn(p.shape, generator=generator) * 0.01 for name, p in named.items()}
        steps.append({irras_name(name): gradient for name, gradient in gradients.items()})
        for name, parameter in named.items():
            parameter.grad = gradients[name]
        for group in made.param_groups:
            group["lr"] = rate * group["factor"]
        update_together((made,), GradScaler("cpu", enabled=False), None)
    expected = adam_of_irra(start, steps, rate)
    for name, parameter in named.items():
        torch.testing.assert_close(parameter.detach().double(), expected[irras_name(name)], rtol=1e-5, atol=1e-6, msg=name)
