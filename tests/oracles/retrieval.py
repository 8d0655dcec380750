"""Retrieval metrics by sorting the gallery for every query, and by enumerating every order of images with equal scores."""

from collections.abc import Hashable, Iterable, Sequence
from itertools import permutations
from typing import NamedTuple

Scores = Sequence[Sequence[float]]


class Metrics(NamedTuple):
    """Rank-k, mAP and mINP in percent."""

    ranks: dict[int, float]
    map: float
    minp: float


def of_rankings(rankings: Iterable[Sequence[bool]], ks: Sequence[int]) -> Metrics:
    """Means over rankings; a ranking holds the relevance of each image, best image first."""
    hits: dict[int, list[float]] = {k: [] for k in ks}
    precisions, penalties = [], []
    for ranking in rankings:
        places = [place for place, relevant in enumerate(ranking, start=1) if relevant]
        for k in ks:
            hits[k].append(any(ranking[:k]))
        precisions.append(sum(found / place for found, place in enumerate(places, start=1)) / len(places))
        penalties.append(len(places) / places[-1])
    mean = {k: 100 * sum(h) / len(h) for k, h in hits.items()}
    return Metrics(mean, 100 * sum(precisions) / len(precisions), 100 * sum(penalties) / len(penalties))


def ties_against(scores: Scores, text_ids: Sequence[Hashable], image_ids: Sequence[Hashable], ks: Sequence[int]) -> Metrics:
    """Metrics if, among equal scores, irrelevant images are ranked before relevant ones."""
    rankings = []
    for row, identity in zip(scores, text_ids, strict=True):
        relevant = [identity == i for i in image_ids]
        order = sorted(range(len(row)), key=lambda g: (-row[g], relevant[g]))
        rankings.append([relevant[g] for g in order])
    return of_rankings(rankings, ks)


def ties_at_random(scores: Scores, text_ids: Sequence[Hashable], image_ids: Sequence[Hashable], ks: Sequence[int]) -> Metrics:
    """Mean of the metrics over all G! orders of the gallery, each sorted stably; for small galleries."""
    rankings = []
    for row, identity in zip(scores, text_ids, strict=True):
        for shuffled in permutations(range(len(row))):
            order = sorted(shuffled, key=lambda g: -row[g])
            rankings.append([identity == image_ids[g] for g in order])
    return of_rankings(rankings, ks)
