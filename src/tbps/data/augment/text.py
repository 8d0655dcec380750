"""The text augmentations of TBPS-CLIP: a caption gives way to its paraphrase, loses words, or is edited as in EDA.

Easy data augmentation (EDA, Wei and Zou, EMNLP 2019) edits a caption of l words n = max(1, floor(alpha l)) times.
"""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from tbps.config import Settings
from tbps.errors import CaptionError

_Probability = Annotated[float, Field(ge=0, le=1)]

Synonyms = Callable[[str], Sequence[str]]
"""A word -> what may stand in its place, each of one or more words; nothing for a word it does not know."""

Method = Literal[
    "stacking",
    "back_translation",
    "synonym_replacement",
    "random_insertion",
    "random_swap",
    "random_deletion",
    "eda",
    "none",
]

EDA: tuple[Method, ...] = ("synonym_replacement", "random_insertion", "random_swap", "random_deletion")

_STOP_WORDS = """
    a an the this that these those such some any no every each either neither all both another other
    i me my mine myself you your yours yourself he him his himself she her hers herself it its itself
    we us our ours ourselves they them their theirs themselves one who whom whose which what someone
    and or but nor so yet if because while as than then though although unless until whether
    of in on at by for with about against between into through during before after above below to from up down out off over
    under again further along across around behind beside near onto upon within without toward towards
    is are was were be been being am has have had having do does did doing can could will would shall should may might must
    not only very too also just more most less least much many few quite rather there here when where why how own same
    """
STOP_WORDS = frozenset(_STOP_WORDS.split())


class TextAugmentation(Settings):
    """What happens to a training caption.

    `method`: "stacking" is back translation, then random deletion; "eda" is one of the four EDA edits, drawn for every caption.
    `paraphrase_probability`: back translation replaces a caption; `deletion_probability`: each word is deleted; `edit_share`:
    alpha, the share of a caption's words that synonym replacement, insertion and swap touch, at least one unless it is 0.
    """

    enabled: bool = True
    """Whether captions are augmented."""
    method: Method = "stacking"
    """Method; "stacking" is back translation, then random deletion; "eda" draws one of the four EDA edits per caption."""
    paraphrase_probability: _Probability = 0.1
    """Probability that a caption is replaced by its back translation."""
    deletion_probability: _Probability = 0.05
    """Probability that random deletion removes a word."""
    edit_share: _Probability = 0.05
    """Share of a caption's words that synonym replacement, insertion and swap change, at least one unless it is 0."""

    @property
    def active(self) -> Method:
        """The method, "none" when augmentation is off."""
        return self.method if self.enabled else "none"

    @property
    def uses_paraphrases(self) -> bool:
        """Whether captions may be replaced by their back translation, which every caption then needs."""
        return self.active in ("stacking", "back_translation") and self.paraphrase_probability > 0

    @property
    def uses_synonyms(self) -> bool:
        """Whether WordNet is needed."""
        return self.active in ("synonym_replacement", "random_insertion", "eda") and self.edit_share > 0


def augment_caption(
    caption: str, paraphrase: str | None, settings: TextAugmentation, rng: np.random.Generator, synonyms: Synonyms | None = None
) -> str:
    """The caption after `settings.method`; at least one word always stays, and single spaces separate the words.

    `synonyms`: by default WordNet's, opened when first needed. Raises CaptionError when the text to augment has no word,
    MissingDependencyError when WordNet is needed and absent.
    """
    method = settings.active
    paraphrasing = method in ("stacking", "back_translation")
    if paraphrasing and rng.random() < settings.paraphrase_probability and paraphrase is not None:
        caption = paraphrase
    words = caption.split()
    if not words:
        raise CaptionError(f"caption {caption!r} has no word; describe the person in words")
    if method == "eda":
        method = EDA[rng.integers(len(EDA))]
    return " ".join(_edit(words, method, settings, rng, synonyms))


def edit_count(words: int, share: float) -> int:
    """How often a caption of that many words is edited."""
    return max(1, int(share * words)) if share > 0 else 0


