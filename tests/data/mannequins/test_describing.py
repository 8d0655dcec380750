"""Captions are true, of the right length, grammatical and varied; paraphrases add no claim.

The oracle reads the finished text with its own word lists and uses no claims, plans or mentions of the program.
"""

import itertools
import re
from collections import Counter

import numpy as np
import pytest

from tbps.data.mannequins.describing import Caption, describe, paraphrase, shown_attributes
from tbps.data.mannequins.people import Mannequin, Viewpoint
from tbps.data.mannequins.population import population, sample_person, sample_view

DRAWS = 3000

COLOURS = {
    "black": "black",
    "dark grey|dark gray|charcoal": "charcoal",
    "light grey|light gray|pale grey": "light grey",
    "grey|gray": "charcoal, grey, light grey",
    "white": "white",
    "beige|tan|cream|sand coloured": "beige",
    "chocolate brown|brown": "brown",
    "olive green|olive|army green": "olive",
    "light green|pale green|mint": "mint",
    "blue-green|teal": "teal",
    "green": "green, olive, mint, teal",
    "navy blue|dark blue|navy": "navy",
    "light blue|sky blue|pale blue": "light blue",
    "royal blue": "blue",
    "blue": "navy, blue, light blue",
    "light purple|lavender|lilac": "lavender",
    "purple": "purple, lavender",
    "violet": "purple",
    "dark red|maroon|burgundy": "maroon",
    "bright red": "red",
    "red": "red, maroon",
    "hot pink|bright pink|magenta": "hot pink",
    "light pink": "pink",
    "pink": "pink, hot pink",
    "orange": "orange",
    "yellow": "yellow",
    "dark[- ]colou?red|dark": "black, charcoal, brown, olive, navy, maroon",
    "light[- ]colou?red": "light grey, white, beige, mint, light blue, lavender, pink",
    "bright[- ]coloured|brightly coloured|bright": "green, blue, hot pink, red, orange, yellow",
}
HAIR = {
    "black": "black",
    "brown|brunette": "brown",
    "dark coloured|dark": "black, brown",
    "blond|blonde|fair": "blond",
    "red|ginger|auburn": "red",
    "grey|gray|silver": "grey",
}
ANY = "any kind, even where it is not seen"
NOUNS = {  # word -> (slots it may name, kinds that it may be said of)
    "t-shirts?|tee shirt|tee": ("upper inner", "t-shirt"),
    "button-up shirt|button-down shirt|dress shirt": ("upper inner", "shirt"),
    "collared shirt": ("upper inner", "shirt, polo shirt"),
    "polo shirt|polo(?! shirt)": ("upper", "polo shirt"),
    "shirt": ("upper inner", "t-shirt, shirt, blouse, polo shirt"),
    "blouse": ("upper", "blouse"),
    "sweater|jumper|pullover": ("upper", "sweater"),
    "hooded sweater|hooded sweatshirt|hoodie": ("upper", "hoodie"),
    "sweatshirt": ("upper", "sweater, hoodie"),
    "casual jacket|zip-up jacket": ("upper", "jacket"),
    "puffer jacket|puffy jacket|down jacket|padded jacket": ("upper", "puffer jacket"),
    "suit jacket|suit coat|blazer": ("upper", "suit jacket"),
    "jacket": ("upper", "jacket, puffer jacket, suit jacket"),
    "long coat|overcoat": ("upper", "coat"),
    "coat": ("upper", "coat, puffer jacket"),
    "vest|gilet": ("upper", "vest"),
    "tank top|tank": ("upper", "tank top"),
    "top": ("upper", "t-shirt, shirt, blouse, polo shirt, sweater, hoodie, tank top"),
    "dress": ("upper", "dress"),
    "jeans|denim jeans|denim pants": ("lower", "jeans"),
    "trousers|slacks": ("lower", "trousers"),
    "long pants|pants": ("lower", "jeans, trousers, leggings"),
    "leggings|tights": ("lower", "leggings"),
    "shorts|short pants": ("lower", "shorts"),
    "short skirt|knee-length skirt": ("lower", "skirt"),
    "long skirt|maxi skirt|ankle-length skirt": ("lower", "long skirt"),
    "skirt": ("lower", "skirt, long skirt"),
    "bottoms": ("lower", ANY),
    "sneakers|trainers|running shoes|sports shoes|tennis shoes": ("shoes", "sneakers"),
    "boots": ("shoes", "boots"),
    "sandals": ("shoes", "sandals"),
    "dress shoes|leather shoes|formal shoes": ("shoes", "dress shoes"),
    "high heels|high-heeled shoes|heels": ("shoes", "high heels"),
    "shoes": ("shoes", "sneakers, dress shoes, high heels"),
    "baseball cap|cap": ("hat", "cap"),
    "beanie|knit hat|knitted hat": ("hat", "beanie"),
    "wide-brimmed hat|brimmed hat|sun hat": ("hat", "brimmed hat"),
    "hat": ("hat", "cap, beanie, brimmed hat"),
    "backpack|rucksack|knapsack": ("bag", "backpack"),
    "shoulder bag": ("bag", "shoulder bag"),
    "handbag": ("bag", "handbag"),
    "purse": ("bag", "handbag, shoulder bag"),
    "messenger bag|satchel|crossbody bag": ("bag", "messenger bag"),
    "bag": ("bag", "backpack, shoulder bag, handbag, messenger bag"),
    "umbrella": ("carried", "umbrella"),
    "mobile phone|cell phone|smartphone|phone": ("carried", "phone"),
    "book": ("carried", "book"),
    "water bottle|bottle": ("carried", "bottle"),
    "rolling suitcase|wheeled suitcase|suitcase|trolley": ("carried", "trolley"),
}
FACTS = {  # words that name a value directly
    r"man|guy|male|gentleman|he|his": ("gender", "man"),
    r"woman|lady|female|she|her": ("gender", "woman"),
    r"young|youthful": ("age", "young"),
    r"middle-aged|adult": ("age", "adult"),
    r"elderly|older|old": ("age", "elderly"),
    r"slim|thin|slender": ("build", "slim"),
    r"average-sized": ("build", "average"),
    r"heavy|heavyset|stout|large": ("build", "heavy"),
    r"bald": ("hair.length", "bald"),
    r"medium-length|shoulder-length": ("hair.length", "medium"),
    r"cropped": ("hair.length", "short"),
    r"curly|wavy": ("hair.style", "curly"),
    r"straight": ("hair.style", "loose"),
    r"ponytail": ("hair.style", "ponytail"),
    r"bun": ("hair.style", "bun"),
    r"tied": ("hair.style", "ponytail, bun"),
    r"glasses|eyeglasses|spectacles": ("glasses", "glasses"),
    r"sunglasses|shades": ("glasses", "sunglasses"),
    r"sleeveless": ("sleeve", "sleeveless"),
    r"short[- ]sleeved?|short sleeves": ("sleeve", "short"),
    r"long[- ]sleeved?|long sleeves": ("sleeve", "long"),
    r"(?:facing|toward|towards) the camera|facing forward|from the front|in front of the camera": ("view.direction", "front"),
    r"facing away|away from the camera|from behind|walking away|back to the camera": ("view.direction", "back"),
    r"(?:to|facing|walking) (?:the )?left|from the left side": ("view.direction", "left"),
    r"(?:to|facing|walking) (?:the )?right|from the right side": ("view.direction", "right"),
    r"profile|sideways|from the side": ("view.direction", "left, right"),
    r"standing": ("view.stance", "closed"),
}
MARKS = {
    r"stripes|striped": "striped",
    r"checks|check pattern|squares|checked|plaid|checkered": "checked",
    r"dots|polka dots|spots|polka dot|dotted|spotted": "dotted",
    r"print|graphic|design|logo|picture (?:on)|printed": "print",
    r"patterned": "striped, checked, dotted, print",
    r"plain|solid": "plain",
}


