"""Data and models of the benchmarks: mannequins, and towers of CLIP's published shapes with random weights."""

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from transformers import CLIPTokenizer

from tbps.data import Batch, Batches, PersonDataset, SplitSize, read_dataset, write_mannequins
from tbps.model import END, START, ModelShape, PersonModel, TowerShape, build, train_tokenizer
from tbps.preprocess.caption import clean_caption
from tbps.preprocess.image import ImageSpec
from tbps.study.recipes import IMAGENET_MEAN, IMAGENET_STD

MEAN_TOKENS = 28.6  # mean of 400 captions of mannequins, start and end token included
LEARNED = 1400  # learned tokens; mannequins' captions then have about as many tokens as with CLIP's own vocabulary


def published_shape(patch: int) -> ModelShape:
    """Returns the shape of CLIP ViT-B/32 or ViT-B/16."""
    return ModelShape(
        image=TowerShape(width=768, layers=12, heads=12),
        text=TowerShape(width=512, layers=12, heads=8),
        image_size=224,
        patch=patch,
        vocabulary=49_408,
    )


def toy_shape() -> ModelShape:
    """Returns a tiny shape."""
    tower = TowerShape(width=32, layers=2, heads=2)
    return ModelShape(image=tower, text=tower, image_size=32, patch=8, vocabulary=2000, embedding=32)


def random_model(shape: ModelShape, captions: list[str]) -> PersonModel:
    """Builds a random model whose vocabulary covers these captions and is padded with unused tokens to full size."""
    learned = train_tokenizer([clean_caption(caption) for caption in captions], min(LEARNED, shape.vocabulary))
    known = {piece: number for piece, number in learned.get_vocab().items() if piece not in (START, END)}
    unused = {f"<unused {number}>": number for number in range(len(known), shape.vocabulary - 2)}
    ids = known | unused | {START: shape.vocabulary - 2, END: shape.vocabulary - 1}
    merges = [tuple(pair) for pair in _merges(learned)]
    spec = ImageSpec(height=shape.image_size, width=shape.image_size, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    return PersonModel(build(shape, seed=0), CLIPTokenizer(vocab=ids, merges=merges), spec, name="random")


def draw_people(folder: Path, people: int, images: int, held_out: int = 2) -> PersonDataset:
    """Draws a data set of `people` training identities with `images` images each, and a few identities in the other splits."""
    splits = {"train": SplitSize(people, images), "val": SplitSize(held_out, 2), "test": SplitSize(held_out, 2)}
    write_mannequins(folder, splits, seed=11, workers=1)
    return read_dataset("folder", folder)


def captions_of(dataset: PersonDataset) -> list[str]:
    """Lists all captions of a data set."""
    return [caption for image in dataset.images for caption in image.captions]


def endless(batches: Batches) -> Iterator[Batch]:
    """Yields batches without end, epoch after epoch."""
    for epoch in count():
        yield from batches.epoch(epoch)


def _merges(tokenizer: CLIPTokenizer) -> list[list[str]]:
    merges: list[list[str]] = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    return merges
