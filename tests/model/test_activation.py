"""The QuickGELU of training against that of transformers."""

from pathlib import Path

import pytest
import torch
from transformers.activations import QuickGELUActivation

from tbps.model.activation import QuickGELU, choose_activation
from tbps.model.bundle import load
from tbps.model.clip import image_features


@pytest.mark.parametrize("kind", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_values_are_bitwise_equal_and_gradients_equal_up_to_rounding(kind: torch.dtype) -> None:
    values = torch.cat([torch.linspace(-30, 30, 4001), torch.tensor([0.0, -0.0, 1e4, -1e4])]).to(kind)
    weights = torch.randn(len(values), generator=torch.Generator().manual_seed(0)).to(kind)
    found, expected = [], []
    for activation, results in ((QuickGELU(), found), (QuickGELUActivation(), expected)):
        given = values.clone().requires_grad_()
        activated = activation(given)
        activated.backward(weights)
        results += [activated.detach(), given.grad]
    assert torch.equal(found[0], expected[0]) and torch.isfinite(found[1]).all()
    # a few roundings; |slope| <= 1.1, and rounding 1.702 x changes it by less than that
    torch.testing.assert_close(found[1], expected[1], rtol=0, atol=8 * torch.finfo(kind).eps * float(weights.abs().max()))


def test_the_gradient_is_correct_and_has_no_second_derivative() -> None:
    values = torch.randn(20, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(QuickGELU(), values)
    (slope,) = torch.autograd.grad(QuickGELU()(values).sum(), values, create_graph=True)
    with pytest.raises(RuntimeError, match="does not require grad"):
        slope.sum().backward()


def test_only_the_input_is_saved_for_the_backward_pass() -> None:
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        values = torch.randn(8, requires_grad=True)
        QuickGELU()(values)
    assert len(kept) == 1 and kept[0] is values


def test_both_towers_use_the_activation_and_are_saved_unchanged(tiny_model_folder: Path, tmp_path: Path) -> None:
    plain, chosen = load(tiny_model_folder), load(tiny_model_folder)
    choose_activation(chosen.clip)
    for tower in (chosen.clip.vision_model, chosen.clip.text_model):
        assert all(isinstance(layer.mlp.activation_fn, QuickGELU) for layer in tower.encoder.layers)
    pixels = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(image_features(chosen.clip, pixels), image_features(plain.clip, pixels))
    chosen.save(tmp_path / "saved")
    assert load(tmp_path / "saved").fingerprint == plain.fingerprint


def test_other_activations_are_kept(tiny_model_folder: Path) -> None:
    model = load(tiny_model_folder)
    model.clip.vision_model.encoder.layers[0].mlp.activation_fn = torch.nn.GELU()
    choose_activation(model.clip)
    assert isinstance(model.clip.vision_model.encoder.layers[0].mlp.activation_fn, torch.nn.GELU)
