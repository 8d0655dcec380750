"""Diagnose the errors of a model on data with attributes: mannequins, or any `folder` with attribute columns.

It answers four questions. Which attributes improve Rank-1 when a caption mentions them? Does the model confuse people who differ in
few attributes (near-twins)? Does the score drop when one word of a caption becomes false? Which failures have the largest margin?
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from jaxtyping import Float, Int64

from tbps.data.embedding import EncodeTexts
from tbps.data.mannequins.ceiling import has_mentions
from tbps.data.records import PersonDataset
from tbps.errors import DataError
from tbps.evaluation import Embeddings
from tbps.seeding import generator

TWIN_THINGS = 2
"""Near-twins differ in at most this many things; a thing is the part of an attribute before the dot ("hat" of "hat.colour")."""

SWAPS: Mapping[str, tuple[str, ...]] = {
    "colour": ("black", "white", "grey", "red", "blue", "green", "yellow", "orange", "purple", "pink", "brown"),
    "person": ("man", "woman"),
    "upper garment": ("jacket", "t-shirt", "sweater", "dress", "blouse"),
    "lower garment": ("trousers", "jeans", "shorts", "skirt"),
    "thing carried": ("backpack", "handbag", "suitcase", "umbrella"),
    "side": ("left", "right"),
    "control: a, the": ("a", "the"),
}
"""Groups of words that replace one another. The control group changes the wording of a caption, but not its meaning."""

LEAST = 20
"""Attributes and swaps with fewer captions are left out."""

_SHOWN, _MOST_SWAPS = 5, 2000
_BLOCK = 512


@dataclass(frozen=True, slots=True)
class Mentioned:
    """Rank-1 in percent of captions that mention an attribute, and of all others (None if every caption mentions it)."""

    slot: str
    queries: int
    r1: float
    r1_without: float | None


@dataclass(frozen=True, slots=True)
class Twins:
    """Near-twins among the people of a split, and how often they are confused.

    `r1_with`, `r1_without`: Rank-1 of captions of people with a twin, and of others. `errors`: number of captions of people with a
    twin that rank somebody else first; `errors_to_twin`: those that rank the twin first. `told_apart_*`: percent of (caption, twin)
    pairs for which the best image of the person scores higher than that of the twin, and number of pairs; `named` counts captions
    that mention a difference, `unnamed` all others.
    """

    people: int
    with_twin: int
    r1_with: float | None
    r1_without: float | None
    errors: int
    errors_to_twin: int
    told_apart_named: tuple[float | None, int]
    told_apart_unnamed: tuple[float | None, int]


@dataclass(frozen=True, slots=True)
class Swapped:
    """Effect of one false word from a group.

    `preferred`: percent of captions that score higher with their image than the false caption does. `drop`: mean drop in cosine.
    `share`: `drop` in percent of the lead, which is the true caption's cosine with its image minus that with the gallery's mean.
    """

    group: str
    captions: int
    preferred: float
    drop: float
    share: float


@dataclass(frozen=True, slots=True)
class Failure:
    """A query that ranks an irrelevant image first.

    `query`: position of the caption in `pairs()`. `found`: the images ranked first. `rank`: rank of the best relevant image.
    """

    query: int
    found: tuple[int, ...]
    rank: int


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Results of a diagnosis. `words`: the swaps least noticed by the model, as (word, other, captions, percent preferred)."""

    queries: int
    gallery: int
    r1: float
    mentioned: tuple[Mentioned, ...]
    twins: Twins
    swapped: tuple[Swapped, ...]
    words: tuple[tuple[str, str, int, float], ...]
    failures: tuple[Failure, ...]


@dataclass(frozen=True, slots=True)
class Ranking:
    """Ranking of every query.

    `rank`: rank of the best relevant image; ties count against it. `own`, `other`: best score of a relevant and of an irrelevant
    image. `first`: the images ranked first.
    """

    rank: Int64[np.ndarray, " Q"]
    own: Float[np.ndarray, " Q"]
    other: Float[np.ndarray, " Q"]
    first: Int64[np.ndarray, "Q K"]

    @property
    def right(self) -> np.ndarray:
        """Whether the first image is relevant, (Q,)."""
        return np.asarray(self.rank == 1)


def diagnose(split: PersonDataset, embedded: Embeddings, encode_texts: EncodeTexts, failures: int = 8) -> Diagnosis:
    """Diagnose a model by its embeddings of a split. Raises DataError for data without attributes."""
    shown = shown_attributes(split)
    if not any(shown):
        raise DataError(f"{split.name} at {split.root} has no attributes; a diagnosis needs attribute columns, as in mannequins")
    said = mentions(split, shown)
    ranking = rank_queries(embedded)
    swapped, words = swap_words(split, embedded, encode_texts)
    return Diagnosis(
        queries=len(embedded.text),
        gallery=len(embedded.image),
        r1=100 * float(ranking.right.mean()),
        mentioned=_by_slot(said, ranking.right),
        twins=_confusion(shown, said, embedded, ranking),
        swapped=swapped,
        words=words,
        failures=tuple(islice(_surest(ranking, embedded), failures)),
    )


