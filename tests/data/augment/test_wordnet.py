"""Reading WordNet: a miniature database in the published file format and, if installed, the real one."""

import itertools
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import nltk.data
import pytest

from tbps.data.augment.wordnet import DEBIAN, WordNet, open_wordnet
from tbps.errors import DataError, MissingDependencyError

# part of speech -> synsets: (number of the lexicographer's file, type, words)
SYNSETS = {
    "noun": [
        (6, "n", ["jacket", "Sports_Jacket"]),
        (6, "n", ["coat", "jacket", "over-coat"]),
        (18, "n", ["woman", "adult_female"]),
        (15, "n", ["U.S.", "the_States"]),
        (6, "n", ["bag"]),
    ],
    "verb": [(29, "v", ["wear", "have_on"]), (35, "v", ["carry"])],
    "adj": [(0, "a", ["black"]), (0, "s", ["dark(p)", "black"])],
    "adv": [(2, "r", ["slowly", "slow"])],
}
EXCEPTIONS = {"noun": "women woman\n", "verb": "wore wear\n", "adj": "", "adv": ""}
TYPES = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}
LICENCE = "  1 This miniature follows the file format of WordNet 3.0, wndb(5WN).  \n"


def write_database(folder: Path) -> Path:
    """Writes a database as Debian ships it, without lexnames and index.sense."""
    folder.mkdir(parents=True)
    for part, synsets in SYNSETS.items():
        data, offsets = LICENCE, dict[str, list[int]]()
        for file, kind, words in synsets:
            for word in words:
                offsets.setdefault(word.partition("(")[0].lower(), []).append(len(data))
            listed = " ".join(f"{word} 0" for word in words)
            pointers = f"001 & {len(LICENCE):08d} a 0000" if kind == "s" else "000"  # a satellite points to the first adjective
            frames = "01 + 08 00 " if part == "verb" else ""
            data += f'{len(data):08d} {file:02d} {kind} {len(words):02x} {listed} {pointers} {frames}| made up; "an example"  \n'
        index = "".join(
            f"{word} {TYPES[part]} {len(found)} 0 {len(found)} 0 {' '.join(f'{o:08d}' for o in found)}  \n"
            for word, found in sorted(offsets.items())
        )
        (folder / f"data.{part}").write_text(data)
        (folder / f"index.{part}").write_text(LICENCE + index)
        (folder / f"{part}.exc").write_text(EXCEPTIONS[part])
    (folder / "cntlist.rev").write_text("")
    return folder


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hides this machine's NLTK data and cache."""
    monkeypatch.setattr(nltk.data, "path", [])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def as_downloaded(root: Path) -> Path:
    """Makes a folder on NLTK's path as `nltk.download` does."""
    folder = write_database(root / "corpora" / "wordnet")
    names = [f"file.{number} {number % 4 + 1}" for number in range(45)]
    (folder / "lexnames").write_text("".join(f"{i:02d} {name}\n" for i, name in enumerate(names)))
    (folder / "index.sense").write_text("")
    for place in (root, *root.rglob("*")):
        place.chmod(0o755 if place.is_dir() else 0o644)
    nltk.data.path.append(str(root))
    return folder


def check(wordnet: WordNet) -> None:
    expected = {
        "jacket": ("coat", "over-coat"),
        "Jacket": ("coat", "over-coat"),
        "jackets": ("coat", "jacket", "over-coat"),
        "women": ("adult female", "woman"),
        "wore": ("have on", "wear"),
        "wears": ("have on", "wear"),
        "black": ("dark",),
        "dark": ("black",),
        "slow": ("slowly",),
        "the_states": (),  # a name
        "bag": (),
        "carry": (),
        "unheard": (),
        "café": (),
        "红": (),
        "": (),
    }
    assert {word: wordnet.synonyms(word) for word in expected} == expected


def test_a_database_among_nltks_data(tmp_path: Path) -> None:
    as_downloaded(tmp_path / "nltk_data")
    check(open_wordnet(tmp_path / "none"))
    assert not (tmp_path / "cache" / "tbps" / "nltk_data").exists()


def test_a_database_that_was_not_unpacked(tmp_path: Path) -> None:
    folder = as_downloaded(tmp_path / "nltk_data")
    archive = Path(shutil.make_archive(str(folder), "zip", folder.parent, folder.name))
    archive.chmod(0o644)
    shutil.rmtree(folder)
    check(open_wordnet(tmp_path / "none"))


