"""Words for what an image shows, and the attribute values that each word claims.

An `AttributeClaim` is a set of values of one slot, with all words that express exactly this set: "navy" and "dark blue" claim
{navy}; "blue" claims {navy, blue, light blue}; "dark" claims every dark colour. The describer picks one of the true claims for a
value, often the exact one and sometimes a vague one; the words of a claim are interchangeable.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tbps.data.mannequins.colours import COLOURS


@dataclass(frozen=True, slots=True)
class Mention:
    """The values of one slot that are compatible with a caption."""

    slot: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AttributeClaim:
    """A mention and its words, the most usual ones repeated."""

    mention: Mention
    words: tuple[str, ...]


PhraseTable = tuple[tuple[tuple[str, ...], tuple[str, ...], Mapping[str, int]], ...]
"""Rows of (values, words, value -> relative frequency of this wording for this value)."""

DIRECTION = "view.direction"
STANCE = "view.stance"

ANY_BAG = ("backpack", "shoulder bag", "handbag", "messenger bag")
PATTERNED = ("striped", "checked", "dotted", "print")

_UPPER_KINDS: PhraseTable = (
    (("t-shirt",), ("t-shirt", "t-shirt", "tee", "tee shirt"), {"t-shirt": 7}),
    (("shirt",), ("button-up shirt", "button-down shirt"), {"shirt": 4}),
    (("shirt", "polo shirt"), ("collared shirt",), {"shirt": 3, "polo shirt": 1}),
    (("blouse",), ("blouse",), {"blouse": 6}),
    (("polo shirt",), ("polo shirt", "polo"), {"polo shirt": 6}),
    (("t-shirt", "shirt", "blouse", "polo shirt"), ("shirt",), {"t-shirt": 5, "shirt": 5, "blouse": 3, "polo shirt": 4}),
    (("sweater",), ("sweater", "sweater", "jumper", "pullover"), {"sweater": 7}),
    (("sweater", "hoodie"), ("sweatshirt",), {"sweater": 2, "hoodie": 3}),
    (("hoodie",), ("hoodie", "hoodie", "hooded sweatshirt", "hooded sweater"), {"hoodie": 7}),
    (("jacket", "puffer jacket", "suit jacket"), ("jacket",), {"jacket": 7, "puffer jacket": 4, "suit jacket": 3}),
    (("jacket",), ("casual jacket", "zip-up jacket"), {"jacket": 4}),
    (("coat",), ("long coat", "overcoat"), {"coat": 5}),
    (("coat", "puffer jacket"), ("coat",), {"coat": 5, "puffer jacket": 2}),
    (("puffer jacket",), ("puffer jacket", "puffy jacket", "down jacket", "padded jacket"), {"puffer jacket": 7}),
    (("suit jacket",), ("suit jacket", "blazer", "suit coat"), {"suit jacket": 7}),
    (("vest",), ("vest", "vest", "gilet"), {"vest": 9}),
    (("tank top",), ("tank top", "tank top", "tank"), {"tank top": 8}),
    (
        ("t-shirt", "shirt", "blouse", "polo shirt", "sweater", "hoodie", "tank top"),
        ("top",),
        {"t-shirt": 3, "shirt": 2, "blouse": 4, "polo shirt": 2, "sweater": 3, "hoodie": 2, "tank top": 4},
    ),
    (("dress",), ("dress",), {"dress": 1}),
)
_LOWER_KINDS: PhraseTable = (
    (("jeans",), ("jeans", "jeans", "denim jeans", "denim pants"), {"jeans": 7}),
    (("trousers",), ("trousers", "trousers", "slacks"), {"trousers": 5}),
    (("jeans", "trousers", "leggings"), ("pants", "pants", "long pants"), {"jeans": 5, "trousers": 7, "leggings": 4}),
    (("leggings",), ("leggings", "leggings", "tights"), {"leggings": 7}),
    (("shorts",), ("shorts", "shorts", "short pants"), {"shorts": 9}),
    (("skirt", "long skirt"), ("skirt",), {"skirt": 6, "long skirt": 3}),
    (("skirt",), ("short skirt", "knee-length skirt"), {"skirt": 5}),
    (("long skirt",), ("long skirt", "maxi skirt", "ankle-length skirt"), {"long skirt": 7}),
)
_SHOE_KINDS: PhraseTable = (
    (("sneakers",), ("sneakers", "sneakers", "trainers", "running shoes", "sports shoes", "tennis shoes"), {"sneakers": 7}),
    (("boots",), ("boots",), {"boots": 8}),
    (("sandals",), ("sandals",), {"sandals": 8}),
    (("dress shoes",), ("dress shoes", "leather shoes", "formal shoes"), {"dress shoes": 4}),
    (("high heels",), ("high heels", "heels", "high-heeled shoes"), {"high heels": 7}),
    (("sneakers", "dress shoes", "high heels"), ("shoes",), {"sneakers": 7, "dress shoes": 6, "high heels": 3}),
)
_PATTERNS: PhraseTable = (
    (("plain",), ("plain", "plain", "solid"), {"plain": 1}),
    (("striped",), ("striped",), {"striped": 9}),
    (("checked",), ("checked", "plaid", "checkered"), {"checked": 9}),
    (("dotted",), ("polka dot", "dotted", "spotted"), {"dotted": 9}),
    (("print",), ("printed", "graphic"), {"print": 7}),
    (PATTERNED, ("patterned",), {"striped": 2, "checked": 2, "dotted": 2, "print": 2}),
)
_BAG_KINDS: PhraseTable = (
    (("backpack",), ("backpack", "backpack", "backpack", "rucksack", "knapsack"), {"backpack": 9}),
    (("shoulder bag",), ("shoulder bag",), {"shoulder bag": 6}),
    (("handbag",), ("handbag",), {"handbag": 6}),
    (("handbag", "shoulder bag"), ("purse",), {"handbag": 3, "shoulder bag": 1}),
    (("messenger bag",), ("messenger bag", "satchel", "crossbody bag"), {"messenger bag": 7}),
    (ANY_BAG, ("bag",), {"backpack": 4, "shoulder bag": 5, "handbag": 4, "messenger bag": 5}),
)
_CARRIED_KINDS: PhraseTable = (
    (("umbrella",), ("umbrella",), {"umbrella": 1}),
    (("phone",), ("phone", "phone", "mobile phone", "cell phone", "smartphone"), {"phone": 1}),
    (("book",), ("book",), {"book": 1}),
    (("bottle",), ("bottle", "water bottle"), {"bottle": 1}),
    (("trolley",), ("suitcase", "rolling suitcase", "wheeled suitcase", "trolley"), {"trolley": 1}),
)
_HAT_KINDS: PhraseTable = (
    (("cap",), ("cap", "cap", "baseball cap"), {"cap": 8}),
    (("beanie",), ("beanie", "beanie", "knit hat", "knitted hat"), {"beanie": 8}),
    (("brimmed hat",), ("brimmed hat", "wide-brimmed hat", "sun hat"), {"brimmed hat": 7}),
    (("cap", "beanie", "brimmed hat"), ("hat",), {"cap": 3, "beanie": 4, "brimmed hat": 5}),
)
_INNER_KINDS: PhraseTable = (
    (("t-shirt",), ("t-shirt", "tee"), {"t-shirt": 6}),
    (("t-shirt", "shirt"), ("shirt",), {"t-shirt": 2, "shirt": 3}),
    (("shirt",), ("button-up shirt", "dress shirt", "collared shirt"), {"shirt": 5}),
)
_HAIR_COLOURS: PhraseTable = (
    (("black",), ("black",), {"black": 7}),
    (("brown",), ("brown", "brown", "brunette"), {"brown": 7}),
    (("black", "brown"), ("dark", "dark coloured"), {"black": 3, "brown": 2}),
    (("blond",), ("blond", "blonde", "fair"), {"blond": 1}),
    (("red",), ("red", "ginger", "auburn"), {"red": 1}),
    (("grey",), ("grey", "gray", "silver"), {"grey": 1}),
)
_HAIR_STYLES: PhraseTable = (
    (("loose",), ("straight",), {"loose": 1}),
    (("curly",), ("curly", "curly", "wavy"), {"curly": 1}),
    (("ponytail",), ("in a ponytail", "tied back in a ponytail", "pulled into a ponytail"), {"ponytail": 1}),
    (("bun",), ("in a bun", "tied up in a bun", "pulled into a bun"), {"bun": 1}),
    (("ponytail", "bun"), ("tied back", "tied up"), {"ponytail": 1, "bun": 1}),
)


def _same(**words: tuple[str, ...]) -> PhraseTable:
    """Makes one claim per value; underscores in the names become spaces."""
    return tuple(((value.replace("_", " "),), said, {value.replace("_", " "): 1}) for value, said in words.items())


_TABLES: Mapping[str, PhraseTable] = {
    "gender": _same(man=("man", "man", "man", "guy", "male", "gentleman"), woman=("woman", "woman", "woman", "lady", "female")),
    "age": _same(young=("young", "young", "youthful"), adult=("middle-aged", "adult"), elderly=("elderly", "older", "old")),
    "build": _same(slim=("slim", "thin", "slender"), average=("average-sized",), heavy=("heavy", "heavyset", "stout", "large")),
    "hair.length": _same(
        bald=("bald",), short=("short", "short", "cropped"), medium=("medium-length", "shoulder-length"), long=("long",)
    ),
    "hair.colour": _HAIR_COLOURS,
    "hair.style": _HAIR_STYLES,
    "glasses": _same(glasses=("glasses", "glasses", "eyeglasses", "spectacles"), sunglasses=("sunglasses", "sunglasses", "shades")),
    "hat.kind": _HAT_KINDS,
    "upper.kind": _UPPER_KINDS,
    "sleeve": _same(sleeveless=("sleeveless",), short=("short-sleeved", "short sleeve"), long=("long-sleeved", "long sleeve")),
    "inner.kind": _INNER_KINDS,
    "lower.kind": _LOWER_KINDS,
    "shoes.kind": _SHOE_KINDS,
    "bag.kind": _BAG_KINDS,
    "carried.kind": _CARRIED_KINDS,
    "bag.side": _same(left=("left",), right=("right",)),
    "carried.side": _same(left=("left",), right=("right",)),
    STANCE: _same(closed=("standing",)),
    DIRECTION: (
        (("front",), ("front",), {"front": 1}),
        (("back",), ("back",), {"back": 1}),
        (("left",), ("left",), {"left": 1}),
        (("right",), ("right",), {"right": 1}),
        (("left", "right"), ("side",), {"left": 2, "right": 2}),
    ),
    **{f"{slot}.pattern": _PATTERNS for slot in ("upper", "inner", "lower")},
}

_TONES = {
    "dark": ("dark", "dark", "dark-coloured", "dark colored"),
    "light": ("light-coloured", "light coloured", "light-colored"),
    "bright": ("bright", "brightly coloured", "bright-coloured"),
}
_NEVER_FAMILY = {"beige"}  # colours that are not called by the word of their family (nobody calls beige "brown")


def _colour_table() -> PhraseTable:
    """Makes claims for every colour: the exact words, the word of its family, and its tone."""
    families: defaultdict[str, list[str]] = defaultdict(list)
    tones: defaultdict[str, list[str]] = defaultdict(list)
    for colour in COLOURS.values():
        if colour.name not in _NEVER_FAMILY:
            families[colour.family].append(colour.name)
        tones[colour.tone].append(colour.name)
    rows: list[tuple[tuple[str, ...], tuple[str, ...], Mapping[str, int]]] = []
    for colour in COLOURS.values():
        exact = [word for word in colour.words if word not in families]
        weighted = [exact[0], exact[0], *exact] if exact and exact[0] == colour.name else exact
        rows.append(((colour.name,), tuple(weighted), {colour.name: 1 if colour.name in families else 8}))
    for family, members in families.items():
        share = {name: 8 if name == family else 5 for name in members}
        said = (family, "gray") if family == "grey" else (family, family, family, family)
        rows.append((tuple(members), said, share))
    for tone, vague in _TONES.items():
        rows.append((tuple(tones[tone]), vague, dict.fromkeys(tones[tone], 4)))
    return tuple(rows)


_WEARABLE = _colour_table()
_COLOURED = ("hat", "upper", "inner", "lower", "shoes", "bag", "carried")
_SECOND = ("upper", "inner", "lower")


def _claims() -> Iterable[tuple[AttributeClaim, Mapping[str, int]]]:
    tables = dict(_TABLES)
    tables |= {f"{slot}.colour": _WEARABLE for slot in _COLOURED} | {f"{slot}.second": _WEARABLE for slot in _SECOND}
    for slot, table in tables.items():
        rows: dict[tuple[str, ...], tuple[list[str], dict[str, int]]] = {}
        for values, words, told in table:  # rows with the same values become one claim
            known, weights = rows.setdefault(tuple(sorted(values)), ([], {}))
            known.extend(words)
            for value, weight in told.items():
                weights[value] = weights.get(value, 0) + weight
        for values, (said, shares) in rows.items():
            if said:
                yield AttributeClaim(Mention(slot, values), tuple(said)), shares


MENU: dict[tuple[str, str], tuple[AttributeClaim, ...]] = {}
"""(slot, value) -> the claims that are true of it, repeated by frequency."""
CLAIMS: dict[Mention, AttributeClaim] = {}

for _claim, _weights in _claims():
    CLAIMS[_claim.mention] = _claim
    for _value, _weight in _weights.items():
        _key = (_claim.mention.slot, _value)
        MENU[_key] = MENU.get(_key, ()) + (_claim,) * _weight
