# ruff: noqa: RUF001 (the tests need punctuation of other scripts)
"""Descriptions without spaces, and words longer than the context, are split into parts that together hold the whole text."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import tbps
from tbps.gallery.search.parts import split_long
from tbps.gallery.search.query import Query, Text
from tbps.model.bundle import PersonModel
from tbps.model.text_reader import TextReader
from tbps.preprocess.caption import caption_words

MODEL = Path(__file__).parents[3] / "models/mannequin-tiny"
CHINESE = (
    "一个穿着红色外套的年轻女人正在向左走，她背着一个黑色的双肩包，穿着蓝色牛仔裤和白色运动鞋。"
    "她的头发是棕色的长发！手里拿着一把雨伞、一个手提包和一部手机。"
)
JAPANESE = (
    "赤いコートを着た若い女性が左へ歩いています。彼女は黒いリュックサックを背負い、青いジーンズと白い運動靴を履いています。"
    "髪は茶色で長いです。"
)
THAI = "ผู้หญิงสาวสวมเสื้อโค้ทสีแดงเดินไปทางซ้ายสะพายกระเป๋าเป้สีดำสวมกางเกงยีนส์สีน้ำเงินและรองเท้าผ้าใบสีขาวผมยาวสีน้ำตาลถือร่มและกระเป๋าถือ"
FAMILY = "👩🏽‍🦰👨‍👩‍👧‍👦🏳️‍🌈👍🏿"
LONG = {
    "Chinese": CHINESE * 2,
    "Japanese": JAPANESE * 2,
    "Thai": THAI * 2,
    "Chinese without a stop": CHINESE.translate(dict.fromkeys(map(ord, "，。！、"))) * 3,
    "emoji": FAMILY * 12,
    "accents": "e\u0301a\u0308o\u0302n\u0303" * 60,
    "an address": "https://example.org/people/search?" + "&".join(f"part{n}=a%20red%20coat%20{n}" for n in range(40)),
    "one word": "zxqv" * 500,
    "mixed": f"a woman, {CHINESE} and then {'walking ' * 40} {THAI}",
}


@pytest.fixture(scope="module")
def model() -> PersonModel:
    return tbps.load(MODEL)


@pytest.fixture(scope="module")
def gallery(model: PersonModel, tmp_path_factory: pytest.TempPathFactory) -> tbps.Gallery:
    opened = tbps.Gallery.open(tmp_path_factory.mktemp("parts") / "gallery", model)
    opened.add([Image.new("RGB", (40, 90), colour) for colour in ("red", "blue", "green")])
    return opened


def assert_whole(text: str, parts: tuple[str, ...], is_cut: Callable[[str], bool]) -> None:
    """Asserts that each part fits the context, no text is lost, and no grapheme cluster is split."""
    assert all(not is_cut(part) and len(caption_words(part)) <= 77 for part in parts)
    assert "".join("".join(parts).split()) == "".join(text.split())
    joined = [cluster for part in parts for cluster in regex.findall(r"\X", part) if cluster.strip()]
    assert joined == [cluster for cluster in regex.findall(r"\X", text) if cluster.strip()]


@pytest.mark.parametrize("name", LONG)
def test_every_part_fits_the_context_of_the_model(name: str, model: PersonModel) -> None:
    text, reader = LONG[name], TextReader.open(MODEL)
    assert reader is not None and model.is_cut(text)
    parts = split_long(text, model)
    assert split_long(text, reader) == parts and len(parts.texts) > 1
    assert_whole(text, parts.texts, model.is_cut)


def test_sentences_and_clauses_of_scripts_without_spaces_are_kept_together(model: PersonModel) -> None:
    parts = split_long(CHINESE * 2, model)
    assert all(part[-1] in "，。！、" for part in parts.texts)
    assert parts.within_words is False and "within words" not in str(parts.notice)


def test_the_notice_mentions_that_a_word_was_split(model: PersonModel) -> None:
    parts = split_long("zxqv" * 500, model)
    expected = "the description is longer than the model reads at once; "
    assert (
        parts.notice == f"{expected}{len(parts.texts)} parts of it were averaged; it was split within words, where it has no spaces"
    )
    assert split_long("a woman in a red coat", model).notice is None


def test_a_grapheme_cluster_is_split_only_if_it_does_not_fit(model: PersonModel) -> None:
    text = "e" + "\u0301\u0308" * 300
    parts = split_long(text, model)
    assert "".join(parts.texts) == text and not any(map(model.is_cut, parts.texts))


@settings(max_examples=25, deadline=None)
@given(st.text(st.sampled_from("读一个，。 กำ้ ab.,;\n👍🏿e\u0301&/"), max_size=400))
def test_any_mixture_of_scripts_is_split_without_loss(text: str) -> None:
    model = _reader()
    if not any(c.isalnum() for c in text):
        return
    parts = split_long(text, model).texts
    assert all(not model.is_cut(part) for part in parts)
    assert [c for part in parts for c in part if c.isalpha()] == [c for c in text if c.isalpha()]


_opened: list[TextReader] = []


def _reader() -> TextReader:
    if not _opened:
        found = TextReader.open(MODEL)
        assert found is not None
        _opened.append(found)
    return _opened[0]


def test_find_and_search_read_the_end_of_a_description_without_spaces(gallery: tbps.Gallery, model: PersonModel) -> None:
    text = LONG["Chinese"]
    page = gallery.find(Query(texts=(Text(text=text),)))
    parts = split_long(text, model)
    assert page.notices == (parts.notice,)
    mean = model.encode_texts(parts.texts).astype(np.float64).mean(0)
    scores = gallery_rows(gallery) @ (mean / np.linalg.norm(mean))
    assert [hit.score for hit in page.hits] == pytest.approx(sorted(scores, reverse=True), abs=1e-5)
    assert [(hit.id, hit.score) for hit in gallery.search(text)] == [(hit.id, pytest.approx(hit.score)) for hit in page.hits]


def gallery_rows(gallery: tbps.Gallery) -> np.ndarray:
    return tbps.load(MODEL).encode_images([Image.new("RGB", (40, 90), colour) for colour in ("red", "blue", "green")])


def test_explanations_cover_all_parts_with_a_notice(gallery: tbps.Gallery) -> None:
    asked = Query(texts=(Text(text=LONG["Chinese"]),))
    hit = gallery.find(asked).hits[0]
    told = gallery.explain(asked, hit.id)
    assert "".join(word.word for word in told.words) == LONG["Chinese"]
    assert len(told.notices) == 1 and told.as_dict()["notices"] == list(told.notices)
    assert told.score == pytest.approx(hit.score, abs=1e-4)


def test_the_command_line_prints_the_notice(
    gallery: tbps.Gallery, tmp_path: Path, run_tbps: Callable[..., tuple[int, str, str]]
) -> None:
    code, shown, messages = run_tbps("search", gallery.path, LONG["Thai"], "--json")
    page = json.loads(shown)[0]
    assert code == 0 and page["notices"] and f"note: {page['notices'][0]}" in messages
    _, _, messages = run_tbps("explain", gallery.path, LONG["Thai"], "--id", page["hits"][0]["id"], "--out", tmp_path / "why.png")
    assert "note: the description is longer than the model reads at once" in messages
