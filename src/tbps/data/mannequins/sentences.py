"""Sentence plans: different ways to express the same claims.

A plan takes a `Scribe` and returns sentences without capitals and full stops. Every plan can express every claim.
"""

from collections.abc import Callable, Mapping, Sequence

from tbps.data.mannequins.phrases import AttributeClaim
from tbps.data.mannequins.wording import Dice, Scribe, listed

Plan = Callable[[Scribe], list[str]]

_WEAR = ("wearing", "wearing", "wearing", "dressed in", "in")
_WEARS = ("is wearing", "wears", "is wearing", "has on", "is dressed in")
_FINITE = {
    "carrying": ("is carrying", "carries", "has"),
    "wearing": ("is wearing", "wears", "has"),
    "holding": ("is holding", "holds", "has"),
    "using": ("is using",),
}


def _carrying(scribe: Scribe) -> list[str]:
    """Returns bag and carried object as participles: ["carrying a bag", "holding a phone"]."""
    return [f"{verb} {thing}" for verb, thing in (scribe.bag(), scribe.carried()) if verb]


def _carries(scribe: Scribe) -> list[str]:
    """Returns bag and carried object as predicates: ["carries a bag", "is holding a phone"]."""
    found = [(verb, thing) for verb, thing in (scribe.bag(), scribe.carried()) if verb]
    return [f"{scribe.dice.pick(_FINITE.get(verb, (f'is {verb}',)))} {thing}" for verb, thing in found]


def _head(scribe: Scribe) -> tuple[list[str], list[str]]:
    """Returns phrases about hair, hat and glasses: those that follow "with", and those named as things worn."""
    with_them, worn = [scribe.hair()], [""]
    for thing in (scribe.hat(), scribe.some(scribe.word("glasses")) if scribe.says("glasses") else ""):
        (with_them if scribe.dice.roll() < 0.35 else worn).append(thing)
    return [thing for thing in with_them if thing], [thing for thing in worn if thing]


def _with(things: Sequence[str], scribe: Scribe) -> str:
    return f" with {listed(things, scribe.dice)}" if things else ""


def _one_long(scribe: Scribe) -> list[str]:
    """A man with short hair walking away, wearing a shirt, jeans and boots, carrying a bag."""
    has, worn = _head(scribe)
    dice = scribe.dice
    clothes = listed([*worn, scribe.upper(), scribe.lower(), scribe.shoes()], dice)
    extras, action = _carrying(scribe), scribe.action()
    early = bool(action) and dice.roll() < 0.5
    text = f"{scribe.some(scribe.person())}{_with(has, scribe)}"
    if early:
        text += f" {'is ' if dice.roll() < 0.4 else ''}{action}"
    text += f"{', ' if early else ' '}{dice.pick(_WEAR)} {clothes}"
    late = [*extras, *([action] if action and not early else [])]
    if late:
        text += f"{dice.pick((', ', ' and ', ', ') if len(late) == 1 else (', ',))}{listed(late, dice)}"
    return [text]


def _several_short(scribe: Scribe) -> list[str]:
    """The man wears a shirt and jeans. He has short hair. He is carrying a bag."""
    dice = scribe.dice
    has, worn = _head(scribe)
    first = dice.pick((f"the {scribe.person()}", scribe.some(scribe.person())))
    opening = f"{first} {dice.pick(_WEARS)} {listed([scribe.upper(), scribe.lower()], dice)}"
    rest = [f"has {listed(has, dice)}"] if has else []
    if worn:
        rest.append(f"wears {listed(worn, dice)}")
    rest.extend(_carries(scribe))
    if action := scribe.action():
        rest.append(f"is {action}")
    sentences = [f"{scribe.the_person()} {part}" for part in rest]
    if shoes := scribe.shoes():
        sentences.append(
            dice.pick(
                (f"{scribe.the_person()} wears {shoes}", f"on {scribe.their} feet are {shoes}", f"{scribe.they} has {shoes} on")
            )
        )
    return [opening, *_shuffled(sentences, dice)]


