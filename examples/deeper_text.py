"""A model with twice the text layers that answers as before, to drop and freeze layers of.

    python examples/deeper_text.py models/mannequin-tiny runs/deeper

Behind every layer of the text tower stands a copy whose last projections are zero, so that it adds nothing until it is trained
(Net2Net: Chen, Goodfellow and Shlens, 2016).
"""

import copy
import sys
from pathlib import Path

import torch
from torch import nn

import tbps

PROBE = ["A woman in a red coat with a black backpack", "A man"]


def main(source: str, target: Path) -> None:
    """Writes `target`, a model folder."""
    model = tbps.load(source)
    before = model.encode_texts(PROBE)
    deepen(model.clip.text_model.encoder)
    text = model.clip.config.text_config
    text.num_hidden_layers *= 2
    difference = abs(model.encode_texts(PROBE) - before).max()
    if difference > 1e-6:
        sys.exit(f"the deeper model differs by {difference}")
    model.save(target)


@torch.no_grad()
def deepen(encoder: nn.Module) -> None:
    """Doubles the encoder's layers in place."""
    layers: list[nn.Module] = []
    for layer in encoder.layers:
        idle = copy.deepcopy(layer)
        for projection in (idle.self_attn.out_proj, idle.mlp.fc2):
            projection.weight.zero_()
            projection.bias.zero_()
        layers += [layer, idle]
    encoder.layers = nn.ModuleList(layers)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], Path(sys.argv[2]))