_PIECES = [(kind, words, row) for kind, rows in (("colour", COLOURS), ("noun", NOUNS)) for words, row in rows.items()]
_BY_LENGTH = sorted(
    ((kind, word, row) for kind, words, row in _PIECES for word in words.split("|")), key=lambda piece: -len(piece[1])
)
_TOKEN = re.compile("|".join(rf"(?P<t{n}>(?<![\w-]){word}(?![\w-]))" for n, (_, word, _) in enumerate(_BY_LENGTH)))
_HAIR_PHRASE = re.compile(r"((?:[\w-]+ ){0,4})hair\b")
_MARK = re.compile(r" (?:stripes|checks|check pattern|squares|(?:polka )?dots|spots|print|graphic|design|logo|picture)\b")


def _allowed(values: str) -> set[str]:
    return set(values.split(", "))


def contradictions(text: str, shown: dict[str, str]) -> list[str]:
    """Returns the statements of a text that are false for the image."""
    text = text.lower()
    found = [f"{w}: {shown.get(slot)}" for w, (slot, ok) in FACTS.items() if re.search(rf"(?<![\w-])(?:{w})(?![\w-])", text)
             and shown.get(slot) not in _allowed(ok)]  # fmt: skip
    for before in _HAIR_PHRASE.findall(text):
        found += [f"hair {w}" for w, ok in HAIR.items() if re.search(rf"\b(?:{w}) ", before)
                  and shown.get("hair.colour") not in _allowed(ok)]  # fmt: skip
        found += [f"hair {w}" for w in ("short", "long") if re.search(rf"(?<!with )\b{w} ", before)
                  and shown.get("hair.length") != w]  # fmt: skip
    return found + _clothing(_HAIR_PHRASE.sub("hair", text), shown)


