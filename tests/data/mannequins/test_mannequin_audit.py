"""Leakage audit: nothing except the visible person identifies a mannequin.

There are 300 test identities with 4 images each. Every image (or caption) is a query; the gallery is all other images (or the
captions of all other images). A feature ranks the gallery by distance. Chance is 3 / 1199 = 0.25 % Rank-1. A feature counts as at
chance if its hits stay below the 99.9 % quantile of the binomial distribution around chance. Nearest neighbours are often mutual,
so hits are not independent and are counted as pairs: the bound is twice the quantile for half the queries, 12 hits or 1.0 %.

Two features need other bounds. The *mean colour of the whole image* includes the clothes, which do identify the person, so it
cannot be at chance; its bound is 6 times chance (measured: 0.67 %, 2.7 times chance). The mean colour of the background alone must
be at chance.

*Masked captions* are near chance, not at it. Words that name an attribute, or occur only with one, are removed; the rest is
compared as a bag of words. Over 12 populations Rank-1 was about 0.42 % (1.7 times chance, standard error 0.06 %), and about 0.56 %
with the prepositions of bags and inner shirts kept: the remaining small words reveal how many things a person wears and carries. A
single population may pass the binomial bound by luck (0.25 %) or fail it (1.04 %), so the mean over several is bounded by 3 times
chance. Unmasked captions reach about 10 %, 39 times chance.
"""

import io
import json
import math
import re
from functools import cache

import numpy as np
import pytest
from PIL import Image

from tbps.data.mannequins.describing import describe, paraphrase
from tbps.data.mannequins.drawing import draw_background
from tbps.data.mannequins.phrases import CLAIMS
from tbps.data.mannequins.population import population
from tbps.data.mannequins.writing import SplitSize, view_of, write_mannequins
from tbps.seeding import generator

PEOPLE, IMAGES, SEED = 300, 4, 31
QUERIES = PEOPLE * IMAGES
CHANCE = (IMAGES - 1) / (QUERIES - 1)


def quantile(trials: int, share: float, level: float = 0.999) -> int:
    """Returns the smallest k with P(Binomial(trials, share) <= k) >= level."""
    total, k = 0.0, -1
    while total < level:
        k += 1
        total += math.comb(trials, k) * share**k * (1 - share) ** (trials - k)
    return k


