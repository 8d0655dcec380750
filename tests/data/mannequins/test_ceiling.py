"""The ceiling of mannequins against a plain loop, and for captions that mention every attribute or none."""

from pathlib import Path

import numpy as np
import pytest

from tbps.data.mannequins.ceiling import attribute_scores, has_mentions, mention_scores
from tbps.data.mannequins.describing import describe_attributes, shown_attributes
from tbps.data.mannequins.population import population, sample_view
from tbps.data.records import PersonDataset, PersonImage
from tbps.evaluation.metrics import chance, metrics_from_scores


def slow_rank_key(mentions: dict, shown: dict) -> tuple[int, int]:
    """Returns (contradictions, -confirmations), one mention at a time."""
    contradicted = confirmed = 0
    for slot, values in mentions.items():
        if slot in shown and shown[slot] in values:
            confirmed += 1
        elif slot in shown:
            contradicted += 1
    return contradicted, -confirmed


@pytest.fixture(scope="module")
def crops() -> tuple[list[int], list[dict], list[list[dict]]]:
    """Identity, shown attributes and mentions of two captions, for 4 images of each of 150 people."""
    rng = np.random.default_rng(4)
    identities, gallery, mentions = [], [], []
    for identity, person in enumerate(population(9, "test", 150)):
        for _ in range(4):
            shown = shown_attributes(person, sample_view(rng))
            identities.append(identity)
            gallery.append(shown)
            captions = [describe_attributes(shown, rng) for _ in range(2)]
            mentions.append([{m.slot: list(m.values) for m in caption.mentions} for caption in captions])
    return identities, gallery, mentions


def test_scores_order_images_as_the_slow_loop(crops):
    _, gallery, mentions = crops
    queries = [said for pair in mentions[:40] for said in pair]
    scores = mention_scores(queries, gallery)
    fast = np.concatenate([scores(0, 30), scores(30, len(queries))])
    for row, said in zip(fast, queries, strict=True):
        keys = [slow_rank_key(said, shown) for shown in gallery]
        levels = {key: -level for level, key in enumerate(sorted(set(keys)))}
        assert np.array_equal(np.unique(row, return_inverse=True)[1], np.unique([levels[k] for k in keys], return_inverse=True)[1])


def test_a_caption_never_contradicts_its_own_image(crops):
    _, gallery, mentions = crops
    for shown, pair in zip(gallery, mentions, strict=True):
        for said in pair:
            assert slow_rank_key(said, shown) == (0, -len(said))


def test_the_ceiling_lies_between_chance_and_full_information(crops):
    identities, gallery, mentions = crops
    queries = [said for pair in mentions for said in pair]
    owners = np.repeat(identities, 2)
    usual = metrics_from_scores(mention_scores(queries, gallery), owners, identities, ties="random")
    everything = [{slot: [value] for slot, value in shown.items()} for shown in gallery]
    full = metrics_from_scores(mention_scores(everything, gallery), identities, identities, ties="random")
    nothing = metrics_from_scores(mention_scores([{} for _ in gallery], gallery), identities, identities, ties="random")
    guess = chance(identities, identities)
    assert full.r1 > 99
    assert 80 < usual.r1 < full.r1
    assert nothing.r1 == pytest.approx(guess.r1)


def test_a_contradiction_outweighs_any_number_of_confirmations():
    said = {"a": ["1"], "b": ["1"], "c": ["1"], "d": ["1"]}
    score = mention_scores([said], [{"a": "2", "b": "1", "c": "1", "d": "1"}, {"a": "1"}, {}])(0, 1)[0]
    assert score[1] > score[2] > score[0]


def test_data_sets_with_and_without_mentions():
    shown, said = {"gender": "man"}, [{"gender": ["man"]}, {}]
    image = PersonImage(Path("/a.jpg"), 0, "test", ("one", "two"), attributes={"attributes": shown, "mentions": said})
    other = PersonImage(Path("/b.jpg"), 1, "test", ("one",), attributes={"attributes": "worn", "mentions": 3})
    assert has_mentions(PersonDataset("folder", Path("/"), (image,)))
    assert not has_mentions(PersonDataset("folder", Path("/"), (image, other)))
    assert not has_mentions(PersonDataset("folder", Path("/"), ()))
    assert attribute_scores(PersonDataset("folder", Path("/"), (image,)))(0, 2).tolist() == [[1.0], [0.0]]


def test_a_large_split_takes_seconds(crops):
    _, gallery, mentions = crops
    queries = [said for pair in mentions for said in pair] * 2
    scores = mention_scores(queries[:2000], (gallery * 9)[:5000])
    assert scores(0, 2000).shape == (2000, 5000)
