"""Colours of clothes and hair, with the words that people use for them."""

from dataclasses import dataclass

Rgb = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Colour:
    """A colour of clothes: its centre in sRGB, the words for it (most usual first), its broad family, and its tone.

    `family`: the basic colour word ("blue" for navy); `tone`: "dark", "light", "bright" or "mid", for vague mentions ("dark top").
    """

    name: str
    rgb: Rgb
    words: tuple[str, ...]
    family: str
    tone: str


_ALL = (
    Colour("black", (28, 28, 31), ("black",), "black", "dark"),
    Colour("charcoal", (68, 70, 75), ("dark grey", "charcoal", "dark gray"), "grey", "dark"),
    Colour("grey", (134, 136, 139), ("grey", "gray"), "grey", "mid"),
    Colour("light grey", (190, 192, 195), ("light grey", "light gray", "pale grey"), "grey", "light"),
    Colour("white", (240, 240, 238), ("white",), "white", "light"),
    Colour("beige", (209, 186, 147), ("beige", "tan", "cream", "sand coloured"), "brown", "light"),
    Colour("brown", (106, 68, 42), ("brown", "chocolate brown"), "brown", "dark"),
    Colour("olive", (104, 104, 56), ("olive", "olive green", "army green"), "green", "dark"),
    Colour("green", (44, 138, 66), ("green",), "green", "bright"),
    Colour("mint", (160, 216, 184), ("mint", "light green", "pale green"), "green", "light"),
    Colour("teal", (22, 122, 130), ("teal", "blue-green"), "green", "mid"),
    Colour("navy", (32, 42, 82), ("navy", "navy blue", "dark blue"), "blue", "dark"),
    Colour("blue", (38, 84, 184), ("blue", "royal blue"), "blue", "bright"),
    Colour("light blue", (146, 190, 228), ("light blue", "sky blue", "pale blue"), "blue", "light"),
    Colour("purple", (106, 58, 142), ("purple", "violet"), "purple", "mid"),
    Colour("lavender", (184, 166, 216), ("lavender", "lilac", "light purple"), "purple", "light"),
    Colour("maroon", (104, 24, 38), ("maroon", "burgundy", "dark red"), "red", "dark"),
    Colour("red", (204, 34, 38), ("red", "bright red"), "red", "bright"),
    Colour("pink", (234, 148, 176), ("pink", "light pink"), "pink", "light"),
    Colour("hot pink", (218, 48, 124), ("hot pink", "bright pink", "magenta"), "pink", "bright"),
    Colour("orange", (234, 118, 32), ("orange",), "orange", "bright"),
    Colour("yellow", (238, 206, 54), ("yellow",), "yellow", "bright"),
)

COLOURS: dict[str, Colour] = {colour.name: colour for colour in _ALL}

HAIR_COLOURS: dict[str, Rgb] = {
    "black": (26, 22, 22),
    "brown": (84, 54, 34),
    "blond": (206, 170, 104),
    "red": (146, 66, 34),
    "grey": (166, 166, 168),
}
