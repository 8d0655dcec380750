"""Attributes reported as hidden do not change any pixel; attributes reported as visible do."""

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest

from tbps.data.mannequins.drawing import draw_person, figure_mask
from tbps.data.mannequins.people import DIRECTIONS, HIDDEN, Garment, Item, Mannequin, Viewpoint, attributes, visible_attributes
from tbps.data.mannequins.population import population, sample_view
from tbps.seeding import generator

PEOPLE = population(11, "train", 100)


def other(person: Mannequin, slot: str) -> Mannequin | None:
    """Returns the person with another value of one slot; None if the slot has no other value."""
    head, _, tail = slot.partition(".")
    current = getattr(person, head, None)
    swaps = {
        "gender": {"gender": "man" if person.gender == "woman" else "woman"},
        "age": {"age": "elderly" if person.age != "elderly" else "young"},
        "build": {"build": "heavy" if person.build != "heavy" else "slim"},
        "glasses": {"glasses": "none" if person.glasses != "none" else "sunglasses"},
        "sleeve": {"sleeve": {"long": "short", "short": "long", "sleeveless": "long"}[person.sleeve]},
        "hair.colour": {"hair_colour": "blond" if person.hair_colour != "blond" else "black"},
    }
    if slot in swaps:
        return replace(person, **swaps[slot])
    if slot == "hair.length" and person.hair_style in ("loose", "curly"):
        return replace(person, hair_length="short" if person.hair_length in ("medium", "long") else "long")
    if slot == "hair.style" and person.hair_length == "long":
        return replace(
            person, hair_style={"loose": "ponytail", "ponytail": "bun", "bun": "loose", "curly": "loose"}[person.hair_style]
        )
    if isinstance(current, Garment):
        return _other_garment(person, head, tail, current)
    if isinstance(current, Item):
        return _other_item(person, head, tail, current)
    return None


def _other_garment(person: Mannequin, head: str, tail: str, worn: Garment) -> Mannequin | None:
    if tail == "kind":
        others = {
            "hat": ("cap", "beanie"), "upper": ("sweater", "hoodie"), "inner": ("shirt", "t-shirt"),
            "lower": ("trousers", "shorts"), "shoes": ("boots", "sandals"),
        }[head]  # fmt: skip
        if head == "upper" and (worn.kind in ("vest", "dress") or person.inner is not None or worn.pattern == "print"):
            return None
        return replace(person, **{head: replace(worn, kind=others[0] if worn.kind != others[0] else others[1])})
    if tail == "colour":
        return replace(person, **{head: replace(worn, colour="red" if worn.colour != "red" and worn.second != "red" else "white")})
    if tail == "second" and worn.second is not None:
        return replace(person, **{head: replace(worn, second="yellow" if worn.second != "yellow" else "black")})
    if tail == "pattern" and worn.pattern != "plain":
        return replace(person, **{head: replace(worn, pattern="plain", second=None)})
    return None


def _other_item(person: Mannequin, head: str, tail: str, item: Item) -> Mannequin | None:
    if tail == "kind" and item.side == "both":
        return replace(person, **{head: None})
    if tail == "kind":
        kinds = ("messenger bag", "shoulder bag") if head == "bag" else ("phone", "book")
        return replace(person, **{head: replace(item, kind=kinds[0] if item.kind != kinds[0] else kinds[1])})
    if tail == "colour":
        return replace(person, **{head: replace(item, colour="orange" if item.colour != "orange" else "blue")})
    if tail == "side" and item.side != "both":
        return replace(person, **{head: replace(item, side="left" if item.side == "right" else "right")})
    return None


def moved(before: np.ndarray, changed: Mannequin, view: Viewpoint, area: int) -> float:
    """Returns the number of clearly different pixels, in thousandths of the figure's area."""
    after = np.asarray(draw_person(changed, view).image, dtype=int)
    return 1000 * float((np.abs(before - after).max(axis=2) > 12).sum()) / area


def cases() -> list[tuple[Mannequin, Viewpoint]]:
    rng = generator(5, "truth")
    return [(person, sample_view(rng)) for person in PEOPLE]


def test_hidden_attributes_change_no_pixel() -> None:
    tried: set[str] = set()
    for person, view in cases():
        shown = visible_attributes(person, view)
        before = draw_person(person, view).image.tobytes()
        for slot in attributes(person):
            changed = other(person, slot) if slot not in shown else None
            if changed is None or any(visible_attributes(changed, view).get(s) != v for s, v in shown.items()):
                continue
            if set(visible_attributes(changed, view)) != set(shown):
                continue
            tried.add(slot)
            assert draw_person(changed, view).image.tobytes() == before, f"{slot} of {person} shows in {view}"
    assert {"glasses", "inner.colour", "shoes.colour", "shoes.kind", "hair.colour", "hair.style", "bag.kind", "carried.kind",
            "bag.colour", "upper.second"} <= tried  # fmt: skip


# Lower bound, per slot, on the changed share of the figure's area (per mille) in 95 of 100 images.
LEAST = {
    "gender": 40, "age": 150, "build": 120, "glasses": 2, "sleeve": 25, "hair.length": 25, "hair.colour": 15, "hair.style": 30,
    "hat.kind": 12, "hat.colour": 20, "upper.kind": 20, "upper.colour": 90, "upper.pattern": 20, "upper.second": 20,
    "inner.kind": 3, "inner.colour": 40, "lower.kind": 35, "lower.colour": 70, "shoes.kind": 15, "shoes.colour": 6,
    "bag.kind": 20, "bag.colour": 15, "bag.side": 80, "carried.kind": 30, "carried.colour": 8, "carried.side": 80,
}  # fmt: skip


def test_visible_attributes_change_enough_pixels_of_the_figure() -> None:
    shares: dict[str, list[float]] = defaultdict(list)
    for person, view in cases():
        shown = visible_attributes(person, view)
        before, area = np.asarray(draw_person(person, view).image, dtype=int), int(figure_mask(person, view).sum())
        for slot in set(shown) & set(LEAST):
            changed = other(person, slot)
            if changed is not None and visible_attributes(changed, view).get(slot) != shown[slot]:
                shares[slot].append(moved(before, changed, view, area))
    low = {slot: round(float(np.percentile(found, 5)), 1) for slot, found in shares.items()}
    assert set(low) == set(LEAST)
    assert all(low[slot] >= LEAST[slot] for slot in LEAST), low


@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_every_person_can_be_drawn_from_every_viewpoint(direction: str, hidden: str) -> None:
    for index, person in enumerate(PEOPLE[:12]):
        picture = draw_person(person, Viewpoint(direction, index / 12, hidden, index)).image
        assert picture.mode == "RGB"