def test_debians_files_are_copied_once_and_completed(tmp_path: Path) -> None:
    debian = write_database(tmp_path / "debian")
    before = {file.name: file.read_bytes() for file in debian.iterdir()}
    check(open_wordnet(debian))
    copied = tmp_path / "cache" / "tbps" / "nltk_data" / "corpora" / "wordnet"
    assert {file.name: file.read_bytes() for file in debian.iterdir()} == before
    assert {file.name for file in copied.iterdir()} == before.keys() | {"lexnames", "index.sense"}
    assert [entry.name for entry in copied.parent.iterdir()] == ["wordnet"]
    assert len((copied / "lexnames").read_text().splitlines()) == 45
    shutil.rmtree(debian)
    nltk.data.path.clear()
    check(open_wordnet(tmp_path / "none"))


def test_two_processes_that_copy_at_once_both_succeed(tmp_path: Path) -> None:
    debian = write_database(tmp_path / "debian")
    results: list[tuple[str, ...]] = []
    start = threading.Barrier(3)

    def ask(own: Path) -> None:
        start.wait()
        results.append(open_wordnet(own).synonyms("dark"))

    sources = [shutil.copytree(debian, tmp_path / f"debian {number}") for number in range(3)]
    threads = [threading.Thread(target=ask, args=(source,)) for source in sources]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [("black",)] * 3
    assert [entry.name for entry in (tmp_path / "cache" / "tbps" / "nltk_data" / "corpora").iterdir()] == ["wordnet"]


def test_several_threads_get_the_same_synonyms_as_one(tmp_path: Path) -> None:
    wordnet = open_wordnet(write_database(tmp_path / "debian"))
    words = [word.partition("(")[0] for synsets in SYNSETS.values() for _, _, many in synsets for word in many]
    found: list[dict[str, tuple[str, ...]]] = []
    orders = itertools.islice(itertools.permutations(words), 4)
    threads = [
        threading.Thread(target=lambda order=order: found.append({word: wordnet.synonyms(word) for word in order}))
        for order in orders
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [found[0]] * 4


@pytest.mark.parametrize("incomplete", [False, True])
def test_a_missing_database_names_both_ways_to_install_it(tmp_path: Path, incomplete: bool) -> None:
    debian = tmp_path / "debian"
    if incomplete:
        (write_database(debian) / "data.verb").unlink()
    with pytest.raises(MissingDependencyError) as absent:
        open_wordnet(debian)
    for way in ("python -m nltk.downloader wordnet", "apt install wordnet-base", str(debian)):
        assert way in str(absent.value)
    assert not (tmp_path / "cache" / "tbps" / "nltk_data").exists()


def test_a_damaged_database_is_named(tmp_path: Path) -> None:
    folder = as_downloaded(tmp_path / "nltk_data")
    (folder / "lexnames").write_text("00 noun.Tops\n")
    with pytest.raises(DataError, match="cannot be read") as damaged:
        open_wordnet(tmp_path / "none")
    assert str(folder) in str(damaged.value)


_ASK = """
import sys
import numpy as np
from tbps.data.augment.text import TextAugmentation, augment_caption
for method in ("stacking", "random_swap", "none", "synonym_replacement", "random_insertion", "eda"):
    settings = TextAugmentation(method=method, edit_share=1)
    print(method, "nltk" in sys.modules, augment_caption("the women, dark", None, settings, np.random.default_rng(4)), sep="|")
"""


def test_augmentation_opens_wordnet_when_a_method_needs_it_and_not_before(tmp_path: Path) -> None:
    as_downloaded(tmp_path / "nltk_data")
    environment = os.environ | {"NLTK_DATA": str(tmp_path / "nltk_data"), "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", _ASK], env=environment, capture_output=True, text=True, check=True)
    lines = [line.split("|") for line in done.stdout.splitlines()]
    assert {method: loaded for method, loaded, _ in lines} == {
        **dict.fromkeys(("stacking", "random_swap", "none", "synonym_replacement"), "False"),
        **dict.fromkeys(("random_insertion", "eda"), "True"),
    }
    texts = {method: text for method, _, text in lines}
    assert texts["synonym_replacement"] in ("the adult female, black", "the woman, black")
    assert set(texts["random_insertion"].split()) <= {"the", "women,", "dark", "adult", "female", "woman", "black"}
    assert len(texts["random_insertion"].split()) >= 6


@pytest.mark.skipif(not (DEBIAN / "data.noun").is_file(), reason="Debian's package wordnet-base is not installed")
def test_the_real_wordnet() -> None:
    wordnet = open_wordnet()
    assert {"coat", "jacket"} & set(wordnet.synonyms("jackets"))
    assert "gym shoe" in wordnet.synonyms("sneakers")
    assert "adult female" in wordnet.synonyms("women")
    assert wordnet.synonyms("trousers") == ("pant", "trouser")
    for word in ("black", "backpack", "walking", "hair"):
        found = wordnet.synonyms(word)
        assert found and word not in found and list(found) == sorted(set(found))
        assert all(text == text.lower() and text.split(" ") == text.split() and "_" not in text for text in found)
