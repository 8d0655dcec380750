"""Subsets of the training identities: they hold complete identities, are nested, and leave other splits unchanged."""

from pathlib import Path

import pytest

from tbps.data.records import PersonDataset, PersonImage
from tbps.data.subset import with_train_identities
from tbps.errors import SettingsError


def people(count: int) -> PersonDataset:
    images = [
        PersonImage(Path(f"{split}-{identity}-{number}.png"), identity, split, ("a person",))
        for split, first in (("train", 0), ("val", 1000), ("test", 2000))
        for identity in range(first, first + count)
        for number in range(3)
    ]
    return PersonDataset("folder", Path(), tuple(images))


def kept(dataset: PersonDataset) -> set[int]:
    return {image.identity for image in dataset.split("train").images}


def test_identities_and_other_splits_stay_complete() -> None:
    whole = people(200)
    few = with_train_identities(whole, 0.05, seed=3)
    assert len(kept(few)) == 10 and len(few.split("train").images) == 30
    assert few.split("val") == whole.split("val") and few.split("test") == whole.split("test")
    assert [image for image in whole.images if image in few.images] == list(few.images)


@pytest.mark.parametrize("seed", range(3))
def test_smaller_shares_are_within_larger_ones(seed: int) -> None:
    whole = people(200)
    one, five, ten = (kept(with_train_identities(whole, share, seed)) for share in (0.01, 0.05, 0.1))
    assert (len(one), len(five), len(ten)) == (2, 10, 20) and one < five < ten
    assert kept(with_train_identities(whole, 1.0, seed)) == kept(whole)
    assert kept(with_train_identities(whole, 0.001, seed)) <= one


def test_seeds_choose_differently_and_evenly() -> None:
    whole = people(40)
    chosen = [kept(with_train_identities(whole, 0.25, seed)) for seed in range(200)]
    assert len(set(map(frozenset, chosen))) > 190
    counts = [sum(identity in one for one in chosen) for identity in range(40)]
    assert min(counts) >= 25 and max(counts) <= 77  # expected 50 +- 6.1; the bounds are more than four standard deviations away


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1])
def test_impossible_shares_are_refused(share: float) -> None:
    with pytest.raises(SettingsError, match="must be above 0"):
        with_train_identities(people(3), share, seed=0)