def _two_sentences(scribe: Scribe) -> list[str]:
    """A woman with long hair is walking away. She wears a coat, jeans and boots and carries a bag."""
    dice = scribe.dice
    has, worn = _head(scribe)
    opening = f"{scribe.some(scribe.person())}{_with(has, scribe)} is {scribe.action(always=True)}"
    clothes = listed([scribe.upper(), scribe.lower(), scribe.shoes(), *worn], dice)
    text = f"{scribe.the_person()} {dice.pick(_WEARS)} {clothes}"
    if carries := _carries(scribe):
        text = f"{text}{dice.pick((' and ', ', and '))}{listed(carries, dice)}"
    return [opening, text]


def _clothes_first(scribe: Scribe) -> list[str]:
    """Wearing a shirt and jeans, this man with short hair is carrying a bag."""
    dice = scribe.dice
    has, worn = _head(scribe)
    clothes = listed([scribe.upper(), scribe.lower(), scribe.shoes()], dice)
    extras = _carrying(scribe)
    action = scribe.action(always=not extras)
    who = f"{dice.pick(('this', 'the', 'this'))} {scribe.person()}{_with(has, scribe)}"
    text = f"{dice.pick(('wearing', 'dressed in'))} {clothes}, {who} is {listed([action, *extras], dice)}"
    return [text, *([f"{scribe.the_person()} also wears {listed(worn, dice)}"] if worn else [])]


def _telegram(scribe: Scribe) -> list[str]:
    """Young man, short black hair, white shirt, blue jeans, carrying a backpack."""
    dice = scribe.dice
    has, worn = _head(scribe)
    parts = [scribe.person(), *has, *worn, scribe.upper(), scribe.lower(), scribe.shoes(), *_carrying(scribe)]
    parts.append(scribe.action())
    bare = [part.split(" ", 1)[1] if part.startswith(("a ", "an ")) else part for part in parts if part]
    return [", ".join(bare) if dice.roll() < 0.7 else f"{', '.join(bare[:-1])} and {bare[-1]}"]


def _there_is(scribe: Scribe) -> list[str]:
    """There is a man walking away. His shirt is blue and he is wearing jeans with boots. He has short hair."""
    dice = scribe.dice
    has, worn = _head(scribe)
    who = scribe.some(scribe.person())
    lead = dice.pick((f"there is {who}", f"we can see {who}", f"the picture shows {who}", f"this is {who}"))
    opening = f"{lead}{_with(has, scribe)} {dice.pick(('who is ', ''))}{dice.pick(_WEAR[:4])} {scribe.upper()}"
    lower = listed([scribe.lower(), scribe.shoes(), *worn], dice)
    sentences = [f"{scribe.they} {dice.pick(_WEARS[:3])} {lower}"] if lower else []
    extras = _carrying(scribe)
    if action := scribe.action():
        extras.append(action)
    if extras:
        sentences.append(f"{scribe.the_person()} is {listed(extras, dice)}")
    return [opening, *sentences]


def _piece_by_piece(scribe: Scribe) -> list[str]:
    """The man's shirt is white and his pants are black. His shoes are brown."""
    dice = scribe.dice
    has, worn = _head(scribe)
    action = scribe.action()
    opening = f"{scribe.some(scribe.person())}{_with(has, scribe)} {f'{action} ' if action else ''}wearing {scribe.upper()}"
    pieces = [_predicate(scribe, "lower"), _predicate(scribe, "shoes")]
    pieces = [piece for piece in pieces if piece]
    sentences = [" and ".join(pieces)] if len(pieces) == 2 and dice.roll() < 0.6 else pieces
    more = [*([f"is wearing {listed(worn, dice)}"] if worn else []), *_carries(scribe)]
    if more:
        sentences.append(f"{scribe.the_person()} {listed(more, dice)}")
    return [opening, *sentences]


def _predicate(scribe: Scribe, slot: str) -> str:
    """Returns "his pants are black", or "he wears striped black pants" if more than the colour is claimed."""
    kind, simple = f"{slot}.kind", not scribe.says(f"{slot}.pattern")
    if not (scribe.says(kind) and scribe.says(f"{slot}.colour") and simple):
        garment = scribe.lower() if slot == "lower" else scribe.shoes()
        return f"{scribe.they} {scribe.dice.pick(_WEARS[:2])} {garment}" if garment else ""
    noun, colour = scribe.word(kind), scribe.word(f"{slot}.colour")
    return f"{scribe.their} {noun} {'are' if noun.endswith('s') else 'is'} {colour}"


