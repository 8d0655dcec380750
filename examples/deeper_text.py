"""Makes a model with twice as many text layers and unchanged embeddings, for experiments that drop and freeze layers.

    python examples/deeper_text.py models/mannequin-tiny runs/deeper

Inserts a copy behind every layer of the text tower, with output projections of zero, so that it has no effect until it is trained
(Net2Net: Chen, Goodfellow and Shlens, ICLR 2016).

Cost: seconds. Result: `runs/deeper`, a model folder whose embeddings equal the original's to 1e-6 (checked).
"""

import copy
import sys
from pathlib import Path

import torch
from torch import nn

import tbps

PROBE = ["A woman in a red coat with a black backpack", "A man"]


def main(source: str, target: Path) -> None:
    """Writes the deeper model to `target`."""
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
