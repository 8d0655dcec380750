"""Synonyms from WordNet 3.0, read by NLTK.

The database comes from NLTK's data folders or from Debian's package `wordnet-base`. NLTK reads only its own folders, follows no
links, and needs two files that Debian omits; therefore Debian's files are copied once into the user's cache.
"""

import os
import shutil
import tempfile
import threading
import warnings
from functools import cache
from pathlib import Path
from typing import Any, final

from tbps.errors import DataError, MissingDependencyError
from tbps.optional import needed
from tbps.preprocess.caption import clean_caption
from tbps.storage import make_folder, write_bytes, write_text, writing_to

DEBIAN = Path("/usr/share/wordnet")

_PARTS = ("adj", "adv", "noun", "verb")
_FILES = (*(f"{kind}.{part}" for kind in ("data", "index") for part in _PARTS), *(f"{part}.exc" for part in _PARTS), "cntlist.rev")

# lexnames(5WN): the lexicographer files in numerical order.
_LEXNAMES = """
    adj.all adj.pert adv.all noun.Tops noun.act noun.animal noun.artifact noun.attribute noun.body noun.cognition
    noun.communication noun.event noun.feeling noun.food noun.group noun.location noun.motive noun.object noun.person
    noun.phenomenon noun.plant noun.possession noun.process noun.quantity noun.relation noun.shape noun.state noun.substance
    noun.time verb.body verb.change verb.cognition verb.communication verb.competition verb.consumption verb.contact
    verb.creation verb.emotion verb.motion verb.perception verb.possession verb.social verb.stative verb.weather adj.ppl
    """
_CATEGORIES = {"noun": 1, "verb": 2, "adj": 3, "adv": 4}

# `warnings.catch_warnings` changes process-wide state: two threads inside it would undo each other's changes.
_quiet = threading.Lock()


@final
class WordNet:
    """An open WordNet database, usable by several threads. `reader`: NLTK's `WordNetCorpusReader`."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        self._known: dict[str, tuple[str, ...]] = {}
        self._lock = threading.Lock()  # threads would share the file positions of the reader

    def synonyms(self, word: str) -> tuple[str, ...]:
        """Returns the lemmas of all synsets of a word and its base forms, without the word itself: cleaned like captions, sorted.

        "tee_shirt" becomes "tee shirt". Capitalised lemmas are omitted: names of peoples, persons and places do not describe
        clothes. Empty for an unknown word.
        """
        with self._lock:
            if word not in self._known:
                lemmas = {lemma for synset in self._reader.synsets(word) for lemma in synset.lemma_names() if lemma.islower()}
                others = {clean_caption(lemma.replace("_", " ")) for lemma in lemmas if lemma.lower() != word.lower()}
                self._known[word] = tuple(sorted(others - {word.lower()}))
            return self._known[word]


@cache
def open_wordnet(debian: Path = DEBIAN) -> WordNet:
    """Opens the WordNet database in NLTK's data folders, else a copy of Debian's in the user's cache.

    The first call takes some seconds. Raises MissingDependencyError when NLTK or the database is missing, DataError when the
    database is damaged or NLTK refuses it, StorageError when the copy cannot be written.
    """
    data, reader = (needed(module, "replacing synonyms", "text") for module in ("nltk.data", "nltk.corpus.reader.wordnet"))

    root = _find(data, debian)
    try:
        with _quiet, warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The multilingual functions are not available")
            return WordNet(reader.WordNetCorpusReader(root, None))
    except (OSError, ValueError, LookupError, AssertionError, StopIteration, reader.WordNetError) as error:
        raise DataError(f"the WordNet in {root} cannot be read ({error}); remove that folder and fetch it again") from error


def _find(data: Any, debian: Path) -> Any:
    """Finds the database: NLTK's pointer to its folder or zip file. `data`: the module `nltk.data`."""
    own = _cache() / "nltk_data"
    if str(own) not in data.path:
        data.path.append(str(own))
    found = _look_up(data)
    if found is None and all((debian / name).is_file() for name in _FILES):
        _copy(debian, own / "corpora" / "wordnet")
        found = _look_up(data)
    if found is None:
        raise MissingDependencyError(
            "synonyms need WordNet, which was not found; run `python -m nltk.downloader wordnet`, or on Debian and Ubuntu "
            f"`apt install wordnet-base` (looked in {', '.join(map(str, data.path))} and {debian})"
        )
    return found


def _look_up(data: Any) -> Any:
    for name in ("corpora/wordnet", "corpora/wordnet.zip/wordnet/"):
        try:
            return data.find(name)
        except LookupError:
            continue
    return None


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tbps"


def _copy(debian: Path, target: Path) -> None:
    """Copies Debian's files to `target` and creates the two that Debian omits; after an error, `target` is absent.

    Only the owner may write to the folders: NLTK refuses folders that others can write to.
    """
    for folder in (target.parent.parent, target.parent):
        with writing_to(make_folder(folder)):
            folder.chmod(0o755)
    with writing_to(target.parent):
        temporary = Path(tempfile.mkdtemp(prefix=".wordnet.", suffix=".part", dir=target.parent))
    try:
        for name in _FILES:
            write_bytes(temporary / name, (debian / name).read_bytes())
        numbered = enumerate(_LEXNAMES.split())
        write_text(
            temporary / "lexnames", "".join(f"{i:02d}\t{name}\t{_CATEGORIES[name.partition('.')[0]]}\n" for i, name in numbered)
        )
        write_text(temporary / "index.sense", "")
        temporary.chmod(0o755)
        _move(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _move(temporary: Path, target: Path) -> None:
    try:
        temporary.rename(target)
    except OSError:
        if not target.is_dir():  # else another process has copied it meanwhile
            raise
