from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tbps.data.augment.pair import PairAugmentation
from tbps.data.augment.text import TextAugmentation
from tbps.data.batches import Batches, epoch_batches
from tbps.data.records import PersonDataset, PersonImage
from tbps.errors import CaptionError, DataError, SettingsError

IMAGES = 23


def make(**changes: object) -> Batches:
    people = tuple(
        PersonImage(
            Path(f"/{i}.png"),
            identity=i // 2,
            split="train",
            captions=tuple(f"Image {i} caption {c}, plus some more words to lose." for c in range(2)),
            captions_bt=tuple(f"paraphrase {c} of {i}" for c in range(2)),
        )
        for i in range(IMAGES)
    )
    values: dict[str, object] = {
        "dataset": PersonDataset("made", Path("/"), people),
        "images": np.arange(IMAGES, dtype=np.uint8)[:, None, None, None] * np.ones((1, 6, 4, 3), dtype=np.uint8),
        "tokenise": spell,
        "text": TextAugmentation(paraphrase_probability=0.3, deletion_probability=0.3),
        "batch_size": 8,
        "seed": 5,
    }
    return Batches(**{**values, **changes})


def spell(texts: list[str]) -> torch.Tensor:
    """A lossless tokenizer: (N, 100) code points."""
    return torch.tensor([[ord(c) for c in text.ljust(100)[:100]] for text in texts])


def read(tokens: torch.Tensor) -> list[str]:
    return ["".join(map(chr, row)).strip() for row in tokens.tolist()]


def content(batches: Batches, epoch: int, start: int = 0) -> list[tuple[list[str], list[int], list[int]]]:
    return [(read(b.tokens), b.identities.tolist(), b.images[:, 0, 0, 0].tolist()) for b in batches.epoch(epoch, start)]


def test_epoch_batches_are_a_permutation_without_a_partial_batch() -> None:
    order = epoch_batches(1, 0, 103, 10)
    assert order.shape == (10, 10)
    assert len(set(order.ravel())) == 100
    assert set(order.ravel()) <= set(range(103))
    assert np.array_equal(order, epoch_batches(1, 0, 103, 10))
    for other in (epoch_batches(2, 0, 103, 10), epoch_batches(1, 1, 103, 10)):
        assert not np.array_equal(order, other)


def test_every_pair_is_equally_likely_to_be_dropped() -> None:
    kept = np.zeros(11)
    for epoch in range(3000):
        kept[epoch_batches(0, epoch, 11, 5).ravel()] += 1
    assert np.abs(kept / 3000 - 10 / 11).max() < 4 * np.sqrt(10 / 121 / 3000)


def test_a_batch_shows_image_caption_and_identity_of_the_same_pair() -> None:
    plain = make(text=TextAugmentation(enabled=False))
    seen = []
    assert plain.steps == 5
    for batch in plain.epoch(0):
        assert batch.images.shape == (8, 3, 6, 4)
        assert batch.images.dtype == torch.uint8
        assert batch.images.is_contiguous()
        for text, identity, pixel in zip(read(batch.tokens), batch.identities.tolist(), batch.images[:, 2, 5, 3], strict=True):
            words = text.split()
            assert words[:2] == ["image", str(pixel.item())]
            assert identity == pixel.item() // 2
            seen.append((words[1], words[3]))
    assert len(seen) == len(set(seen)) == 40


@pytest.mark.parametrize("start", range(6))
def test_a_resumed_epoch_equals_the_remainder_of_an_uninterrupted_one(start: int) -> None:
    whole = content(make(), 3)
    assert content(make(), 3, start) == whole[start:]


def test_augmentation_differs_between_epochs_and_uses_paraphrases() -> None:
    batches = make()
    texts = [text for epoch in range(4) for step in content(batches, epoch) for text in step[0]]
    share = np.mean(["paraphrase" in text or "of" in text.split() for text in texts])
    assert 0.15 < share < 0.45
    assert len(set(texts)) > 100


def test_processes_together_hold_the_global_batch() -> None:
    whole = content(make(), 1)
    parts = [content(make(rank=rank, world_size=4), 1) for rank in range(4)]
    for step, (texts, identities, pixels) in enumerate(whole):
        assert [text for part in parts for text in part[step][0]] == texts
        assert [i for part in parts for i in part[step][1]] == identities
        assert [p for part in parts for p in part[step][2]] == pixels


def test_too_few_pairs_are_refused() -> None:
    with pytest.raises(DataError, match=r"46 .* pairs do not fill one batch of 47; use a smaller batch size"):
        make(batch_size=47)


def test_missing_paraphrases_are_refused_only_when_they_are_needed() -> None:
    dataset = make().dataset
    poor = replace(dataset, images=(*dataset.images[:-1], replace(dataset.images[-1], captions_bt=("only one",))))
    with pytest.raises(DataError, match=r"22\.png has 1 paraphrases .* for 2 captions"):
        make(dataset=poor)
    assert len(content(make(dataset=poor, text=TextAugmentation(paraphrase_probability=0)), 0)) == 5


def test_contradicting_arguments_are_refused() -> None:
    dataset = make().dataset
    with pytest.raises(DataError, match="22 cached images for 23"):
        make(images=np.zeros((22, 6, 4, 3), dtype=np.uint8))
    with pytest.raises(SettingsError, match="does not divide among 3"):
        make(world_size=3)
    wordless = replace(dataset, images=(replace(dataset.images[0], captions=("...", "a")), *dataset.images[1:]))
    with pytest.raises(CaptionError):
        make(dataset=wordless)


def test_mixed_pairs_contain_two_pairs_and_both_identities() -> None:
    settings = PairAugmentation(method="mixgen", share=0.25, probability=1)
    plain = make(text=TextAugmentation(enabled=False))
    mixing = make(text=TextAugmentation(enabled=False), mixing=settings)
    for before, after in zip(plain.epoch(0), mixing.epoch(0), strict=True):
        assert after.mixed_with is not None
        changed = [i for i in range(8) if not torch.equal(before.images[i], after.images[i])]
        assert len(changed) == 2
        captions, said = read(before.tokens), read(after.tokens)
        for row in changed:
            (partner,) = [p for p in range(8) if said[row].startswith(f"{captions[row]} {captions[p]}"[:100].strip())]
            assert after.mixed_with[row] == before.identities[partner]
        assert [said[i] for i in range(8) if i not in changed] == [captions[i] for i in range(8) if i not in changed]
        assert torch.equal(after.identities, before.identities)
    assert content(mixing, 0, 2) == content(mixing, 0)[2:]


def test_mixing_and_a_second_view_are_refused_together() -> None:
    with pytest.raises(SettingsError, match="second view"):
        make(mixing=PairAugmentation(method="concatgen"), second_text=True)


@pytest.mark.parametrize("mixing", [PairAugmentation(), PairAugmentation(method="mixgen", share=0.25, probability=1)])
def test_batches_of_images_on_the_device_are_the_same(mixing: PairAugmentation) -> None:
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, 6, 4, 3), dtype=np.uint8)
    host, device = make(images=images, mixing=mixing), make(images=torch.from_numpy(images), mixing=mixing)
    for one, other in zip(host.epoch(1), device.epoch(1), strict=True):
        assert torch.equal(one.images, other.images) and other.images.is_contiguous()
        assert torch.equal(one.tokens, other.tokens) and torch.equal(one.identities, other.identities)