def shown_attributes(split: PersonDataset) -> list[dict[str, str]]:
    """Attribute -> value of every image: for mannequins the attributes that the view shows, else every additional text column."""
    if has_mentions(split):
        return [dict(image.attributes["attributes"]) for image in split.images]
    return [dict(_flat(image.attributes, "")) for image in split.images]


def mentions(split: PersonDataset, shown: Sequence[Mapping[str, str]]) -> list[dict[str, tuple[str, ...]]]:
    """Attribute -> values compatible with the caption, for every caption in the order of `pairs()`.

    If the data set has no mentions, an attribute counts as mentioned when the caption contains the value that the image has.
    """
    if has_mentions(split):
        return [{slot: tuple(values) for slot, values in m.items()} for i in split.images for m in i.attributes["mentions"]]
    found: list[dict[str, tuple[str, ...]]] = []
    for image, attributes in zip(split.images, shown, strict=True):
        for caption in image.captions:
            text = caption.lower()
            found.append({slot: (value,) for slot, value in attributes.items() if _holds(text, value)})
    return found


def rank_queries(embedded: Embeddings) -> Ranking:
    """Rank the gallery for every query, in float64."""
    image = embedded.image.astype(np.float64)
    parts: list[tuple[np.ndarray, ...]] = []
    for start in range(0, len(embedded.text), _BLOCK):
        scores = embedded.text[start : start + _BLOCK].astype(np.float64) @ image.T
        relevant = embedded.text_ids[start : start + _BLOCK, None] == embedded.image_ids[None]
        own = np.where(relevant, scores, -np.inf).max(1)
        wrong = np.where(relevant, -np.inf, scores)
        rank = 1 + (wrong >= own[:, None]).sum(1)
        count = min(_SHOWN, scores.shape[1])
        first = np.argsort(-np.where(relevant, np.nextafter(scores, -np.inf), scores), axis=1, kind="stable")[:, :count]
        parts.append((rank, own, wrong.max(1), first))
    rank, own, other, first = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return Ranking(rank, own, other, first)


def near_twins(people: Sequence[Mapping[str, str]]) -> list[list[int]]:
    """Find, for every person, the positions of others who differ in at most `TWIN_THINGS` things. `people`: attribute -> value.

    A thing differs if only one of the two people has it, or if an attribute of it that both show has different values. An attribute
    that only one of them shows does not count, because the views of the other may hide it.
    """
    slots = sorted({slot for person in people for slot in person})
    things = sorted({slot.partition(".")[0] for slot in slots})
    of_thing = np.array([[slot.partition(".")[0] == thing for thing in things] for slot in slots])  # (slots, things)
    codes = np.zeros((len(people), len(slots)), dtype=np.int64)  # 0: not shown
    for column, slot in enumerate(slots):
        values = {value: number for number, value in enumerate(sorted({p[slot] for p in people if slot in p}), 1)}
        codes[:, column] = [values.get(person.get(slot, ""), 0) for person in people]
    has = (codes > 0) @ of_thing
    twins = []
    for row, code in enumerate(codes):
        contrary = ((codes != code) & (codes > 0) & (code > 0)) @ of_thing
        different = (contrary | (has != has[row])).sum(1)
        different[row] = len(things) + 1
        twins.append(np.flatnonzero(different <= TWIN_THINGS).tolist())
    return twins


def swap_words(
    split: PersonDataset, embedded: Embeddings, encode_texts: EncodeTexts
) -> tuple[tuple[Swapped, ...], tuple[tuple[str, str, int, float], ...]]:
    """Measure by group how one false word changes the score of a caption with its image; also returns the least noticed swaps.

    In every caption one word of the group, chosen by a seeded draw, is replaced by another one that the caption does not contain.
    """
    pairs = split.pairs()
    captions = [split.images[pair.image].captions[pair.caption] for pair in pairs]
    mean = embedded.image.mean(0)
    groups, singles = [], []
    for group, words in SWAPS.items():
        changed = list(islice(_swaps(captions, group, words), _MOST_SWAPS))
        if len(changed) < LEAST:
            continue
        rows = [query for query, *_ in changed]
        own = embedded.image[[pairs[query].image for query in rows]]
        true = (embedded.text[rows] * own).sum(1)
        false = (encode_texts([text for _, text, *_ in changed]) * own).sum(1)
        above = float((true - embedded.text[rows] @ mean).mean())
        drop = float((true - false).mean())
        groups.append(Swapped(group, len(rows), 100 * float((true > false).mean()), drop, 100 * drop / above))
        kinds = [(word, other) for _, _, word, other in changed]
        if not group.startswith("control"):
            for kind in dict.fromkeys(kinds):
                chosen = np.array([one == kind for one in kinds])
                if chosen.sum() >= LEAST:
                    singles.append((*kind, int(chosen.sum()), 100 * float((true > false)[chosen].mean())))
    return tuple(groups), tuple(sorted(singles, key=lambda single: single[3])[:10])


