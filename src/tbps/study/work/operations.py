"""Floating-point operations and parameters of a training, counted from configurations without running it.

An operation is a multiplication or an addition, so a product of an (a, b) and a (b, c) matrix takes 2abc.
"""

import copy
import json
from dataclasses import dataclass
from functools import cache

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPConfig, CLIPModel

from tbps.model.clip import image_features, text_features
from tbps.preprocess.image import ImageSpec
from tbps.training.learned import heads_of
from tbps.training.settings import TrainSettings


@dataclass(frozen=True, slots=True)
class SplitCounts:
    """Numbers of identities, images and captions in a split."""

    identities: int
    images: int
    captions: int


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Numbers of a data set that an estimate needs: training pairs, identities to classify, and the val split."""

    pairs: int
    identities: int
    val: SplitCounts


@dataclass(frozen=True, slots=True)
class Estimate:
    """Expected updates, operations and parameters of a step.

    `flops`: approximate operations of all updates or probes. `parameters`: number of parameters of towers and heads, without those
    of LoRA and few-shot modules. Both are None if the model's configuration is unknown.
    """

    updates: int
    flops: float | None
    parameters: int | None


def encode_flops(config: CLIPConfig, height: int, width: int) -> tuple[int, int]:
    """Count the operations to embed one image of this size in pixels, and one caption of full length."""
    with torch.device("meta"):
        clip = CLIPModel(copy.deepcopy(config))
        pixels = torch.zeros(1, 3, height, width)
        tokens = torch.zeros(1, config.text_config.max_position_embeddings, dtype=torch.long)
    clip.set_attn_implementation("eager")  # fused attention is not counted
    with FlopCounterMode(display=False) as image, torch.no_grad():
        image_features(clip, pixels)
    with FlopCounterMode(display=False) as text, torch.no_grad():
        text_features(clip, tokens)
    return int(image.get_total_flops()), int(text.get_total_flops())


def pair_flops(train: TrainSettings, towers: CLIPConfig) -> tuple[int, int]:
    """Count the operations to embed one image of the recipe's input size, and one caption."""
    size = towers.vision_config.image_size
    spec = train.image.of(ImageSpec(height=size, width=size))
    return _encode_flops(towers.to_json_string(), spec.height, spec.width)


def update_flops(train: TrainSettings, towers: CLIPConfig, left: CLIPConfig) -> float:
    """Estimate the operations of one update. `left`: configuration of the trained model, which is `towers` after pruning.

    Every view of a batch takes `_passes` forward passes. A teacher takes one more forward pass of the first views; soft labels from
    a separate pass take one more of the views that N-ITC and MVS compare.
    """
    losses = train.losses
    image, text = pair_flops(train, left)
    images = 1 + losses.second_image + 2 * losses.ss_image
    texts = 1 + losses.second_text
    image_passes, text_passes = _passes(train)
    pair = image_passes * images * image + text_passes * texts * text
    if losses.separate_pass:
        pair += (1 + losses.second_image) * image + (1 + losses.second_text_in_mvs) * text
    if losses.distill.weight > 0:
        pair += sum(pair_flops(train, towers))
    return float(train.batch_size * pair)


def parameter_count(train: TrainSettings, left: CLIPConfig, identities: int) -> int:
    """Count the parameters of the towers and of the losses' heads; `identities`: classes of the identity classifier."""
    with torch.device("meta"):
        heads = heads_of(train, left.projection_dim, left.text_config.vocab_size, identities)
    return _tower_parameters(left.to_json_string()) + sum(parameter.numel() for parameter in heads.parameters())


def _passes(train: TrainSettings) -> tuple[int, int]:
    """Cost of an update for the image and the text tower, in forward passes.

    The forward pass, the gradients of the activations and the gradients of the weights count as one each. A batch that is encoded
    in parts takes one more. In few-shot learning the towers are locked, and only the text tower with a learned prompt has gradients
    of activations. Not subtracted: the weight gradients of locked layers (`lock`) and of matrices with adapters (`lora`).
    """
    twice = int(train.micro_batch is not None and train.micro_batch < train.batch_size)
    if train.few_shot is None:
        return 3 + twice, 3 + twice
    return 1 + twice, (1 if train.few_shot.prompt is None else 2) + twice


@cache
def _tower_parameters(towers: str) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in CLIPModel(CLIPConfig.from_dict(json.loads(towers))).parameters())


@cache
def _encode_flops(towers: str, height: int, width: int) -> tuple[int, int]:
    return encode_flops(CLIPConfig.from_dict(json.loads(towers)), height, width)
