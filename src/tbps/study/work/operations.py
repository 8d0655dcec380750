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
    """How many identities, images and captions a split holds."""

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
    """What a step is expected to take.

    `flops`: operations of all updates or probes, approximately. `parameters`: those of towers and heads, without LoRA's and the
    few-shot ones. Both are None where the model's configuration is unknown.
    """

    updates: int
    flops: float | None
    parameters: int | None


def encode_flops(config: CLIPConfig, height: int, width: int) -> tuple[int, int]:
    """Operations to embed one image of this size in pixels, and one caption of full length."""
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
    """Operations to embed one image of the recipe's input size, and one caption."""
    size = towers.vision_config.image_size
    spec = train.image.of(ImageSpec(height=size, width=size))
    return _encode_flops(towers.to_json_string(), spec.height, spec.width)


def update_flops(train: TrainSettings, towers: CLIPConfig, left: CLIPConfig) -> float:
    """Approximate operations of one update. `left`: what pruning leaves of `towers`, which is what learns.

    Every view of a batch takes `_passes`. One more forward pass of the first views goes to the teacher, if there is one, and one
    more of the compared views to soft labels of a separate pass.
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
    """Parameters of the towers and of the losses' heads; `identities`: classes of the identity classifier."""
    with torch.device("meta"):
        heads = heads_of(train, left.projection_dim, left.text_config.vocab_size, identities)
    return _tower_parameters(left.to_json_string()) + sum(parameter.numel() for parameter in heads.parameters())


def _passes(train: TrainSettings) -> tuple[int, int]:
    """What an update costs the image and the text tower, in forward passes.

    One is the forward pass, one the gradients of the activations, one the gradients of the weights. A batch that is encoded in
    parts takes one more. Locked towers of few-shot learning have no gradients below what learns. Not subtracted: the weight
    gradients of locked layers (`lock`) and of matrices with adapters (`lora`).
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