def _clothing(text: str, shown: dict[str, str]) -> list[str]:
    tokens = [(m, *_BY_LENGTH[int(m.lastgroup[1:])]) for m in _TOKEN.finditer(text)]
    found = []
    for at, (match, kind, word, row) in enumerate(tokens):
        if kind == "noun":
            if not _worn(row, shown):
                found.append(f"noun {word}")
            continue
        before = [t for t in tokens[:at] if t[1] == "noun"]
        after = [t for t in tokens[at:] if t[1] == "noun"]
        predicate = re.search(r"(?<! feet) (?:is|are) $", text[: match.start()])
        owner = before[-1] if before and (predicate or _MARK.match(text, match.end())) else after[0] if after else None
        slots = [] if owner is None else [s for s in _worn(owner[3], shown)]
        if not {shown.get(f"{s}.{part}") for s in slots for part in ("colour", "second")} & _allowed(row):
            found.append(f"colour {word} of {owner and owner[2]}")
    patterns = {shown.get(f"{slot}.pattern") for slot in ("upper", "inner", "lower")}
    return found + [f"mark {w}" for w, ok in MARKS.items() if re.search(rf"\b(?:{w})\b", text.replace("picture", "", text.startswith(  # noqa: E501
        ("in this picture", "on the picture", "the picture")))) and not patterns & _allowed(ok)]  # fmt: skip


def _worn(row: tuple[str, str], shown: dict[str, str]) -> list[str]:
    slots, kinds = row
    if kinds == ANY:
        return [slot for slot in slots.split() if f"{slot}.colour" in shown]
    return [slot for slot in slots.split() if shown.get(f"{slot}.kind") in _allowed(kinds)]


@pytest.fixture(scope="module")
def drawn() -> list[tuple[Mannequin, Viewpoint, Caption, str]]:
    rng = np.random.default_rng(11)
    crops = [(sample_person(rng), sample_view(rng)) for _ in range(DRAWS)]
    captions = [(person, view, describe(person, view, rng)) for person, view in crops]
    return [(person, view, caption, paraphrase(caption, rng)) for person, view, caption in captions]


def test_mentions_are_true_of_the_shown_attributes(drawn):
    for person, view, caption, _ in drawn:
        shown = shown_attributes(person, view)
        for mention in caption.mentions:
            assert shown.get(mention.slot) in mention.values, (caption.text, mention)


def test_captions_contradict_nothing(drawn):
    for person, view, caption, other in drawn:
        shown = shown_attributes(person, view)
        for text in (caption.text, other):
            assert not contradictions(text, shown), (text, contradictions(text, shown), shown)


def test_the_oracle_notices_a_lie(drawn):
    """Compared with another person's attributes, most captions must be found false."""
    shifted = itertools.pairwise(drawn)
    false = [bool(contradictions(caption.text, shown_attributes(p, v))) for (_, _, caption, _), (p, v, _, _) in shifted]
    assert np.mean(false) > 0.97


