"""Noun phrases and clauses for claims: articles, pronouns, order of adjectives, where a bag is carried."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

from tbps.data.mannequins.phrases import DIRECTION, STANCE, AttributeClaim

T = TypeVar("T")

_VAGUE_COLOURS = ("dark", "light", "bright")

_PEOPLE = ("person", "person", "pedestrian", "individual")
_ACTIONS = ("walking", "walking along", "walking by", "strolling", "walking forward")
_VIEWS: Mapping[tuple[str, ...], tuple[str, ...]] = {
    ("front",): (
        "facing the camera", "walking towards the camera", "walking toward the camera", "facing forward", "seen from the front",
    ),
    ("back",): (
        "walking away from the camera", "facing away from the camera", "seen from behind", "walking away", "facing away",
        "walking with {their} back to the camera",
    ),
    ("left",): ("walking to the left", "facing left", "seen from the left side", "walking left"),
    ("right",): ("walking to the right", "facing right", "seen from the right side", "walking right"),
    ("left", "right"): ("seen from the side", "walking sideways", "in profile", "facing sideways", "shown from the side"),
}  # fmt: skip
_STANDING: Mapping[tuple[str, ...], tuple[str, ...]] = {
    (): ("standing", "standing upright", "standing there"),
    ("front",): ("standing and facing the camera", "standing in front of the camera", "standing facing forward"),
    ("back",): ("standing with {their} back to the camera", "standing and facing away", "standing turned away from the camera"),
    ("left",): ("standing and facing left", "standing turned to the left"),
    ("right",): ("standing and facing right", "standing turned to the right"),
    ("left", "right"): ("standing sideways", "standing in profile", "standing and seen from the side"),
}
_SIDED: Mapping[str, tuple[str, ...]] = {
    "shoulder bag": ("on {their} {side} shoulder", "over {their} {side} shoulder", "hanging from {their} {side} shoulder"),
    "handbag": ("on {their} {side} side", "at {their} {side} side", "on {their} {side} arm"),
    "messenger bag": ("at {their} {side} side", "hanging on {their} {side} side", "on {their} {side} hip"),
}
_UNSIDED: Mapping[str, tuple[str, ...]] = {
    "backpack": ("", "", "", "on {their} back", "on {their} back", "on {their} shoulders"),
    "shoulder bag": ("", "over one shoulder", "over {their} shoulder", "on {their} shoulder"),
    "messenger bag": ("", "across {their} body", "slung across {their} body", "at {their} side"),
    "handbag": ("", "", "at {their} side"),
}
_HOLDING: Mapping[str, tuple[str, ...]] = {
    "trolley": ("pulling", "pulling", "dragging", "pulling along"),
    "phone": ("holding", "holding", "using"),
}


class Dice:
    """Fast random draws: numbers in [0, 1), generated in blocks."""

    __slots__ = ("_left", "_rng")

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._left: list[float] = []

    def roll(self) -> float:
        if not self._left:
            self._left = self._rng.random(128).tolist()
        return self._left.pop()

    def index(self, count: int) -> int:
        return int(self.roll() * count)

    def pick(self, options: Sequence[T]) -> T:
        return options[int(self.roll() * len(options))]


class Scribe:
    """Chooses the words of one caption. A word that occurs in the text `avoid` is drawn again once."""

    def __init__(self, claims: Mapping[str, AttributeClaim], dice: Dice, avoid: str) -> None:
        self.claims, self.dice, self._avoid = claims, dice, avoid
        gender = claims["gender"].mention.values[0] if "gender" in claims else ""
        self.they = {"man": "he", "woman": "she"}.get(gender, "the person")
        self.their = {"man": "his", "woman": "her"}.get(gender, "their")
        self._noun = self.word("gender") or dice.pick(_PEOPLE)

    def word(self, slot: str) -> str:
        """Returns a word for the claim on this slot; empty if there is none."""
        claim = self.claims.get(slot)
        if claim is None:
            return ""
        said = self.dice.pick(claim.words)
        return self.dice.pick(claim.words) if self._avoid and said in self._avoid else said

    def says(self, slot: str) -> bool:
        return slot in self.claims

    def some(self, phrase: str) -> str:
        """Adds the article to a noun phrase: "a" or "an" before one thing, "a pair of" or nothing before several."""
        noun = phrase.split(" with ", 1)[0]
        if noun.endswith("s") and not noun.endswith("ss"):
            return f"a pair of {phrase}" if self.dice.roll() < 0.12 else phrase
        return f"an {phrase}" if phrase[0] in "aeiou" else f"a {phrase}"

    def person(self) -> str:
        """Returns the person without an article: "slim young man"."""
        qualities = [word for slot in ("build", "age") if (word := self.word(slot))]
        if len(qualities) == 2 and qualities[0] == "average-sized":
            qualities.reverse()
        return " ".join((*qualities, self._noun))

    def the_person(self) -> str:
        """Returns the subject of a later sentence."""
        return self.they if self.dice.roll() < 0.85 else f"the {self._noun}"

    def hair(self) -> str:
        """Describes the hair, to follow "with": "long black hair in a ponytail", "a bald head"; empty without a claim."""
        length, colour, style = self.word("hair.length"), self.word("hair.colour"), self.word("hair.style")
        if length == "bald":
            return "a bald head"
        if not (length or colour or style):
            return ""
        tied = "ponytail" in style or "bun" in style or style.startswith("tied")
        before = [word for word in (length, "" if tied else style, colour) if word]
        if style in ("curly", "wavy") and length and self.dice.roll() < 0.3:
            before = [word for word in (style, length, colour) if word]
        return " ".join((*before, "hair", style)) if tied else " ".join((*before, "hair"))

    def garment(self, slot: str, noun: str = "") -> str:
        """Describes a garment without an article; `noun` replaces its kind if that is not claimed."""
        noun = self.word(f"{slot}.kind") or noun
        colour, second, after = self.word(f"{slot}.colour"), self.word(f"{slot}.second"), ""
        pattern = self.word(f"{slot}.pattern")
        values = self.claims[f"{slot}.pattern"].mention.values if pattern else ()
        plain = pattern if values == ("plain",) else ""
        pattern = "" if plain else pattern
        if values == ("print",) and (second or self.dice.roll() < 0.5):
            pattern, after = "", self._print(second)
        elif second:
            colour, pattern, after = self._two_colours(colour, second, pattern)
        before = [plain, colour, pattern]
        if slot == "upper" and (sleeve := self.word("sleeve")):
            if not after and sleeve.endswith("d") and self.dice.roll() < 0.3:
                after = f"with {sleeve.removesuffix('-sleeved')} sleeves"
            else:
                before.insert(self.dice.pick((0, 0, 3)), sleeve)
        return " ".join(word for word in (*before, noun, after) if word)

    def _print(self, second: str) -> str:
        motif = self.dice.pick(("print", "graphic", "design", "logo", "picture"))
        where = self.dice.pick(("on the front", "on the chest", "on it", "on the front"))
        return f"with {self.some(f'{second} {motif}' if second else motif)} {where}"

    def _two_colours(self, colour: str, second: str, pattern: str) -> tuple[str, str, str]:
        """Returns colour words, the pattern before the noun, and the words after the noun."""
        vague = any(word.startswith(_VAGUE_COLOURS) and word.endswith(("dark", "ed", "bright")) for word in (colour, second))
        if colour and not vague and self.dice.roll() < 0.5:
            return f"{colour} and {second}", pattern, ""
        marks = {"striped": ("stripes",), "polka dot": ("polka dots",), "dotted": ("dots",), "spotted": ("spots", "dots")}
        return colour, "", f"with {second} {self.dice.pick(marks.get(pattern, ('checks', 'check pattern', 'squares')))}"

    def upper(self) -> str:
        """Describes the upper garment and the garment under it."""
        outer = self.some(self.garment("upper"))
        if not self.says("inner.kind"):
            return outer
        inner = self.some(self.garment("inner"))
        if " with " in inner:
            return f"{outer} over {inner}"
        worn_open = f"an open {outer.split(' ', 1)[1]} over {inner}"
        if "vest" in self.claims["upper.kind"].mention.values:  # also seen from behind, where it cannot look open
            worn_open = f"{outer} over {inner}"
        return self.dice.pick((f"{outer} over {inner}", f"{outer} over {inner}", f"{outer} with {inner} underneath",
                               worn_open, f"{outer} and {inner} under it"))  # fmt: skip

    def lower(self) -> str:
        """Describes the lower garment; empty without a claim."""
        if self.says("lower.kind"):
            return self.some(self.garment("lower"))
        return self.garment("lower", "bottoms") if self.says("lower.colour") else ""

    def shoes(self) -> str:
        return self.some(self.garment("shoes")) if self.says("shoes.kind") else ""

    def hat(self) -> str:
        return self.some(self.garment("hat")) if self.says("hat.kind") else ""

    def bag(self) -> tuple[str, str]:
        """Describes the bag by a verb and its object: ("carrying", "a red backpack on his back"); empty without a claim."""
        if not self.says("bag.kind"):
            return "", ""
        kinds = self.claims["bag.kind"].mention.values
        kind = kinds[0] if len(kinds) == 1 else ""
        where = self.dice.pick(_UNSIDED.get(kind, ("",)))
        if side := self.word("bag.side"):
            where = self.dice.pick(_SIDED.get(kind, ("on {their} {side} side", "at {their} {side} side")))
            where = where.format(their=self.their, side=side)
        verb = self.dice.pick(("carrying", "wearing", "wearing", "carrying") if kind == "backpack" else ("carrying",))
        return verb, f"{self.some(self.garment('bag'))} {where.replace('{their}', self.their)}".rstrip()

    def carried(self) -> tuple[str, str]:
        """Like `bag`, for what the person holds or pulls."""
        if not self.says("carried.kind"):
            return "", ""
        kind = self.claims["carried.kind"].mention.values[0]
        verb = self.dice.pick(_HOLDING.get(kind, ("holding", "holding", "carrying")))
        thing = self.some(self.garment("carried"))
        if side := self.word("carried.side"):
            return verb, f"{thing} {'with' if kind == 'trolley' else 'in'} {self.their} {side} hand"
        return verb, f"{thing} in {self.their} hand" if kind != "trolley" and self.dice.roll() < 0.25 else thing

    def action(self, always: bool = False) -> str:
        """Describes activity and direction by a participle ("walking away"); sometimes empty unless `always`."""
        view = self.claims[DIRECTION].mention.values if self.says(DIRECTION) else ()
        if self.says(STANCE):
            return self.dice.pick(_STANDING[view]).replace("{their}", self.their)
        if view:
            return self.dice.pick(_VIEWS[view]).replace("{their}", self.their)
        return self.dice.pick(_ACTIONS) if always or self.dice.roll() < 0.3 else ""


def listed(parts: Sequence[str], dice: Dice) -> str:
    """Joins phrases: "a", "a and b", "a, b and c", "a, b, and c" or "a and b, with c"."""
    parts = [part for part in parts if part]
    if len(parts) < 2:
        return "".join(parts)
    if len(parts) == 2:
        return " and ".join(parts)
    joint = dice.pick((" and ", ", and ", ", and "))
    return f"{', '.join(parts[:-1])}{joint}{parts[-1]}"
