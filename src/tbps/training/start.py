"""Start model of a run: a given one, or a new one with a vocabulary learned from the training captions."""

from pathlib import Path

from tbps.data.records import PersonDataset
from tbps.errors import DataError, SettingsError
from tbps.model.bundle import PersonModel, load
from tbps.model.clip import build
from tbps.model.few_shot import add_few_shot
from tbps.model.tokens import train_tokenizer
from tbps.preprocess.caption import clean_caption
from tbps.preprocess.image import ImageSpec
from tbps.training.settings import TrainSettings


def start_model(settings: TrainSettings, dataset: PersonDataset, model: str | Path | None, device: str) -> PersonModel:
    """Load `model`, or build `settings.shape` with random weights, and add the few-shot modules.

    Raises SettingsError if both or neither of `model` and `settings.shape` are given, or if `model` already has few-shot modules;
    DataError if there are no captions to learn a vocabulary from.
    """
    start = _towers(settings, dataset, model, device)
    if settings.few_shot is not None:
        add_few_shot(start.clip, start.tokenizer, settings.few_shot, settings.seed)
    return start


def _towers(settings: TrainSettings, dataset: PersonDataset, model: str | Path | None, device: str) -> PersonModel:
    if model is not None and settings.shape is not None:
        raise SettingsError("this recipe builds a model from random weights; leave --model out, or give --set shape=null")
    if model is not None:
        opened = load(model, device)
        return PersonModel(opened.clip, opened.tokenizer, settings.image.of(opened.spec), opened.name)
    if settings.shape is None:
        raise SettingsError("this recipe fine-tunes a model; give one, such as --model openai/clip-vit-base-patch16")
    captions = [clean_caption(c) for i in dataset.split("train").images for c in (*i.captions, *i.captions_bt)]
    if not captions:
        raise DataError(f"{dataset.name} at {dataset.root} has no training captions to learn a vocabulary from")
    tokenizer = train_tokenizer(captions, settings.shape.vocabulary)
    shape = settings.shape.model_copy(update={"vocabulary": len(tokenizer)})
    size = shape.image_size
    spec = settings.image.of(ImageSpec(height=size, width=size))
    return PersonModel(build(shape, settings.seed), tokenizer, spec, name="new").to(device)