def test_a_paraphrase_claims_no_more_than_the_mentions(drawn):
    """Checks paraphrases against changed attributes: every mentioned slot gets another value that its mention allows."""
    rng = np.random.default_rng(3)
    for person, view, caption, other in drawn[:1000]:
        said = {mention.slot: mention.values for mention in caption.mentions}
        known = {slot: value for slot, value in shown_attributes(person, view).items() if slot in said}
        for slot, values in said.items():
            known[slot] = values[int(rng.integers(len(values)))]
        if "inner.kind" in known and "upper.kind" in known and known["upper.kind"] == known["inner.kind"]:
            continue  # two shirts: the oracle does not know which one a colour describes
        assert not contradictions(other, known), (caption.text, other, known)


def test_a_paraphrase_has_other_words(drawn):
    same = [caption.text.lower().strip(".") == other.lower().strip(".") for _, _, caption, other in drawn]
    assert not any(same)
    shared = [len(_bigrams(c.text) & _bigrams(o)) / len(_bigrams(c.text)) for _, _, c, o in drawn]
    assert np.mean(shared) < 0.6


def _bigrams(text: str) -> set[tuple[str, str]]:
    words = re.findall(r"[\w-]+", text.lower())
    return set(itertools.pairwise(words))


def test_length_and_grammar(drawn):
    lengths = []
    for _, _, caption, other in drawn:
        for text in (caption.text, other):
            lengths.append(len(text.split()))
            assert 8 <= lengths[-1] <= 60, text
            assert not re.search(r"\ba [aeiou]|\ban [^aeiou]|  | ,|,,|\.\.|\bnone\b|\{|\}|\ba pair of a|, and ,", text.lower()), (
                text
            )
            assert not re.search(
                r"\ban? (?!pair)((?!and )[\w-]+ ){0,2}(jeans|pants|shorts|trousers|leggings|\w*shoes|boots)\b", text
            ), text
            assert text == text.strip() and not text.endswith(","), text
            assert not re.search(r"\b(\w{4,}) \1\b", text), text
            assert "skin" not in text
    assert 20 <= np.mean(lengths) <= 35


def test_ungendered_captions_use_no_gendered_pronoun(drawn):
    for _, _, caption, other in drawn:
        gender = {m.slot: m.values[0] for m in caption.mentions}.get("gender")
        wrong = {"man": "she|her|woman", "woman": "he|his|man", None: "he|his|she|her"}[gender]
        for text in (caption.text, other):
            assert not re.search(rf"\b({wrong})\b", text.lower()), text


def test_the_random_stream_determines_the_caption():
    person, view = population(5, "test", 3)[2], Viewpoint("front", 0.3, "none", 7)
    texts = [describe(person, view, np.random.default_rng(seed)).text for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_captions_are_varied(drawn):
    texts = [caption.text for _, _, caption, _ in drawn]
    assert len(set(texts)) > 0.99 * len(texts)
    openings = Counter(text.lower().split()[0] for text in texts)
    assert len(openings) >= 12 and openings.most_common(1)[0][1] < 0.55 * len(texts)
    words = {word for text in texts for word in re.findall(r"[a-z-]+", text.lower())}
    assert 200 < len(words) < 400
    mentions = np.array([len(caption.mentions) for _, _, caption, _ in drawn])
    assert mentions.std() > 2  # some captions mention many attributes, some few


@pytest.mark.parametrize(("slot", "direction"), [("glasses", "back"), ("upper.second", "left"), ("upper.second", "back")])
def test_hidden_attributes_are_never_mentioned(slot, direction):
    rng = np.random.default_rng(2)
    people = [person for person in population(3, "train", 400) if slot != "upper.second" or person.upper.pattern == "print"]
    for person in people:
        caption = describe(person, Viewpoint(direction, 0.1, "none", 1), rng)
        assert slot not in {mention.slot for mention in caption.mentions}


def test_hidden_feet_and_legs():
    rng = np.random.default_rng(2)
    for person in population(4, "train", 300):
        for hidden, gone in (("feet", {"shoes.kind", "shoes.colour"}), ("legs", {"shoes.kind", "lower.kind"})):
            caption = describe(person, Viewpoint("front", 0.1, hidden, 1), rng)
            assert not gone & {mention.slot for mention in caption.mentions}
            assert not re.search(r"shoes|sneakers|boots|sandals|heels|trainers", caption.text)
