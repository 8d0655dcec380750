"""The diagnosis of embeddings finds the errors that the tests put into them, and no others."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tbps.data.embedding import identities
from tbps.data.mannequins.people import attributes
from tbps.data.mannequins.population import population
from tbps.data.readers.folder import read
from tbps.data.records import PersonDataset
from tbps.errors import DataError
from tbps.evaluation import Embeddings
from tbps.evaluation.metrics import retrieval_metrics
from tbps.study.diagnosis import diagnose, mentions, near_twins, rank_queries, shown_attributes
from tbps.study.report.diagnosis import write_diagnosis

COLOURS, BAGS = ("red", "blue", "green", "black"), ("backpack", "handbag")
PEOPLE = [(top, shoe, bag) for top in COLOURS for shoe in COLOURS for bag in BAGS]


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> PersonDataset:
    """32 people who differ in coat, shoes and bag. Captions mention all three, but every second one leaves out the shoes."""
    folder = tmp_path_factory.mktemp("columns")
    lines = []
    for number, (top, shoe, bag) in enumerate(PEOPLE):
        for view in range(2):
            name = f"{number}-{view}.png"
            Image.new("RGB", (8, 16), (number * 7, 40, 90)).save(folder / name)
            caption = f"a man in a {top} coat with a {bag}" + (f" and {shoe} shoes" if view else "")
            columns = {"coat": f"{top} coat", "shoes": f"{shoe} shoes", "bag": bag, "angle": f"angle {view}"}
            lines.append(json.dumps({"file_name": name, "caption": caption, "identity": number, "split": "test"} | columns))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return read(folder).split("test")


def encode(texts: list[str], blind: tuple[str, ...] = ()) -> np.ndarray:
    """Unit bag-of-words embeddings over coat colour, shoe colour and bag, plus a constant; words in `blind` count as 0."""
    slots = [f"{colour} {thing}" for thing in ("coat", "shoes") for colour in COLOURS] + list(BAGS)
    rows = [[float(slot in text and not any(word in slot for word in blind)) for slot in slots] + [0.1] for text in texts]
    array = np.array(rows)
    return (array / np.linalg.norm(array, axis=1, keepdims=True)).astype(np.float32)


def embedded(split: PersonDataset, blind: tuple[str, ...] = ()) -> Embeddings:
    shown = [" ".join(a.values()) for a in shown_attributes(split)]
    text_ids, image_ids = identities(split)
    captions = [split.images[pair.image].captions[pair.caption] for pair in split.pairs()]
    return Embeddings(encode(captions, blind), encode(shown, blind), text_ids, image_ids, "m", "s")


def test_columns_are_mentioned_where_the_caption_holds_their_words(split: PersonDataset) -> None:
    said = mentions(split, shown_attributes(split))
    assert said[0] == {"coat": ("red coat",), "bag": ("backpack",)}
    assert said[1] == {"coat": ("red coat",), "shoes": ("red shoes",), "bag": ("backpack",)}


def test_rank_1_with_and_without_a_mention(split: PersonDataset) -> None:
    found = diagnose(split, embedded(split), encode)
    assert found.r1 == 50.0 and {m.slot: (m.queries, m.r1, m.r1_without) for m in found.mentioned} == {
        "shoes": (32, 100.0, 0.0),  # four people match a caption without shoes, and ties count as errors
        "coat": (64, 50.0, None),
        "bag": (64, 50.0, None),
    }
    swapped = {one.group: one for one in found.swapped}
    assert swapped["colour"].preferred == 100.0 and swapped["colour"].drop > 0.2
    assert swapped["control: a, the"].preferred == 0.0 and abs(swapped["control: a, the"].drop) < 1e-6


def test_a_blind_model_does_not_notice_the_swap(split: PersonDataset) -> None:
    def blind(texts: list[str]) -> np.ndarray:
        return encode(texts, BAGS)

    found = diagnose(split, embedded(split, BAGS), blind)
    swapped = {one.group: one for one in found.swapped}
    assert swapped["thing carried"].preferred == 0.0 and swapped["colour"].preferred == 100.0
    assert [one[:3] for one in found.words if one[3] == 0] == [("man", "woman", 64)]  # no word of the embeddings
    twins = found.twins
    assert twins.errors_to_twin == twins.errors > 0 and twins.told_apart_unnamed[0] == 0.0


def test_ranks_agree_with_the_metrics() -> None:
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(700 + 90, 8)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    ids = np.arange(90) // 3
    found = Embeddings(rows[:700], rows[700:], rng.integers(0, 30, 700), ids, "m", "s")
    ranking = rank_queries(found)
    report = retrieval_metrics(found.text, found.image, found.text_ids, found.image_ids)
    shares = [100 * float((ranking.rank <= k).mean()) for k in (1, 5, 10)]
    assert shares == pytest.approx([report.r1, report.r5, report.r10])
    scores = found.text.astype(np.float64) @ found.image.T.astype(np.float64)
    assert (ranking.first == np.argsort(-scores, axis=1)[:, :5]).all()


def test_near_twins_of_mannequins_are_found_and_nobody_else() -> None:
    people = population(7, "test", 90)
    twins = near_twins([attributes(person) for person in people])
    pairs = {frozenset((person, twin)) for person, found in enumerate(twins) for twin in found}
    made = {frozenset((index, index - 1)) for index in range(2, 90, 3)}
    assert made <= pairs and len(pairs - made) <= 3  # two people may resemble each other by chance


def test_the_text_and_the_picture(split: PersonDataset, tmp_path: Path) -> None:
    embeddings = embedded(split, ("coat",))
    found = diagnose(split, embeddings, lambda texts: encode(list(texts), ("coat",)), failures=3)
    text, picture = write_diagnosis(found, split, embeddings, "a <b> on columns", tmp_path)
    said = text.read_text()
    assert "a \\<b\\> on columns, model m" in said and "64 captions against 64 images" in said and "| shoes | 32 |" in said
    assert len({int(embeddings.text_ids[failure.query]) for failure in found.failures}) == 3
    assert all(failure.rank > 1 for failure in found.failures)
    with Image.open(picture) as sheet:
        assert sheet.width > 600 and sheet.height > 3 * 224


def test_without_attributes_there_is_no_diagnosis(split: PersonDataset) -> None:
    bare = replace(split, images=tuple(replace(image, attributes={}) for image in split.images))
    with pytest.raises(DataError, match="has no attributes"):
        diagnose(bare, embedded(split), encode)
