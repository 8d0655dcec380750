"""Splits and decoded images of a run. The first process decodes the images, then all processes open the files."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from tbps.data.cache import ImageCache, OnProgress
from tbps.data.proportions import Pictures
from tbps.data.records import PersonDataset
from tbps.distributed import barrier, rank
from tbps.errors import DataError
from tbps.preprocess.image import ImageSpec
from tbps.training.settings import TrainSettings


def splits_of(dataset: PersonDataset, settings: TrainSettings) -> dict[str, PersonDataset]:
    """Return the splits train, val and test; with `learn_from` "train+val", train has the images of both and val is empty.

    Raises DataError if train is empty, or if val is empty but needed.
    """
    splits = {name: dataset.split(name) for name in ("train", "val", "test")}
    if settings.learn_from == "train+val":
        joined = tuple(replace(image, split="train") for image in dataset.images if image.split in ("train", "val"))
        splits["train"], splits["val"] = replace(splits["train"], images=joined), replace(splits["val"], images=())
    if not splits["train"].images:
        raise DataError(f"{dataset.name} at {dataset.root} has no train split; training needs one")
    if settings.learn_from == "train" and not splits["val"].images:
        raise DataError(
            f"{dataset.name} at {dataset.root} has no val split; training needs one to choose the best epoch, "
            "or learn_from=train+val, which keeps the last epoch"
        )
    return splits


def open_caches(
    splits: Mapping[str, PersonDataset], spec: ImageSpec, settings: TrainSettings, folder: Path, on_progress: OnProgress
) -> dict[str, ImageCache]:
    """Open the decoded images of every split at the input size; those of train are resized as `training_resize` says."""
    make = partial(ImageCache.open, spec=spec, folder=folder, on_progress=on_progress)
    with _first_process_first():
        return {
            name: make(split, resize=settings.image.training_resize) if name == "train" else make(split)
            for name, split in splits.items()
            if split.images
        }


def open_pictures(
    train: PersonDataset, spec: ImageSpec, settings: TrainSettings, folder: Path, on_progress: OnProgress
) -> Pictures | None:
    """Open the training images in their own proportions; None if the views of self-supervision are not cropped from those."""
    if not settings.losses.ss_image or settings.strong_views.source != "reference":
        return None
    with _first_process_first():
        return Pictures.open(train, spec, folder, on_progress=on_progress)


@contextmanager
def _first_process_first() -> Iterator[None]:
    """Run the body on the first process, then on the others."""
    if rank() > 0:
        barrier()
    yield
    if rank() == 0:
        barrier()