def _head_first(scribe: Scribe) -> list[str]:
    """With long hair and glasses, the woman wears a dress and sandals while holding a phone."""
    dice = scribe.dice
    has, worn = _head(scribe)
    who = f"{dice.pick(('the', 'this', 'the'))} {scribe.person()}"
    clothes = listed([scribe.upper(), scribe.lower(), scribe.shoes(), *worn], dice)
    text = f"{who} {dice.pick(_WEARS)} {clothes}"
    if has:
        text = f"with {listed(has, dice)}, {text}"
    if extras := _carrying(scribe):
        text += f"{dice.pick((' while ', ', ', ' and is '))}{listed(extras, dice)}"
    action = scribe.action()
    return [text, *([f"{scribe.the_person()} is {action}"] if action else [])]


def _thing_first(scribe: Scribe) -> list[str]:
    """Carrying a bag, the man is walking away in a shirt and jeans. He has short hair."""
    dice = scribe.dice
    extras = _carrying(scribe)
    if not extras:
        return _two_sentences(scribe)
    has, worn = _head(scribe)
    who = dice.pick((f"the {scribe.person()}", scribe.some(scribe.person())))
    action = scribe.action()
    clothes = listed([scribe.upper(), scribe.lower()], dice)
    text = f"{listed(extras, dice)}, {who} is {f'{action} in' if action else 'wearing'} {clothes}"
    feet = [*worn, scribe.shoes()]
    more = [f"has {listed(has, dice)}"] if has else []
    more.extend([f"wears {listed(feet, dice)}"] if any(feet) else [])
    return [text, *([f"{scribe.the_person()} {' and '.join(more)}"] if more else [])]


def _who_does(scribe: Scribe) -> list[str]:
    """This pedestrian is a young man who has short hair and wears a shirt with jeans and boots."""
    dice = scribe.dice
    has, worn = _head(scribe)
    clothes = scribe.upper()
    lower, shoes = scribe.lower(), scribe.shoes()
    if lower:
        clothes += f"{' and ' if ' with ' in clothes or ' and ' in clothes else dice.pick((' with ', ' and '))}{lower}"
    does = [*([f"has {listed(has, dice)}"] if has else []), f"{dice.pick(('wears', 'is wearing', 'is dressed in'))} {clothes}"]
    opening = f"{dice.pick(('this is', 'here is', 'it is'))} {scribe.some(scribe.person())} who {' and '.join(does)}"
    extras = _carries(scribe)
    if action := scribe.action():
        extras.insert(0, f"is {action}")
    feet = listed([shoes, *worn], dice)
    sentences = [f"{scribe.the_person()} also has {feet} on"] if feet else []
    return [opening, *sentences, *([f"{scribe.the_person()} {listed(extras, dice)}"] if extras else [])]


PLANS: tuple[Plan, ...] = (
    _one_long, _one_long, _several_short, _two_sentences, _two_sentences, _clothes_first, _telegram, _there_is, _piece_by_piece,
    _head_first, _thing_first, _who_does,
)  # fmt: skip


def compose(plan: Plan, claims: Mapping[str, AttributeClaim], dice: Dice, avoid: str = "") -> str:
    """Writes the claims with a sentence plan. A word that occurs in the text `avoid` is drawn again once."""
    return _finished(plan(Scribe(claims, dice, avoid)), dice)


def _finished(sentences: Sequence[str], dice: Dice) -> str:
    """Adds capitals and full stops; like careless typing, some texts lack them."""
    care = dice.roll()
    if care < 0.1:
        return ". ".join(sentences) + ("." if care < 0.04 else "")
    text = ". ".join(sentence[0].upper() + sentence[1:] for sentence in sentences)
    return text if care > 0.92 else text + "."


def _shuffled(items: Sequence[str], dice: Dice) -> list[str]:
    return [item for _, item in sorted(((dice.roll(), item) for item in items), key=lambda pair: pair[0])]
