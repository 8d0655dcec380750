"""Random sampling of mannequins and viewpoints."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from tbps.data.mannequins.colours import COLOURS, HAIR_COLOURS
from tbps.data.mannequins.people import DIRECTIONS, HIDDEN, Garment, Item, Mannequin, Viewpoint, attributes
from tbps.seeding import generator

# Relative frequency of each colour; dark colours are more frequent, as in streets.
_UPPER_COLOURS = {
    "black": 11, "charcoal": 5, "grey": 7, "light grey": 4, "white": 9, "beige": 5, "brown": 4, "olive": 4, "green": 5,
    "mint": 2.5, "teal": 3, "navy": 6, "blue": 7, "light blue": 5, "purple": 4, "lavender": 2.5, "maroon": 4, "red": 7,
    "pink": 5, "hot pink": 2.5, "orange": 4, "yellow": 4.5,
}  # fmt: skip
_LOWER_COLOURS = {
    "black": 14, "charcoal": 6, "grey": 7, "light grey": 3, "white": 5, "beige": 7, "brown": 5, "olive": 4, "navy": 8,
    "blue": 9, "light blue": 5, "maroon": 2, "red": 2.5, "green": 2, "pink": 2, "purple": 1.5, "yellow": 1,
}  # fmt: skip
_JEANS_COLOURS = {"blue": 5, "navy": 5, "light blue": 4, "black": 3, "grey": 2}
_SHOE_COLOURS = {
    "black": 9, "white": 8, "brown": 5, "grey": 5, "red": 3, "blue": 2.5, "pink": 2, "beige": 2, "navy": 2, "yellow": 1,
    "green": 1,
}  # fmt: skip
_BAG_COLOURS = {
    "black": 9, "brown": 5, "red": 4, "blue": 4, "grey": 3, "beige": 3, "white": 2, "navy": 2.5, "pink": 2.5, "green": 2.5,
    "yellow": 2, "purple": 1.5, "orange": 2,
}  # fmt: skip
_UPPER_PATTERNS: dict[str, Mapping[str, float]] = {
    "t-shirt": {"plain": 4, "striped": 2, "print": 3},
    "shirt": {"plain": 4, "checked": 3, "striped": 1.5},
    "blouse": {"plain": 4, "dotted": 1.5, "striped": 1},
    "polo shirt": {"plain": 3, "striped": 1.5},
    "sweater": {"plain": 4, "striped": 2},
    "hoodie": {"plain": 4, "print": 2},
    "tank top": {"plain": 4, "striped": 1, "print": 1},
    "coat": {"plain": 6, "checked": 1},
    "dress": {"plain": 5, "dotted": 1.5, "striped": 1, "checked": 0.8},
}
_BRIGHT = {"red": 2, "blue": 2, "white": 2, "black": 3, "yellow": 1, "green": 1, "pink": 1, "orange": 1, "purple": 1, "navy": 1}


def sample_view(rng: np.random.Generator) -> Viewpoint:
    """Draws a viewpoint independently of the person."""
    direction = str(rng.choice(DIRECTIONS, p=(0.36, 0.28, 0.18, 0.18)))
    hidden = str(rng.choice(HIDDEN, p=(0.84, 0.10, 0.06)))
    return Viewpoint(direction, float(rng.random()), hidden, int(rng.integers(2**62)))


def population(seed: int, split: str, count: int) -> list[Mannequin]:
    """Draws `count` people of one split ("train", "val", "test"); the splits have independent random streams.

    In the test split every third person is a near-twin of the one before: equal except for one or two attributes. No two people of
    a population have the same attributes.
    """
    people: list[Mannequin] = []
    seen: set[tuple[tuple[str, str], ...]] = set()
    for index in range(count):
        rng = generator(seed, "mannequins", split, index)
        twin = split == "test" and index % 3 == 2
        person = near_twin(people[-1], rng) if twin else sample_person(rng)
        while (key := tuple(sorted(attributes(person).items()))) in seen:
            person = near_twin(person, rng)
        seen.add(key)
        people.append(person)
    return people


def near_twin(person: Mannequin, rng: np.random.Generator) -> Mannequin:
    """Returns a copy with one or two changes in attributes that most viewpoints show; changed garments get a new tint."""
    changes = [_other_upper, _other_lower, _other_bag, _other_shoes, _other_hat]
    twin = person
    for change in rng.permutation(len(changes))[: int(rng.integers(1, 3))]:
        twin = changes[change](twin, rng)
    return twin


def _other_upper(person: Mannequin, rng: np.random.Generator) -> Mannequin:
    return replace(person, upper=_recoloured(person.upper, _UPPER_COLOURS, rng))


def _other_lower(person: Mannequin, rng: np.random.Generator) -> Mannequin:
    if person.lower is None:
        return _other_upper(person, rng)
    worn = _JEANS_COLOURS if person.lower.kind == "jeans" else _LOWER_COLOURS
    return replace(person, lower=_recoloured(person.lower, worn, rng))


def _other_shoes(person: Mannequin, rng: np.random.Generator) -> Mannequin:
    return replace(person, shoes=_recoloured(person.shoes, _SHOE_COLOURS, rng))


def _other_bag(person: Mannequin, rng: np.random.Generator) -> Mannequin:
    if person.bag is not None and rng.random() < 0.5:
        return replace(person, bag=None)
    bag = _sample_bag(person.gender, rng)
    while bag == person.bag:
        bag = _sample_bag(person.gender, rng)
    return replace(person, bag=bag)


def _other_hat(person: Mannequin, rng: np.random.Generator) -> Mannequin:
    return replace(person, hat=None if person.hat is not None else _sample_hat(rng))


def _recoloured(garment: Garment, worn: Mapping[str, float], rng: np.random.Generator) -> Garment:
    family = COLOURS[garment.colour].family
    others = {name: weight for name, weight in worn.items() if COLOURS[name].family != family and name != garment.second}
    return replace(garment, colour=_pick(others, rng), tint=_tint(rng))


def sample_person(rng: np.random.Generator) -> Mannequin:
    """Draws a person with plausible clothes: short sleeves with shorts, coats over trousers, dresses on women."""
    gender = _pick({"man": 1, "woman": 1}, rng)
    age = _pick({"young": 4, "adult": 4, "elderly": 1.4}, rng)
    warm = bool(rng.random() < 0.5)
    upper, sleeve, inner = _sample_upper(gender, warm, rng)
    lower = None if upper.kind == "dress" else _sample_lower(gender, warm, rng)
    length, style = _sample_hair(gender, age, rng)
    return Mannequin(
        gender=gender,
        age=age,
        build=_pick({"slim": 3, "average": 5, "heavy": 2}, rng),
        height=float(rng.uniform(0.93, 1.03) + (0.05 if gender == "man" else 0.0)),
        skin=float(rng.random()),
        hair_length=length,
        hair_style=style,
        hair_colour=_sample_hair_colour(age, rng),
        hat=_sample_hat(rng) if rng.random() < 0.18 else None,
        glasses=_pick({"none": 7, "glasses": 2, "sunglasses": 1}, rng),
        upper=upper,
        sleeve=sleeve,
        inner=inner,
        lower=lower,
        shoes=_sample_shoes(gender, warm, rng),
        bag=_sample_bag(gender, rng) if rng.random() < 0.62 else None,
        carried=_sample_carried(rng) if rng.random() < 0.34 else None,
    )


def _sample_upper(gender: str, warm: bool, rng: np.random.Generator) -> tuple[Garment, str, Garment | None]:
    if gender == "woman" and rng.random() < 0.22:
        sleeve = _pick({"sleeveless": 2, "short": 2, "long": 1}, rng)
        return _garment_of("dress", _UPPER_COLOURS, _UPPER_PATTERNS["dress"], rng), sleeve, None
    kind = _pick(_upper_kinds(gender, warm), rng)
    short = {"t-shirt", "polo shirt"}
    sleeve = "short" if kind in short or (kind in ("shirt", "blouse") and warm) else "sleeveless" if kind == "tank top" else "long"
    upper = _garment_of(kind, _UPPER_COLOURS, _UPPER_PATTERNS.get(kind, {"plain": 1}), rng)
    can_open = kind in ("jacket", "coat", "puffer jacket", "suit jacket", "vest")
    opened = kind in ("suit jacket", "vest") or (can_open and rng.random() < 0.55)
    if not opened:
        return upper, sleeve, None
    under = {"t-shirt": 3, "shirt": 2} if kind != "suit jacket" else {"shirt": 1}
    inner = _garment_of(_pick(under, rng), _UPPER_COLOURS, {"plain": 4, "striped": 1}, rng)
    while COLOURS[inner.colour].family == COLOURS[upper.colour].family:
        inner = _garment_of(inner.kind, _UPPER_COLOURS, {"plain": 4, "striped": 1}, rng)
    return upper, sleeve, inner


def _upper_kinds(gender: str, warm: bool) -> Mapping[str, float]:
    if warm and gender == "man":
        return {"t-shirt": 6, "shirt": 2, "polo shirt": 1.5, "tank top": 1}
    if warm:
        return {"t-shirt": 5, "blouse": 3, "tank top": 2}
    kinds = {"sweater": 3, "hoodie": 3, "jacket": 3, "coat": 2, "puffer jacket": 2, "shirt": 1.5, "vest": 0.8}
    return kinds | ({"suit jacket": 1.2} if gender == "man" else {"blouse": 1.0})


def _sample_lower(gender: str, warm: bool, rng: np.random.Generator) -> Garment:
    kinds = {"jeans": 4.0, "trousers": 4.0}
    kinds |= {"shorts": 4.5} if warm else {}
    kinds |= {"leggings": 2.0, "skirt": 2.0 if warm else 1.0, "long skirt": 1.0} if gender == "woman" else {}
    kind = _pick(kinds, rng)
    patterns: dict[str, Mapping[str, float]] = {
        "skirt": {"plain": 4, "checked": 1, "dotted": 0.7},
        "long skirt": {"plain": 4, "dotted": 0.8},
        "shorts": {"plain": 5, "checked": 1},
        "trousers": {"plain": 8, "striped": 0.8, "checked": 0.6},
    }
    worn = _JEANS_COLOURS if kind == "jeans" else _LOWER_COLOURS
    return _garment_of(kind, worn, patterns.get(kind, {"plain": 1}), rng)


def _sample_shoes(gender: str, warm: bool, rng: np.random.Generator) -> Garment:
    kinds = {"sneakers": 5.0, "dress shoes": 1.5}
    kinds |= {"sandals": 1.5} if warm else {"boots": 2.5}
    kinds |= {"high heels": 1.5} if gender == "woman" else {}
    return _garment_of(_pick(kinds, rng), _SHOE_COLOURS, {"plain": 1}, rng)


def _sample_hair(gender: str, age: str, rng: np.random.Generator) -> tuple[str, str]:
    if gender == "man":
        length = _pick({"bald": 2.5 if age == "elderly" else 0.6, "short": 8, "medium": 1}, rng)
        return length, _pick({"loose": 5, "curly": 1}, rng)
    length = _pick({"short": 2, "medium": 3, "long": 5}, rng)
    styles = {"loose": 5, "curly": 1.5} | ({"ponytail": 3, "bun": 1.5} if length == "long" else {})
    return length, _pick(styles, rng)


def _sample_hair_colour(age: str, rng: np.random.Generator) -> str:
    if age == "elderly":
        return _pick({"grey": 5, "black": 1, "brown": 1}, rng)
    return _pick(dict(zip(HAIR_COLOURS, (5, 4, 2, 0.8, 0.2), strict=True)), rng)


def _sample_hat(rng: np.random.Generator) -> Garment:
    return Garment(_pick({"cap": 4, "beanie": 2.5, "brimmed hat": 1.5}, rng), _pick(_BRIGHT, rng), tint=_tint(rng))


def _sample_bag(gender: str, rng: np.random.Generator) -> Item:
    kinds = {"backpack": 4.0, "shoulder bag": 2.0, "messenger bag": 2.0} | ({"handbag": 3.0} if gender == "woman" else {})
    kind = _pick(kinds, rng)
    side = "both" if kind == "backpack" else _pick({"left": 1, "right": 1}, rng)
    return Item(kind, _pick(_BAG_COLOURS, rng), side)


def _sample_carried(rng: np.random.Generator) -> Item:
    kind = _pick({"umbrella": 2, "phone": 2.5, "book": 1.5, "bottle": 1.5, "trolley": 1.5}, rng)
    colours: Mapping[str, float] = {
        "phone": {"black": 3, "white": 1},
        "bottle": {"blue": 1, "white": 1, "green": 1, "red": 1},
    }.get(kind, _BRIGHT)
    return Item(kind, _pick(colours, rng), _pick({"left": 1, "right": 1.6}, rng))


def _garment_of(kind: str, worn: Mapping[str, float], patterns: Mapping[str, float], rng: np.random.Generator) -> Garment:
    colour, pattern = _pick(worn, rng), _pick(patterns, rng)
    second = None
    if pattern != "plain":
        base = COLOURS[colour]
        others = {n: w for n, w in worn.items() if COLOURS[n].family != base.family and COLOURS[n].tone != base.tone}
        second = _pick(others, rng)
    return Garment(kind, colour, pattern, second, _tint(rng))


def _tint(rng: np.random.Generator) -> tuple[int, int, int]:
    shade, hue = rng.normal(0, 6), rng.normal(0, 3, 3)
    red, green, blue = np.clip(shade + hue, -14, 14).round().astype(int)
    return int(red), int(green), int(blue)


def _pick(weights: Mapping[str, float], rng: np.random.Generator) -> str:
    names = list(weights)
    shares = np.fromiter(weights.values(), dtype=float)
    return names[int(rng.choice(len(names), p=shares / shares.sum()))]
