"""Subsets of the training identities, for few-shot training."""

from dataclasses import replace

from tbps.data.records import PersonDataset
from tbps.errors import SettingsError
from tbps.seeding import generator


def with_train_identities(dataset: PersonDataset, share: float, seed: int) -> PersonDataset:
    """Returns `dataset` with a share (0 to 1) of its training identities, at least one, and the other splits complete.

    Subsets of one seed are nested: the identities of a smaller share are among those of a larger one. Raises SettingsError for a
    share outside of (0, 1].
    """
    if not 0 < share <= 1:
        raise SettingsError(f"share of training identities = {share}; it must be above 0 and at most 1")
    if share == 1:
        return dataset
    identities = sorted({image.identity for image in dataset.split("train").images})
    order = generator(seed, "train-identities").permutation(len(identities))
    kept = {identities[place] for place in order[: max(1, round(share * len(identities)))]}
    images = tuple(image for image in dataset.images if image.split != "train" or image.identity in kept)
    return replace(dataset, images=images)