def _flat(columns: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for name, value in columns.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, str) and value.strip():
            yield prefix + name, value.strip()


def _holds(text: str, value: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(value.lower())}(?!\w)", text) is not None


def _percent(right: np.ndarray) -> float | None:
    return 100 * float(right.mean()) if len(right) else None


def _by_slot(said: Sequence[Mapping[str, Any]], right: np.ndarray) -> tuple[Mentioned, ...]:
    """Attributes that at least `LEAST` captions mention, the most helpful first."""
    found = []
    for slot in sorted({slot for mention in said for slot in mention}):
        with_it = np.array([slot in mention for mention in said])
        r1 = _percent(right[with_it])
        if with_it.sum() >= LEAST and r1 is not None:
            found.append(Mentioned(slot, int(with_it.sum()), r1, _percent(right[~with_it])))
    return tuple(sorted(found, key=lambda one: one.r1 - (one.r1_without if one.r1_without is not None else one.r1), reverse=True))


def _confusion(
    shown: Sequence[Mapping[str, str]], said: Sequence[Mapping[str, Any]], embedded: Embeddings, ranking: Ranking
) -> Twins:
    identities = np.unique(embedded.image_ids)
    people = _people(shown, embedded.image_ids, identities)
    twins = near_twins(people)
    place = np.searchsorted(identities, embedded.text_ids)
    has_twin = np.array([bool(found) for found in twins])[place]
    found_first = np.searchsorted(identities, embedded.image_ids[ranking.first[:, 0]])
    wrong = np.flatnonzero(has_twin & ~ranking.right)
    named: list[bool] = []
    unnamed: list[bool] = []
    for query in np.flatnonzero(has_twin).tolist():
        for twin in twins[place[query]]:
            images = embedded.image[embedded.image_ids == identities[twin]]
            apart = bool(ranking.own[query] > (images @ embedded.text[query]).max())
            different = {slot for slot, _ in people[place[query]].items() ^ people[twin].items()}
            (named if different & said[query].keys() else unnamed).append(apart)
    return Twins(
        people=len(identities),
        with_twin=sum(bool(found) for found in twins),
        r1_with=_percent(ranking.right[has_twin]),
        r1_without=_percent(ranking.right[~has_twin]),
        errors=len(wrong),
        errors_to_twin=sum(int(found_first[query] in twins[place[query]]) for query in wrong),
        told_apart_named=(_percent(np.array(named)), len(named)),
        told_apart_unnamed=(_percent(np.array(unnamed)), len(unnamed)),
    )


def _people(shown: Sequence[Mapping[str, str]], ids: np.ndarray, identities: np.ndarray) -> list[dict[str, str]]:
    """Attribute -> value of every person over all images, without attributes that differ between images of the same person."""
    people: list[dict[str, str]] = [{} for _ in identities]
    changing: set[str] = set()
    for attributes, place in zip(shown, np.searchsorted(identities, ids), strict=True):
        for slot, value in attributes.items():
            if people[place].setdefault(slot, value) != value:
                changing.add(slot)
    return [{slot: value for slot, value in person.items() if slot not in changing} for person in people]


def _swaps(captions: Sequence[str], group: str, words: Sequence[str]) -> Iterator[tuple[int, str, str, str]]:
    """(query, changed caption, word, other) of captions that contain a word of the group, in a random order from a seed."""
    pattern = re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, words))})(?![\w-])", re.IGNORECASE)
    for query in generator(0, "swap", group).permutation(len(captions)).tolist():
        caption = captions[query]
        places = list(pattern.finditer(caption))
        held = {place.group().lower() for place in places}
        others = [word for word in words if word not in held]
        if places and others:
            rng = generator(0, "swap", group, query)
            place, other = places[rng.integers(len(places))], others[rng.integers(len(others))]
            changed = caption[: place.start()] + other + caption[place.end() :]
            yield query, changed, place.group().lower(), other


def _surest(ranking: Ranking, embedded: Embeddings) -> Iterator[Failure]:
    """Failures sorted by the margin of the best irrelevant image over the best relevant one, at most one per person."""
    seen: set[int] = set()
    for query in np.argsort(ranking.own - ranking.other, kind="stable").tolist():
        person = int(embedded.text_ids[query])
        if not ranking.right[query] and person not in seen:
            seen.add(person)
            yield Failure(query, tuple(ranking.first[query].tolist()), int(ranking.rank[query]))
