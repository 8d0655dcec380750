import numpy as np
import pytest
import torch

from tbps.data.augment.pair import MixedPairs, PairAugmentation, mix_pairs
from tbps.errors import SettingsError

COUNT, SIZE = 20, (6, 8)
CAPTIONS = tuple(f"a person in colour {i}" for i in range(COUNT))
IDENTITIES = torch.arange(COUNT) // 2 + 100


def certain(method: str, share: float = 0.25) -> PairAugmentation:
    return PairAugmentation.parse({"method": method, "share": share, "probability": 1})


def noise(size: tuple[int, int] = SIZE) -> torch.Tensor:
    return torch.randint(0, 256, (COUNT, 3, *size), generator=seeded(9), dtype=torch.uint8)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mixtures(pairs: MixedPairs) -> list[tuple[int, int]]:
    """Returns (row, partner) of every mixed pair, derived from the captions."""
    found = []
    for row, caption in enumerate(pairs.captions):
        numbers = [int(word) for word in caption.split() if word.isdigit()]
        assert numbers[0] == row
        assert caption == " ".join(CAPTIONS[n] for n in numbers)
        if len(numbers) == 2:
            found.append((row, numbers[1]))
    return found


@pytest.mark.parametrize("method", ["mixgen", "concatgen"])
@pytest.mark.parametrize("floating", [False, True])
def test_pixels_captions_and_identities(method: str, floating: bool) -> None:
    images = noise().float() / 255 if floating else noise()
    before = images.clone()
    pairs = mix_pairs(images, CAPTIONS, IDENTITIES, certain(method), seeded(1))
    mixed = mixtures(pairs)
    assert len(mixed) == 5
    assert pairs.images.dtype == images.dtype
    assert torch.equal(images, before)
    assert torch.equal(pairs.identities, IDENTITIES)

    expected, second = images.double().numpy().copy(), IDENTITIES.clone()
    for row, partner in mixed:
        a, b = images[row].double().numpy(), images[partner].double().numpy()
        if method == "mixgen":
            expected[row] = (a + b) / 2
        else:
            expected[row] = np.concatenate([(a[..., ::2] + a[..., 1::2]) / 2, (b[..., ::2] + b[..., 1::2]) / 2], -1)
        second[row] = IDENTITIES[partner]
    assert np.abs(pairs.images.double().numpy() - expected).max() <= (1e-6 if floating else 0.5)
    assert torch.equal(pairs.mixed_with, second)
    rows, partners = (set(side) for side in zip(*mixed, strict=True))
    assert not rows & partners, "an image that is mixed into another one is not changed itself"


def test_concatgen_of_an_odd_width_keeps_the_size() -> None:
    images = noise((5, 7))
    pairs = mix_pairs(images, CAPTIONS, IDENTITIES, certain("concatgen"), seeded())
    assert pairs.images.shape == images.shape
    row, partner = mixtures(pairs)[0]
    flat = torch.full_like(images, 10)
    flat[partner] = 200
    halves = mix_pairs(flat, CAPTIONS, IDENTITIES, certain("concatgen"), seeded()).images[row]
    assert (halves[..., :3] == 10).all()
    assert (halves[..., 3:] == 200).all()


def test_probability_and_share_of_mixing() -> None:
    assert PairAugmentation() == PairAugmentation(method="none", share=0.1, probability=0.1)
    images, state = noise((1, 2)), torch.get_rng_state()
    settings, stream = PairAugmentation(method="mixgen"), seeded(4)
    counts = [len(mixtures(mix_pairs(images, CAPTIONS, IDENTITIES, settings, stream))) for _ in range(1500)]
    assert set(counts) == {0, 2}  # none, or a tenth of the twenty pairs
    assert abs(np.mean(np.array(counts) > 0) - 0.1) < 4 * np.sqrt(0.1 * 0.9 / 1500)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_generator_determines_the_pairs_and_none_changes_nothing() -> None:
    images = noise()
    first, again, other = (mix_pairs(images, CAPTIONS, IDENTITIES, certain("mixgen"), seeded(s)) for s in (1, 1, 2))
    assert first.captions == again.captions
    assert torch.equal(first.images, again.images)
    assert first.captions != other.captions
    nothing = mix_pairs(images, CAPTIONS, IDENTITIES, certain("none"), seeded(1))
    assert torch.equal(nothing.images, images)
    assert nothing.captions == CAPTIONS
    assert torch.equal(nothing.mixed_with, IDENTITIES)


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match="are not pairs"):
        mix_pairs(noise(), CAPTIONS[1:], IDENTITIES, certain("mixgen"), seeded())
    for wrong in ({"share": 0.6}, {"method": "mixup"}, {"probability": 2}):
        with pytest.raises(SettingsError):
            PairAugmentation.parse(wrong)
