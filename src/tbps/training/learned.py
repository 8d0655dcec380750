"""Choose the trainable parameters of a model and their learning rates, and make the heads of the losses."""

import torch
from torch import nn
from transformers import CLIPModel

from tbps.model.clip import bottom_parameters
from tbps.model.cross_modal import CrossModalEncoder
from tbps.model.few_shot import ADDED
from tbps.model.heads import Heads, IdentityClassifier, ProjectionHead
from tbps.seeding import entropy
from tbps.training.optimizer import is_bias
from tbps.training.settings import TrainSettings


def choose_what_learns(clip: CLIPModel, heads: Heads, settings: TrainSettings) -> dict[nn.Parameter, float]:
    """Set `requires_grad` of all parameters, and return the rate factors of those whose learning rate is not the schedule's.

    All parameters are trained except the locked bottom of the towers (`lock`). With `few_shot` only the added modules are trained;
    with `lora` only adapters and temperature, as `add_adapters` has already set. The heads of the losses are always trained.
    """
    factors: dict[nn.Parameter, float] = {}
    if settings.few_shot is not None:
        for name, parameter in clip.named_parameters():
            parameter.requires_grad_(name in ADDED)
    else:
        for parameter in bottom_parameters(clip, settings.lock):
            if settings.lock.rate_factor == 0:
                parameter.requires_grad_(False)
            factors[parameter] = settings.lock.rate_factor
    for head in (heads.classifier, heads.cross_modal):
        factors |= dict.fromkeys(head.parameters() if head else (), settings.optimizer.head_rate_factor)
    if settings.optimizer.groups == "irra":
        _group_as_irra(factors, clip, heads.cross_modal, settings.optimizer.bias_rate_factor)
    return factors


def _group_as_irra(
    factors: dict[nn.Parameter, float], clip: CLIPModel, encoder: CrossModalEncoder | None, of_biases: float
) -> None:
    """Set the rate factors of biases (not those of classifier and word head) and of the norms around the cross-modal encoder."""
    parts: list[nn.Module] = [clip]
    if encoder is not None:
        norms = [encoder.text_norm, encoder.image_norm, encoder.last_norm]
        parts += [*norms, encoder.attention, encoder.layers]
        for inside in parts[1:]:
            for name, parameter in inside.named_parameters():
                if inside in norms or is_bias(name):
                    factors[parameter] = 1.0
    for part in parts:
        for name, parameter in part.named_parameters():
            if is_bias(name):
                factors[parameter] = of_biases * factors.get(parameter, 1.0)


def heads_of(settings: TrainSettings, dim: int, vocabulary: int, identities: int) -> Heads:
    """Make the heads of the enabled losses, with random weights that depend on the seed only."""
    losses = settings.losses
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(entropy(settings.seed, "heads") & (2**63 - 1))
        return Heads(
            image_projection=ProjectionHead(dim) if losses.ss_image else None,
            text_projection=ProjectionHead(dim) if losses.ss_text else None,
            classifier=IdentityClassifier(dim, identities) if losses.id.weight > 0 else None,
            cross_modal=CrossModalEncoder(dim, vocabulary) if losses.mlm.weight > 0 else None,
        )
