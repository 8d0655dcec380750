"""Score a model during and after a run."""

import copy

import torch
from torch.optim.swa_utils import AveragedModel
from transformers import CLIPModel

from tbps.data.cache import ImageCache
from tbps.data.embedding import embed_split, identities
from tbps.data.mannequins.ceiling import ceiling_scores
from tbps.data.records import PersonDataset
from tbps.evaluation import Embeddings, Standing, score
from tbps.model.bundle import PersonModel
from tbps.model.lora import merge_adapters

_BATCH = 128


def judged_model(model: PersonModel, averaged: AveragedModel | None, *, with_adapters: bool) -> PersonModel:
    """Make the model to validate and save: the averaged weights if there are any, with LoRA's adapters merged into them."""
    clip: CLIPModel = model.clip if averaged is None else averaged.module
    plain = merge_adapters(copy.deepcopy(clip)) if with_adapters else clip
    return PersonModel(plain, model.tokenizer, model.spec, model.name)


def standing_of(model: PersonModel, split: PersonDataset, cache: ImageCache, name: str, *, with_ceiling: bool) -> Standing:
    """Compute the metrics of a model on a split. `cache`: decoded images of the split; `name`: its name."""
    model.clip.eval()
    arrays = (cache.images[start : start + _BATCH] for start in range(0, len(cache.images), _BATCH))
    with torch.compiler.set_stance("force_eager"):
        rows = embed_split(split, arrays, model.encode_arrays, model.encode_texts)
    embedded = Embeddings(*rows, *identities(split), model=model.name, source=f"{split.name} {name}")
    return score(embedded, ceiling_scores(split) if with_ceiling else None)
