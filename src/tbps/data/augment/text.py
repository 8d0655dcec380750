"""Text augmentation of TBPS-CLIP: back translation, random deletion and the edits of EDA.

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
"""A word -> its synonyms, each of one or more words; empty for an unknown word."""

TextMethod = Literal[
    "stacking",
    "back_translation",
    "synonym_replacement",
    "random_insertion",
    "random_swap",
    "random_deletion",
    "eda",
    "none",
]

EDA: tuple[TextMethod, ...] = ("synonym_replacement", "random_insertion", "random_swap", "random_deletion")

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
    """Augmentation of training captions.

    `method`: "stacking" is back translation, then random deletion; "eda" draws one of the four EDA edits for every caption.
    `paraphrase_probability`: probability of replacing a caption by its back translation; `deletion_probability`: probability of
    deleting each word; `edit_share`: alpha, the share of a caption's words that synonym replacement, insertion and swap change, at
    least one word unless it is 0.
    """

    enabled: bool = True
    """Whether captions are augmented."""
    method: TextMethod = "stacking"
    """Method; "stacking" is back translation, then random deletion; "eda" draws one of the four EDA edits per caption."""
    paraphrase_probability: _Probability = 0.1
    """Probability that a caption is replaced by its back translation."""
    deletion_probability: _Probability = 0.05
    """Probability that random deletion removes a word."""
    edit_share: _Probability = 0.05
    """Share of a caption's words that synonym replacement, insertion and swap change, at least one unless it is 0."""

    @property
    def active(self) -> TextMethod:
        """The method, "none" when augmentation is disabled."""
        return self.method if self.enabled else "none"

    @property
    def uses_paraphrases(self) -> bool:
        """Whether captions may be replaced by their back translation, so that each caption needs one."""
        return self.active in ("stacking", "back_translation") and self.paraphrase_probability > 0

    @property
    def uses_synonyms(self) -> bool:
        """Whether WordNet is needed."""
        return self.active in ("synonym_replacement", "random_insertion", "eda") and self.edit_share > 0


def augment_caption(
    caption: str, paraphrase: str | None, settings: TextAugmentation, rng: np.random.Generator, synonyms: Synonyms | None = None
) -> str:
    """Augments a caption by `settings.method`; at least one word remains, and single spaces separate the words.

    `synonyms`: default WordNet, opened on first use. Raises CaptionError when the caption or paraphrase has no word,
    MissingDependencyError when WordNet is needed and missing.
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
    """Returns the number of edits of a caption with that many words."""
    return max(1, int(share * words)) if share > 0 else 0


def delete_words(words: Sequence[str], probability: float, rng: np.random.Generator) -> list[str]:
    """Deletes each word with `probability`; if none would remain, keeps a random one."""
    kept = rng.random(len(words)) >= probability
    if not kept.any():
        kept[rng.integers(len(words))] = True
    return [word for word, keep in zip(words, kept, strict=True) if keep]


def swap_words(words: Sequence[str], count: int, rng: np.random.Generator) -> list[str]:
    """Swaps the words at two random places `count` times; a single word stays."""
    swapped = list(words)
    for _ in range(count if len(words) > 1 else 0):
        first, second = rng.choice(len(swapped), 2, replace=False)
        swapped[first], swapped[second] = swapped[second], swapped[first]
    return swapped


def replace_words(words: Sequence[str], count: int, synonyms: Synonyms, rng: np.random.Generator) -> list[str]:
    """Replaces up to `count` different words by a random synonym each, the same at all occurrences, as in EDA.

    Stop words and words without synonyms stay. Punctuation around a word ("jacket,") is kept; the look-up ignores it, and case.
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
    """Inserts a synonym of a random word at a random place `count` times; stop words are not used."""
    longer = list(words)
    known = _with_synonyms(words, synonyms)
    for _ in range(count if known else 0):
        _, found = known[rng.integers(len(known))]
        longer.insert(int(rng.integers(len(longer) + 1)), _draw(found, rng))
    return longer


def _edit(
    words: Sequence[str], method: TextMethod, settings: TextAugmentation, rng: np.random.Generator, synonyms: Synonyms | None
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
    from tbps.data.augment.wordnet import open_wordnet  # training without synonyms needs neither NLTK nor WordNet

    return open_wordnet().synonyms


def _with_synonyms(words: Sequence[str], synonyms: Synonyms) -> list[tuple[int, Sequence[str]]]:
    """Returns position and synonyms of each word that has any and is not a stop word."""
    cores = [_parts(word)[1].lower() for word in words]
    found = [(place, synonyms(core)) for place, core in enumerate(cores) if core and core not in STOP_WORDS]
    return [(place, some) for place, some in found if some]


@lru_cache(maxsize=65_536)
def _parts(word: str) -> tuple[str, str, str]:
    """Splits off punctuation before and behind a word: "(black-and-white)," -> "(", "black-and-white", "),"."""
    match = re.fullmatch(r"(\W*)(.*?)(\W*)", word, re.DOTALL)
    before, core, after = match.groups() if match else ("", word, "")
    return before, core, after


def _draw(found: Sequence[str], rng: np.random.Generator) -> str:
    return found[int(rng.integers(len(found)))]
