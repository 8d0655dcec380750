"""Captions of mannequins, with the attributes that each caption claims.

The describer selects some of the visible attributes (striking ones more often), decides how exactly to express each
(`phrases.AttributeClaim`), and writes them with one of the sentence plans of `sentences`. A caption keeps its mentions, so that its
truth can be checked without parsing, and so that the paraphrase can express the same claims in other words.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import pi, sin

import numpy as np

from tbps.data.mannequins.people import Mannequin, Viewpoint, visible_attributes
from tbps.data.mannequins.phrases import CLAIMS, DIRECTION, MENU, STANCE, AttributeClaim, Mention
from tbps.data.mannequins.sentences import PLANS, compose
from tbps.data.mannequins.wording import Dice

MIN_WORDS, MAX_WORDS = 8, 60
_OPENINGS = ("In this picture we can see", "On the picture there is")

# Probability of mentioning a visible slot; "slot=value" overrides "slot". Details of a thing are mentioned only with the thing.
_NOTICED: Mapping[str, float] = {
    "gender": 0.94,
    "age=young": 0.25, "age=adult": 0.08, "age=elderly": 0.5,
    "build=slim": 0.18, "build=average": 0.02, "build=heavy": 0.35,
    "hair.length": 0.5, "hair.length=bald": 0.75, "hair.colour": 0.55, "hair.style": 0.6, "hair.style=loose": 0.04,
    "hat.kind": 0.8, "hat.colour": 0.8,
    "glasses": 0.55,
    "upper.kind": 1.0, "upper.colour": 0.88, "upper.pattern": 0.8, "upper.pattern=plain": 0.04, "upper.second": 0.7,
    "sleeve=short": 0.28, "sleeve=long": 0.14, "sleeve=sleeveless": 0.35,
    "inner.kind": 0.65, "inner.colour": 0.9, "inner.pattern": 0.5, "inner.pattern=plain": 0.02, "inner.second": 0.4,
    "lower.kind": 0.92, "lower.colour": 0.82, "lower.pattern": 0.65, "lower.pattern=plain": 0.02, "lower.second": 0.5,
    "shoes.kind": 0.55, "shoes.colour": 0.72,
    "bag.kind": 0.78, "bag.colour": 0.65, "bag.side": 0.25,
    "carried.kind": 0.75, "carried.colour": 0.5, "carried.side": 0.3,
    DIRECTION: 0.3,
    f"{STANCE}=closed": 0.35,
}  # fmt: skip
_CLOTH = ("t-shirt", "shirt", "blouse", "polo shirt", "sweater", "dress", "tank top")  # garments whose sleeves are mentioned
_HEADS = {"hat": "hat.kind", "inner": "inner.kind", "shoes": "shoes.kind", "bag": "bag.kind", "carried": "carried.kind"}


@dataclass(frozen=True, slots=True)
class Caption:
    """A caption, what it claims, and the index of its sentence plan."""

    text: str
    mentions: tuple[Mention, ...]
    plan: int


def shown_attributes(person: Mannequin, view: Viewpoint) -> dict[str, str]:
    """Returns `visible_attributes`, "view.direction" and "view.stance".

    The stance is "closed" (both feet about below the body, as if standing) or "open".
    """
    stance = "closed" if abs(sin(2 * pi * view.phase)) < 0.3 else "open"
    return visible_attributes(person, view) | {DIRECTION: view.direction, STANCE: stance}


def describe(person: Mannequin, view: Viewpoint, rng: np.random.Generator) -> Caption:
    """Writes a caption of the image like one annotator: 8 to 60 words, true, and only about what the viewpoint shows."""
    return describe_attributes(shown_attributes(person, view), rng)


def describe_attributes(shown: Mapping[str, str], rng: np.random.Generator) -> Caption:
    """Like `describe`, from the result of `shown_attributes`."""
    dice = Dice(rng)
    return _write(_notice(shown, dice), dice)


def paraphrase(caption: Caption, rng: np.random.Generator) -> str:
    """Writes the same mentions with another sentence plan and, where possible, other words; it claims nothing new."""
    dice = Dice(rng)
    claims = {mention.slot: CLAIMS[mention] for mention in caption.mentions}
    return _write(claims, dice, original=caption).text


def _notice(shown: Mapping[str, str], dice: Dice) -> dict[str, AttributeClaim]:
    """Selects the claims of a caption."""
    claims: dict[str, AttributeClaim] = {}
    for slot, value in shown.items():
        menu = MENU.get((slot, value))
        if menu is None:
            continue
        chance = _NOTICED.get(f"{slot}={value}", _NOTICED.get(slot, 0.0))
        if dice.roll() < chance and _sayable(slot, shown, claims):
            claims[slot] = dice.pick(menu)
    if "lower.colour" in shown and not claims.keys() & {"lower.kind", "lower.colour"}:
        claims["lower.colour"] = dice.pick(MENU["lower.colour", shown["lower.colour"]])
    if "shoes.kind" in claims and "shoes.colour" not in claims and "shoes" in claims["shoes.kind"].words:
        del claims["shoes.kind"]  # "shoes" alone is not worth mentioning
    return claims


def _sayable(slot: str, shown: Mapping[str, str], claims: Mapping[str, AttributeClaim]) -> bool:
    thing, _, detail = slot.partition(".")
    if detail and detail != "kind" and (head := _HEADS.get(thing)) is not None and head not in claims:
        return False
    if detail == "second":
        return f"{thing}.pattern" in claims and len(claims[f"{thing}.pattern"].mention.values) == 1
    if slot == "sleeve":
        kind = claims.get("upper.kind")
        return kind is not None and shown["upper.kind"] in _CLOTH and "tank" not in kind.words[0]
    if slot == "hair.style":
        return "hair.length" in claims or shown[slot] != "loose"
    return True


def _write(claims: Mapping[str, AttributeClaim], dice: Dice, original: Caption | None = None) -> Caption:
    """Writes the claims as text; if it is too long, the least striking claims are left out."""
    said = dict(claims)
    index = dice.index(len(PLANS))
    if original is not None and PLANS[index] is PLANS[original.plan]:
        others = [number for number, plan in enumerate(PLANS) if plan is not PLANS[original.plan]]
        index = dice.pick(others)
    avoid = original.text.lower() if original else ""
    text = compose(PLANS[index], said, dice, avoid)
    while text.count(" ") >= MAX_WORDS:
        _leave_out(said)
        text = compose(PLANS[index], said, dice, avoid)
    if text.count(" ") + 1 < MIN_WORDS:
        text = f"{dice.pick(_OPENINGS)} {text[0].lower()}{text[1:]}"
    return Caption(text, tuple(claim.mention for claim in said.values()), index)


def _leave_out(said: dict[str, AttributeClaim]) -> None:
    for slot in (DIRECTION, STANCE, "carried.colour", "inner.second", "sleeve", "build", "shoes.colour", "lower.second", "age"):
        if said.pop(slot, None) is not None:
            return
    said.popitem()
