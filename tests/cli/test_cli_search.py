"""`tbps search`."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tbps.gallery.gallery import Gallery
from tbps.model.bundle import load
from tbps.preprocess.image import open_image

PEOPLE = Path(__file__).parents[1] / "people"
NAMES = [f"person_{number}.jpg" for number in (1, 2, 3, 4)]
Search = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("search") / "gallery"
    metadata = [{"camera": f"[red]{n}", "captured_at": f"2024-05-0{n}", "age": n * 10} for n in (1, 2, 3, 4)]
    Gallery.open(folder, load(tiny_model_folder)).add([PEOPLE / name for name in NAMES], metadata)
    return folder


@pytest.fixture
def search(run: Search, gallery: Path) -> Search:
    """Function that runs `tbps search` on the gallery; returns exit code, standard output, standard error."""
    return lambda *arguments, folder=gallery: run("search", folder, *arguments)


def test_the_table_shows_rank_score_source_and_camera(search: Search) -> None:
    code, out, _ = search("a woman in a red coat")
    assert code == 0
    for text in ("a woman in a red coat", "rank", "score", "captured at", *NAMES, "[red]3", "2024-05-04T00:00:00"):
        assert text in out


def test_json_equals_scores_computed_without_the_gallery(search: Search, tiny_model_folder: Path) -> None:
    model = load(tiny_model_folder)
    images = model.encode_images([open_image(PEOPLE / name) for name in NAMES])
    queries = ["a woman in a red coat", "a man with a black backpack"]
    code, out, _ = search(*queries, "-k", 3, "--each", "--json")
    assert code == 0
    results = json.loads(out)
    assert [result["query"] for result in results] == queries
    for result, scores in zip(results, model.encode_texts(queries) @ images.T, strict=True):
        order = np.argsort(-scores)[:3]
        assert [hit["source"] for hit in result["hits"]] == [NAMES[n] for n in order]
        assert [hit["score"] for hit in result["hits"]] == pytest.approx(scores[order].tolist(), abs=1e-5)
        assert [hit["attributes"] for hit in result["hits"]] == [{"age": (int(n) + 1) * 10} for n in order]


def test_an_image_query_finds_the_same_image_first(search: Search) -> None:
    for name in NAMES:
        code, out, _ = search("--image", PEOPLE / name, "--json")
        hit = json.loads(out)[0]["hits"][0]
        assert code == 0 and hit["source"] == name and hit["score"] == pytest.approx(1, abs=1e-5)
        assert hit["path"] == str(PEOPLE / name)


def test_a_filter_may_leave_no_image(search: Search) -> None:
    _, out, _ = search("someone", "--json", "--where", "age >= 20 and captured_at < '2024-05-04'")
    assert sorted(hit["source"] for hit in json.loads(out)[0]["hits"]) == NAMES[1:3]
    code, out, _ = search("someone", "--where", "age > 99")
    assert code == 0 and "no image passes the filter" in out


def test_a_note_names_filtered_cameras_without_images(search: Search) -> None:
    code, out, err = search("someone", "--where", "camera = '[red]22' or age = 30")
    assert code == 0 and NAMES[2] in out and "note: no camera '[red]22'; did you mean '[red]2'?" in err
    assert "no camera" not in search("someone", "--where", "camera = '[red]2'")[2]


def test_descriptions_are_combined_into_one_query(search: Search, tiny_model_folder: Path) -> None:
    model = load(tiny_model_folder)
    images = model.encode_images([open_image(PEOPLE / name) for name in NAMES])
    coat, bag, hat = model.encode_texts(["a red coat", "backpack", "- hat"]).astype(float)
    wanted = 2 * coat - 0.5 * bag + hat
    scores = images @ (wanted / np.linalg.norm(wanted))
    code, out, _ = search("a red coat^2", "-backpack", r"\- hat", "-k4", "--json")
    (result,) = json.loads(out)
    assert code == 0
    assert [hit["score"] for hit in result["hits"]] == pytest.approx(sorted(scores, reverse=True), abs=1e-5)
    assert [hit["source"] for hit in result["hits"]] == [NAMES[n] for n in np.argsort(-scores)]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--camera", "[red]2", "--camera", "[red]3"], NAMES[1:3]),
        (["--since", "2024-05-02", "--until", "2024-05-04"], NAMES[1:3]),
        (["--is", "age=30"], NAMES[2:3]),
        (["--is", "age=30", "--where", "age > 30"], []),
    ],
)
def test_conditions_as_options(options: list[str], expected: list[str], search: Search) -> None:
    code, out, _ = search("someone", *options, "--json")
    assert code == 0 and sorted(hit["source"] for hit in json.loads(out)[0]["hits"]) == expected


def test_ids_of_hits_can_be_used_in_the_next_query(search: Search) -> None:
    first = json.loads(search("a man", "--json")[1])[0]["hits"]
    for hit in first:
        assert json.loads(search("--like", hit["id"], "--json")[1])[0]["hits"][0]["source"] == hit["source"]
    marked = json.loads(search("a man", "--right", first[3]["id"], "--wrong", first[0]["id"], "--json")[1])[0]["hits"]
    rank = {hit["source"]: hit["rank"] for hit in marked}
    assert rank[first[3]["source"]] < rank[first[0]["source"]]


def test_pages_and_groups_in_the_table(search: Search) -> None:
    whole = json.loads(search("a man", "--json")[1])[0]["hits"]
    page = json.loads(search("a man", "-k", 2, "--offset", 1, "--json")[1])[0]
    assert page["hits"] == whole[1:3] and page["next"]["offset"] == 3 and page["total"] == 4
    code, out, _ = search("a man", "--group", "camera", "--rerank")
    assert code == 0 and "first" in out and "seen" in out and "2024-05-01" in out.replace("\n", "")


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_the_contact_sheet_shows_the_hits(suffix: str, search: Search, tmp_path: Path) -> None:
    code, _, err = search("a woman", "a man", "-k", 2, "--each", "--sheet", tmp_path / f"out/hits.{suffix}")
    assert code == 0 and "contact sheet" in err
    with Image.open(tmp_path / f"out/hits.{suffix}") as sheet:
        assert sheet.width > 300 and sheet.height > 2 * 224
        assert np.asarray(sheet.convert("L")).std() > 20


def test_a_contact_sheet_too_large_for_its_format_is_refused(search: Search, tmp_path: Path) -> None:
    code, _, err = search(*["x"] * 60, "--each", "--sheet", tmp_path / "hits.webp")  # WebP holds up to 16,383 pixels
    assert code == 2 and re.search(r"error: a contact sheet of \d+ x \d+ pixels is too large for \.webp", err)
    assert not (tmp_path / "hits.webp").exists()


def test_control_characters_in_a_query_are_escaped(search: Search) -> None:
    code, out, _ = search("a\x1b[2J woman\u0007 \udce9")
    assert code == 0
    assert "\x1b[2J" not in out and "a\\x1b[2J woman\\x07" in out


def test_a_notice_mentions_that_a_query_exceeds_the_context(search: Search) -> None:
    assert "parts of it were averaged" in search("word " * 200)[2]
    assert "parts" not in search("a word")[2]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "no query"),
        (["   "], "the query has no word"),
        (["x", "--where", "colour = 'red'"], "unknown column 'colour'. Columns: id (text)"),
        (["x", "--where", "camera ="], "filter 'camera ='"),
        (["--image", "nowhere.jpg"], "nowhere.jpg"),
        (["x", "--sheet", "hits.gif"], "must end in .png, .jpg or .webp"),
        (["-hat"], "nothing is sought"),
        (["x", "-x^1"], "cancel each other out"),
        (["x", "--like", "ffff"], "no image of the gallery has the id 'ffff'"),
        (["x", "--is", "age"], "--is 'age' is not of the form COLUMN=VALUE"),
        (["x", "--is", "age=old"], "column 'age' is a number; 'old' is not a valid number"),
        (["x", "--since", "yesterday"], "column 'captured_at' is a time; 'yesterday' is not"),
        (["x", "--group", "colour"], "unknown column 'colour' to group by"),
        (["x", "--group", "camara"], "unknown column 'camara' to group by; did you mean 'camera'? Columns: id"),
        (["x", "--camera", "[red]2", "--camera", "[rde]3"], "no camera '[rde]3'; did you mean '[red]3'?"),
        (["x", "--camera", "dock"], "no camera 'dock'; there are: [red]1, [red]2"),
        (["x", "--is", "camera=[red]33"], "no camera '[red]33'; did you mean '[red]3'?"),
        (["x", "--is", "agee=3"], "unknown column 'agee'; did you mean 'age'? Columns: id (text)"),
        (["x", "--where", "1+1 > 0"], "arithmetic (+) is not supported"),
        (["x", "--where", "+".join(["1"] * 1000) + " > 0"], "arithmetic (+) is not supported"),
        (["x", "--where", "camera = '\udce9'"], "half of a surrogate pair"),
        (["x", "--is", "camera=\udce9"], "half of a surrogate pair"),
        (["x", "--is", "age=nan"], "column 'age' is a number; 'nan' is not a valid number"),
    ],
)
def test_errors_are_one_line_and_exit_code_2(arguments: list[str], expected: str, search: Search) -> None:
    code, out, err = search(*arguments)
    assert code == 2 and out == ""
    assert err.startswith("error: ") and expected in err and err.count("\n") == 1


def test_the_error_of_a_missing_gallery_says_how_to_create_one(search: Search, tmp_path: Path) -> None:
    code, _, err = search("x", folder=tmp_path / "nowhere")
    assert code == 2 and "tbps index PHOTOS --gallery" in err


def test_the_new_path_of_a_moved_model_is_given_with_an_option(search: Search, tiny_model_folder: Path, tmp_path: Path) -> None:
    model, folder = tmp_path / "model", tmp_path / "gallery"
    shutil.copytree(tiny_model_folder, model)
    Gallery.open(folder, load(model)).add(PEOPLE)
    model.rename(tmp_path / "moved")
    code, _, err = search("x", folder=folder)
    assert code == 2 and "no longer there; say where it is with --model" in err
    assert search("x", "--model", tmp_path / "moved", folder=folder)[0] == 0
