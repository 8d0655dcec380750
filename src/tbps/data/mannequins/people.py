"""The appearance of a mannequin, the viewpoint of an image, and the attributes that the image shows.

A `Mannequin` holds what all images of an identity share. A `Viewpoint` is drawn for every image and carries no information about
the identity. `attributes` maps slots to values ("upper.colour" -> "navy"); `visible_attributes` keeps the slots that a viewpoint
shows. Captions, the leakage audit and the ceiling use these slots only.
"""

from dataclasses import dataclass

DIRECTIONS = ("front", "back", "left", "right")  # the side of the person that faces the camera
HIDDEN = ("none", "feet", "legs")


@dataclass(frozen=True, slots=True)
class Garment:
    """One piece of clothing. `second`: colour of stripes, checks, dots or a print; None for a plain one.

    `tint`: offset from the sRGB centre of the colour, the individual shade of this piece; the same in all images of an identity.
    """

    kind: str
    colour: str
    pattern: str = "plain"  # plain, striped, checked, dotted, print (a motif on the chest: seen from the front only)
    second: str | None = None
    tint: tuple[int, int, int] = (0, 0, 0)


@dataclass(frozen=True, slots=True)
class Item:
    """A bag or a carried object. `side`: the person's own left or right; "both" for a backpack."""

    kind: str
    colour: str
    side: str


@dataclass(frozen=True, slots=True)
class Mannequin:
    """Appearance of one identity, the same in all its images. `skin` (0 light .. 1 dark) is drawn and never described."""

    gender: str  # man, woman
    age: str  # young, adult, elderly
    build: str  # slim, average, heavy
    height: float  # 0.92 .. 1.08 of the average
    skin: float
    hair_length: str  # bald, short, medium, long
    hair_style: str  # loose, ponytail, bun, curly
    hair_colour: str
    hat: Garment | None  # cap, beanie, brimmed hat
    glasses: str  # none, glasses, sunglasses
    # t-shirt, shirt, blouse, polo shirt, sweater, hoodie, jacket, coat, puffer jacket, suit jacket, vest, tank top, dress
    upper: Garment
    sleeve: str  # sleeveless, short, long
    inner: Garment | None  # the shirt under an open jacket or coat
    lower: Garment | None  # jeans, trousers, leggings, shorts, skirt, long skirt; None under a dress
    shoes: Garment  # sneakers, boots, sandals, dress shoes, high heels
    bag: Item | None  # backpack, shoulder bag, handbag, messenger bag
    carried: Item | None  # umbrella, phone, book, bottle, trolley


@dataclass(frozen=True, slots=True)
class Viewpoint:
    """Direction and visibility of a person in one image. Camera, background, clutter and crop are drawn from `seed`.

    `hidden`: "feet" when the crop or an obstacle ends above the shoes, "legs" when it ends above the knees.
    """

    direction: str
    phase: float  # of the walking cycle, 0 .. 1
    hidden: str
    seed: int


def attributes(person: Mannequin) -> dict[str, str]:
    """Returns slot -> value for every slot that applies; the kind of an absent thing is "none"."""
    found = {"gender": person.gender, "age": person.age, "build": person.build, "hair.length": person.hair_length}
    if person.hair_length != "bald":
        found |= {"hair.colour": person.hair_colour, "hair.style": person.hair_style}
    found["glasses"] = person.glasses
    found |= _garment("hat", person.hat)
    found |= _garment("upper", person.upper) | {"sleeve": person.sleeve}
    found |= _garment("inner", person.inner)
    found |= _garment("lower", person.lower)
    found |= _garment("shoes", person.shoes)
    for slot, item in (("bag", person.bag), ("carried", person.carried)):
        found[f"{slot}.kind"] = item.kind if item else "none"
        if item:
            found |= {f"{slot}.colour": item.colour, f"{slot}.side": item.side}
    return found


def _garment(slot: str, garment: Garment | None) -> dict[str, str]:
    if garment is None:
        return {f"{slot}.kind": "none"}
    found = {f"{slot}.kind": garment.kind, f"{slot}.colour": garment.colour, f"{slot}.pattern": garment.pattern}
    return found | ({f"{slot}.second": garment.second} if garment.second else {})


def far_side(direction: str) -> str | None:
    """Returns the side of the person that the body hides: "right" if seen from the left. None from the front and the back."""
    return {"left": "right", "right": "left"}.get(direction)


def visible_attributes(person: Mannequin, view: Viewpoint) -> dict[str, str]:
    """Returns the slots of `attributes` that this viewpoint shows; hidden slots are absent, not "none"."""
    dropped = _turned_away(person, view) | _hair_hidden(person, view) | _items_hidden(person, view)
    if view.hidden in ("feet", "legs"):
        dropped.add("shoes")
    if view.hidden == "legs":
        dropped |= _hidden_with_legs(person)
    shown = attributes(person)
    return {slot: value for slot, value in shown.items() if slot not in dropped and slot.split(".")[0] not in dropped}


def _turned_away(person: Mannequin, view: Viewpoint) -> set[str]:
    """Returns the slots of the face and the chest that this direction hides."""
    dropped: set[str] = set()
    if view.direction == "back":
        dropped.add("glasses")
    if view.direction != "front" and person.upper.kind != "vest":  # the shirt's sleeves and collar show around a vest
        dropped.add("inner")
    if person.upper.pattern == "print" and view.direction != "front":
        dropped |= {"upper.pattern", "upper.second"}
    if person.inner is not None and person.inner.pattern == "print":
        dropped |= {"inner.pattern", "inner.second"}  # an open jacket covers most of a motif
    return dropped


def _hair_hidden(person: Mannequin, view: Viewpoint) -> set[str]:
    if person.hat is not None and (person.hat.kind == "beanie" or person.hair_length in ("bald", "short")):
        return {"hair"}
    dropped = {"hair.style"} if person.hat is not None else set()
    if view.direction == "front" and person.hair_style in ("ponytail", "bun"):
        dropped |= {"hair.style", "hair.length"}  # the length of hair tied behind the head is not visible
    return dropped


def _items_hidden(person: Mannequin, view: Viewpoint) -> set[str]:
    dropped: set[str] = set()
    for slot, item in (("bag", person.bag), ("carried", person.carried)):
        if item is None:
            continue
        if item.side == far_side(view.direction) and item.kind not in ("umbrella", "trolley"):
            dropped.add(slot)
        if view.direction == "back" and item.kind in ("phone", "book"):
            dropped.add(slot)  # held in front of the body
    return dropped


def _hidden_with_legs(person: Mannequin) -> set[str]:
    dropped = {"lower.kind"}  # the hem is out of sight; colour and pattern of the thighs are not
    if person.carried is not None and person.carried.kind == "trolley":
        dropped.add("carried")
    return dropped