def delete_words(words: Sequence[str], probability: float, rng: np.random.Generator) -> list[str]:
    """Each word is deleted with that probability; where none would be left, one drawn at random stays."""
    kept = rng.random(len(words)) >= probability
    if not kept.any():
        kept[rng.integers(len(words))] = True
    return [word for word, keep in zip(words, kept, strict=True) if keep]


def swap_words(words: Sequence[str], count: int, rng: np.random.Generator) -> list[str]:
    """`count` times, the words at two different places change places; a single word stays where it is."""
    swapped = list(words)
    for _ in range(count if len(words) > 1 else 0):
        first, second = rng.choice(len(swapped), 2, replace=False)
        swapped[first], swapped[second] = swapped[second], swapped[first]
    return swapped


def replace_words(words: Sequence[str], count: int, synonyms: Synonyms, rng: np.random.Generator) -> list[str]:
    """`count` different words, or all that can be if those are fewer, each give way to a synonym drawn at random, the same one
    wherever the word occurs, as in EDA.

    Stop words stay. Punctuation at either end of a word ("jacket,") is kept and hides no synonym; capitals make no other word.
    """
    replaced = list(words)
    places: dict[str, list[int]] = {}
    found: dict[str, Sequence[str]] = {}
    for place, some in _with_synonyms(words, synonyms):
        core = _parts(words[place])[1].lower()
        places.setdefault(core, []).append(place)
        found[core] = some
    known = list(places)
    for chosen in rng.choice(len(known), min(count, len(known)), replace=False) if known else ():
        synonym = _draw(found[known[chosen]], rng)
        for place in places[known[chosen]]:
            before, _, after = _parts(words[place])
            replaced[place] = before + synonym + after
    return replaced


def insert_words(words: Sequence[str], count: int, synonyms: Synonyms, rng: np.random.Generator) -> list[str]:
    """`count` times, a synonym of a word drawn at random is put in at a place drawn at random; stop words get no synonym."""
    longer = list(words)
    known = _with_synonyms(words, synonyms)
    for _ in range(count if known else 0):
        _, found = known[rng.integers(len(known))]
        longer.insert(int(rng.integers(len(longer) + 1)), _draw(found, rng))
    return longer


def _edit(
    words: Sequence[str], method: Method, settings: TextAugmentation, rng: np.random.Generator, synonyms: Synonyms | None
) -> Sequence[str]:
    count = edit_count(len(words), settings.edit_share)
    match method:
        case "stacking" | "random_deletion":
            return delete_words(words, settings.deletion_probability, rng)
        case "random_swap":
            return swap_words(words, count, rng)
        case "synonym_replacement" if count:
            return replace_words(words, count, synonyms or _wordnet(), rng)
        case "random_insertion" if count:
            return insert_words(words, count, synonyms or _wordnet(), rng)
    return words


def _wordnet() -> Synonyms:
    from tbps.data.augment.wordnet import open_wordnet  # here, so that training without synonyms needs neither NLTK nor WordNet

    return open_wordnet().synonyms


def _with_synonyms(words: Sequence[str], synonyms: Synonyms) -> list[tuple[int, Sequence[str]]]:
    """The place and the synonyms of each word that has some and is no stop word."""
    cores = [_parts(word)[1].lower() for word in words]
    found = [(place, synonyms(core)) for place, core in enumerate(cores) if core and core not in STOP_WORDS]
    return [(place, some) for place, some in found if some]


@lru_cache(maxsize=65_536)
def _parts(word: str) -> tuple[str, str, str]:
    """What stands before a word, the word, what stands behind it: "(black-and-white)," -> "(", "black-and-white", "),"."""
    match = re.fullmatch(r"(\W*)(.*?)(\W*)", word, re.DOTALL)
    before, core, after = match.groups() if match else ("", word, "")
    return before, core, after


def _draw(found: Sequence[str], rng: np.random.Generator) -> str:
    return found[int(rng.integers(len(found)))]