BOUND = 2 * quantile(QUERIES // 2, CHANCE) / QUERIES


def rank1(features: np.ndarray, identities: np.ndarray, images: np.ndarray | None = None) -> float:
    """Returns the share of rows whose nearest row of another image has the same identity; ties count proportionally."""
    features = features.reshape(len(features), -1).astype(np.float64)
    features = (features - features.mean(axis=0)) / (features.std(axis=0) + 1e-9)
    images = np.arange(len(features)) if images is None else images
    squares = (features**2).sum(axis=1)
    distance = np.round(squares[:, None] + squares - 2 * features @ features.T, 6)
    distance[images[:, None] == images] = np.inf
    nearest = distance == distance.min(axis=1, keepdims=True)
    right = identities[:, None] == identities
    return float(((nearest & right).sum(axis=1) / nearest.sum(axis=1)).mean())


@pytest.fixture(scope="module")
def crops(tmp_path_factory) -> list[dict]:
    """Rows of the metadata with the bytes of the file and the decoded image."""
    folder = tmp_path_factory.mktemp("audit") / "people"
    write_mannequins(folder, {"test": SplitSize(PEOPLE, IMAGES)}, seed=SEED, workers=2)
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    for row in rows:
        row["bytes"] = (folder / row["file_name"]).read_bytes()
        row["image"] = Image.open(io.BytesIO(row["bytes"]))
        row["image"].load()
    return rows


@pytest.fixture(scope="module")
def identities(crops) -> np.ndarray:
    return np.array([row["identity"] for row in crops])


@pytest.fixture(scope="module")
def backgrounds() -> tuple[np.ndarray, np.ndarray]:
    """(N, 12, 6, 3) thumbnails of the images without the person, and their identities."""
    views = [view_of(SEED, "test", index, number) for index in range(PEOPLE) for number in range(IMAGES)]
    thumbs = [np.asarray(draw_background(view).image.resize((6, 12), Image.Resampling.BOX), dtype=float) for view in views]
    return np.stack(thumbs), np.repeat(np.arange(PEOPLE), IMAGES)


def file_features(row: dict) -> dict[str, list[float]]:
    width, height = row["image"].size
    table = row["image"].quantization[0]
    moment = re.findall(r"\d+", row["captured_at"])
    month, day, hour, minute, second = map(int, moment[1:])
    return {
        "file size": [len(row["bytes"])],
        "image size": [width, height],
        "bytes a pixel": [len(row["bytes"]) / (width * height)],
        "JPEG quality": [sum(table)],
        "camera": [int(row["camera"].split("-")[1])],
        "captured_at": [month * 31 + day + (hour * 3600 + minute * 60 + second) / 86400],
        "hour": [hour * 3600 + minute * 60 + second],
        "file name": [int(re.search(r"(\d+)\.jpg", row["file_name"])[1])],
    }


FILE_FEATURES = ("file size", "image size", "bytes a pixel", "JPEG quality", "camera", "captured_at", "hour", "file name")


@pytest.mark.parametrize("name", FILE_FEATURES)
def test_file_properties_are_at_chance(crops, identities, name):
    assert rank1(np.array([file_features(row)[name] for row in crops]), identities) <= BOUND


def test_background_alone_is_at_chance(backgrounds):
    thumbs, owners = backgrounds
    assert rank1(thumbs, owners) <= BOUND


def test_mean_colour_of_the_background_is_at_chance(backgrounds):
    thumbs, owners = backgrounds
    assert rank1(thumbs.mean(axis=(1, 2)), owners) <= BOUND


def test_border_of_the_crop_is_at_chance(crops, identities):
    """The border is the outer twelfth at the left and right, at the height of the head: no clothes and few umbrellas are there."""
    means = []
    for row in crops:
        pixels = np.asarray(row["image"], dtype=float)
        height, width, _ = pixels.shape
        edge = max(2, width // 12)
        means.append([pixels[: height // 8, :edge].mean(axis=(0, 1)), pixels[: height // 8, -edge:].mean(axis=(0, 1))])
    assert rank1(np.array(means), identities) <= BOUND


def test_mean_colour_of_the_whole_image_is_near_chance(crops, identities):
    """Clothes fill a third of an image, so Rank-1 is above chance; the bound is 6 times chance."""
    means = np.array([np.asarray(row["image"], dtype=float).mean(axis=(0, 1)) for row in crops])
    assert rank1(means, identities) <= 6 * CHANCE


# Words that occur only with an attribute although they name no value: parts of the body, parts of a pattern, verbs of carrying, the
# prepositions of bags and inner shirts, gendered words. Verbs of wearing and words for the viewpoint stay.
_ATTENDANTS = [
    "hair",
    "head",
    "sleeves",
    "stripes",
    "checks",
    "squares",
    "check",
    "pattern",
    "dots",
    "spots",
    "print",
    "graphic",
    "design",
    "logo",
    "picture",
    "front",
    "chest",
    "it",
    "one",
    "shoulder",
    "shoulders",
    "side",
    "hip",
    "hand",
    "arm",
    "body",
    "slung",
    "hanging",
    "across",
    "at",
    "over",
    "under",
    "underneath",
    "open",
    "pulling",
    "dragging",
    "along",
    "holding",
    "holds",
    "using",
    "carrying",
    "carries",
    "feet",
    "bottoms",
    "pair",
    "he",
    "she",
    "his",
    "her",
    "their",
    "person",
    "pedestrian",
    "individual",
]


@cache
def attribute_words() -> frozenset[str]:
    words = {word for claim in CLAIMS.values() for said in claim.words for word in re.findall(r"[a-z]+", said)}
    return frozenset(words | set(_ATTENDANTS))


def bags(texts: list[str], masked: bool) -> np.ndarray:
    """(N, words) counts of the remaining words."""
    hidden = attribute_words() if masked else frozenset()
    split = [[word for word in re.findall(r"[a-z]+", text.lower()) if word not in hidden] for text in texts]
    columns = {word: at for at, word in enumerate(sorted({word for words in split for word in words}))}
    counts = np.zeros((len(texts), len(columns)))
    for row, words in enumerate(split):
        for word in words:
            counts[row, columns[word]] += 1
    return counts


def described(seed: int) -> tuple[list[str], list[str], np.ndarray]:
    """Returns a caption, its paraphrase and the identity of every image of one population."""
    captions, paraphrases = [], []
    for index, person in enumerate(population(seed, "test", PEOPLE)):
        for number in range(IMAGES):
            rng = generator(seed, "mannequins", "captions", "test", index, number)
            caption = describe(person, view_of(seed, "test", index, number), rng)
            captions.append(caption.text)
            paraphrases.append(paraphrase(caption, rng))
    return captions, paraphrases, np.repeat(np.arange(PEOPLE), IMAGES)


def test_masked_captions_are_near_chance():
    """One caption per image against those of all other images, over six populations."""
    populations = [described(seed) for seed in range(6)]
    for which in (0, 1):
        shares = [rank1(bags(texts[which], masked=True), texts[2]) for texts in populations]
        assert np.mean(shares) <= 3 * CHANCE, shares


def test_the_audit_detects_leaks(crops, identities):
    """Unmasked captions and a border coloured by identity are far above the bounds."""
    assert rank1(bags([row["captions"][0] for row in crops], masked=False), identities) > 5 * BOUND
    rng = np.random.default_rng(0)
    hints = rng.normal(size=(PEOPLE, 3))[identities] + 0.3 * rng.normal(size=(QUERIES, 3))
    assert rank1(hints, identities) > 2 * BOUND
