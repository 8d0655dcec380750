"""The page in a real browser with the real service of a small gallery; its content is compared with results of the Python API."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, Route, expect

import tbps
from tbps.cli.search import one_in
from tbps.gallery.gallery import Gallery
from tbps.gallery.search.query import Example, Query, Text, phrase
from tbps.server.callers.keys import Keys, Role
from tbps.server.settings import state_folder
from tests.support.page_served import CAMERAS, CROPS, HOSTILE, PEOPLE, browsing, draw_people, indexed, serving

pytestmark = pytest.mark.browser

PAGE = 24
RED = "a woman in a red coat"
MODEL = Path(__file__).parents[3] / "models/mannequin-tiny"

expect.set_options(timeout=300_000)


@dataclass(frozen=True)
class Served:
    """A service without keys, and one with keys on a copy of its gallery. keys: by role; `narrow` sees the lobby only."""

    gallery: Gallery
    people: Path
    open: str
    locked: str
    keys: dict[str, str]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsing() as started:
        yield started


@pytest.fixture(scope="module")
def served(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("page")
    model = tbps.load(str(MODEL))
    people = draw_people(folder / "people")
    gallery = indexed(people, folder / "gallery", model)
    shutil.copytree(folder / "gallery", folder / "locked")
    made = Keys(state_folder(folder / "locked"))
    keys = {role.name: made.add(role.name, role)[0] for role in Role}
    keys["narrow"] = made.add("narrow", Role.curator, (CAMERAS[0],))[0]
    with serving(folder / "gallery", model) as free, serving(folder / "locked", model) as locked:
        yield Served(gallery, people, free, locked, keys)


@pytest.fixture
def opened(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens a page. At the end, asserts no requests to other hosts, no executed script from the data, and no console errors."""
    contexts, problems = [], list[str]()

    def open_page(address: str, **options: Any) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
        context.set_default_timeout(300_000)
        contexts.append(context)
        page = context.new_page()
        host = urlsplit(address).netloc

        def asked(url: str) -> None:
            if urlsplit(url).scheme not in ("blob", "data") and urlsplit(url).netloc != host:
                problems.append(f"asked for {url}")

        page.on("request", lambda request: asked(request.url))
        page.on("pageerror", lambda error: problems.append(str(error)))
        # The browser reports every answer with status 400 or above on its own; tests provoke such answers on purpose.
        page.on(
            "console",
            lambda said: (
                problems.append(said.text) if said.type == "error" and "Failed to load resource" not in said.text else None
            ),
        )
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        for page in context.pages:
            if page.evaluate("window.hacked"):
                problems.append("a value ran as a script")
        context.close()
    assert problems == []


def search(page: Page, words: str) -> None:
    page.locator("#words").fill(words)
    page.locator("#words").press("Enter")
    shown(page)


def shown(page: Page) -> list[str]:
    """Ids of the results, after waiting for them."""
    expect(page.locator("#results")).to_have_attribute("aria-busy", "false")
    expect(page.locator(".card[data-id]").first).to_be_visible()
    return page.locator(".card").evaluate_all("cards => cards.map(card => card.dataset.id)")


def found(served: Served, query: Query, k: int = PAGE) -> list[str]:
    return [hit.id for hit in served.gallery.find(query.model_copy(update={"k": k})).hits]


def text(*phrases: str) -> Query:
    return Query(texts=tuple(map(phrase, phrases)))


def sign_in(page: Page, key: str) -> None:
    page.get_by_label("Access key").fill(key)
    page.get_by_role("button", name="Sign in").click()


# Functions that exist both in JavaScript and in Python


def test_descriptions_are_parsed_as_on_the_command_line(served: Served, opened: Callable[..., Page]) -> None:
    lines = [
        RED,
        "-backpack",
        " -backpack",
        "red coat^2",
        "-hat^1.5",
        "-hat^.25",
        r"\-5 degrees",
        r"a\^2",
        "x^",
        "^3",
        "a^2 b",
        "-a^1",
        "--a",
    ]
    script = """async lines => {
      const { phrase, typed } = await import('/page/query.js');
      return lines.map(phrase).map(read => [read, phrase(typed(read))]);
    }"""
    page = opened(served.open)
    for line, (once, again) in zip(lines, page.evaluate(script, lines), strict=True):
        assert Text.parse(once) == phrase(line)
        assert again == once


def test_chances_are_written_as_on_the_command_line(served: Served, opened: Callable[..., Page]) -> None:
    chances = [0.0, 0.0009, 0.0011, 0.01, 0.2, 0.34, 0.5, 0.51, 0.66, 0.75, 0.99, 1.0]
    script = "async chances => { const m = await import('/page/format.js'); return chances.map(m.oneIn) }"
    assert opened(served.open).evaluate(script, chances) == [one_in(chance) for chance in chances]


def test_scripts_create_no_markup_and_no_inline_code() -> None:
    """The content security policy also forbids inline code; the tests in the browser show that the page works without it."""
    files = [file for file in resources.files("tbps.server").joinpath("page").iterdir() if file.name.endswith((".js", ".html"))]
    assert len(files) > 10
    markup = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser"
    inline = r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=\"|https?://(?!www\.w3\.org/)"
    for file in files:
        found = re.findall(f"{markup}|{inline}", file.read_text())
        assert found == [], file.name


# Search


def test_search_shows_what_the_gallery_finds_and_the_address_contains_the_query(
    served: Served, opened: Callable[..., Page]
) -> None:
    page = opened(served.open)
    expect(page.get_by_role("heading", name="Describe a person, find them")).to_be_visible()
    search(page, RED)
    answer = served.gallery.find(text(RED).model_copy(update={"k": PAGE}))
    assert shown(page) == [hit.id for hit in answer.hits]
    expect(page.locator("#count")).to_have_text(f"{PAGE} of {PEOPLE * CROPS} images, best first")
    page.wait_for_function("[...document.querySelectorAll('.grid img')].slice(0, 8).every(i => i.complete && i.naturalWidth > 0)")
    shares = [f"{round(100 * max(0, hit.score) / answer.hits[0].score)} %" for hit in answer.hits]
    assert page.locator(".score > span:nth-child(2)").all_text_contents() == shares
    address = page.url
    page.reload()
    assert shown(page) == [hit.id for hit in answer.hits]
    assert page.locator("#words").input_value() == RED
    search(page, "a man in jeans")
    page.go_back()
    expect(page.locator("#words")).to_have_value(RED)
    assert page.url == address
    assert shown(page) == [hit.id for hit in answer.hits]


def test_the_line_is_at_the_position_of_the_calibration(served: Served, opened: Callable[..., Page]) -> None:
    best = max(
        (served.gallery.find(text(words)) for words in (RED, "a man in jeans", "a woman in a blue dress")),
        key=lambda page: page.line.hits if page.line else 0,
    )
    words = next(words for words in (RED, "a man in jeans", "a woman in a blue dress") if served.gallery.find(text(words)) == best)
    assert best.line is not None
    page = opened(served.open)
    search(page, words)
    before = page.locator(".line").evaluate("line => [...line.parentElement.children].indexOf(line)")
    assert before == best.line.hits
    expect(page.locator(".line")).to_contain_text(one_in(best.line.share))
    assert page.locator(".chance").first.text_content() == one_in(best.hits[0].chance or 0)


def test_several_wanted_and_avoided_descriptions(served: Served, opened: Callable[..., Page]) -> None:
    page = opened(served.open)
    search(page, f'"{RED}" "-backpack"')
    assert page.locator("#words").input_value() == RED
    page.get_by_role("button", name="Add a description", exact=True).click()
    page.keyboard.type("white shoes^2")
    page.keyboard.press("Enter")
    expect(page.locator("#parts .chip-text")).to_have_count(2)
    page.wait_for_url(re.compile("white"))
    assert shown(page) == found(served, text(RED, "-backpack", "white shoes^2"))
    page.get_by_role("button", name="Remove backpack").click()
    page.wait_for_function("!location.hash.includes('backpack')")
    assert shown(page) == found(served, text(RED, "white shoes^2"))


def test_filters_are_shown_as_chips(served: Served, opened: Callable[..., Page]) -> None:
    page = opened(served.open)
    search(page, RED)
    page.get_by_role("button", name="Camera", exact=True).click()
    for camera in CAMERAS[1:]:
        page.get_by_role("checkbox", name=camera).check()
    page.keyboard.press("Escape")
    expect(page.locator("#filter-chips .chip")).to_have_count(2)
    page.wait_for_url(re.compile("gate"))
    query = text(RED).model_copy(update={"cameras": CAMERAS[1:]})
    assert shown(page) == found(served, query)
    page.get_by_role("button", name="Time", exact=True).click()
    page.get_by_label("From (UTC)").fill("2024-05-05T00:00:00")
    page.get_by_role("button", name="Apply").click()
    expect(page.locator("#filter-chips .chip")).to_have_count(3)
    query = query.model_copy(update={"since": "2024-05-05T00:00:00"})
    assert shown(page) == found(served, query)
    page.get_by_role("button", name="More filters").click()
    page.get_by_label("Column", exact=True).select_option("gender")
    page.get_by_label("Value", exact=True).fill("woman")
    page.get_by_role("button", name="Add filter").click()
    expect(page.locator("#filter-chips .chip")).to_have_count(4)
    assert shown(page) == found(served, query.model_copy(update={"equals": {"gender": "woman"}}))
    page.get_by_role("button", name=f"Remove the filter: camera {CAMERAS[2]}").click()
    expect(page.locator("#filter-chips .chip")).to_have_count(3)
    expect(page.locator("#filter-chips button").first).to_be_focused()
    narrowed = query.model_copy(update={"equals": {"gender": "woman"}, "cameras": CAMERAS[1:2]})
    assert shown(page) == found(served, narrowed)


def test_no_result_and_a_wrong_condition_offer_a_way_out(served: Served, opened: Callable[..., Page]) -> None:
    page = opened(f"{served.open}/#q=a+woman&is=gender%3Dnobody")
    expect(page.get_by_role("heading", name="No image matches these filters")).to_be_visible()
    page.get_by_role("button", name="Remove all filters").click()
    assert shown(page) == found(served, text("a woman"))
    page.goto(f"{served.open}/#q=a+woman&where=no_such_column+%3D+1")
    expect(page.get_by_role("alert").filter(has_text="no_such_column")).to_be_visible()
    page.get_by_role("button", name="Remove all filters").click()
    shown(page)


def test_whole_numbers_beyond_2_to_the_53_keep_their_digits(served: Served, opened: Callable[..., Page]) -> None:
    page = opened(f"{served.open}/")
    text = r'{"a": [9007199254740993, -9007199254740993, 7, 1.5, 1e300, 12345678901234567.5e-1],'
    text += r' "b 9007199254740993": "\" 9007199254740993"}'
    read = page.evaluate("async (text) => JSON.stringify((await import('/page/api.js')).exactly(text))", text)
    assert json.loads(read) == {
        "a": ["9007199254740993", "-9007199254740993", 7, 1.5, 1e300, 1234567890123456.75],
        "b 9007199254740993": '" 9007199254740993',
    }


def test_more_results_of_the_same_version(served: Served, opened: Callable[..., Page]) -> None:
    page = opened(f"{served.open}/#q=a+person")
    first = shown(page)
    page.get_by_role("button", name="More results").scroll_into_view_if_needed()
    before = page.evaluate("scrollY")
    with page.expect_request("**/v1/search") as asked:
        page.get_by_role("button", name="More results").click()
    assert asked.value.post_data_json["version"] == served.gallery.find(text("a person")).version
    expect(page.locator("#count")).to_have_text(f"{2 * PAGE} of {PEOPLE * CROPS} images, best first")
    assert page.evaluate("scrollY") == before
    assert shown(page) == found(served, text("a person"), 2 * PAGE)
    assert shown(page)[:PAGE] == first
    page.locator(".crop").nth(30).focus()
    before = page.evaluate("scrollY")
    page.keyboard.press("m")
    page.wait_for_url(re.compile("like="))
    page.go_back()  # whether or not the answer has arrived
    expect(page.locator(".card")).to_have_count(2 * PAGE)
    assert page.evaluate("scrollY") == before > 0
    page.get_by_role("button", name="More results").click()
    expect(page.locator("#count")).to_have_text(f"{PEOPLE * CROPS} images, best first")
    expect(page.get_by_role("button", name="More results")).to_have_count(0)


def test_one_row_per_person(served: Served, opened: Callable[..., Page]) -> None:
    page = opened(f"{served.open}/#q=a+person")
    shown(page)
    page.get_by_label("Show", exact=True).select_option("identity")
    expect(page.locator(".row")).to_have_count(PEOPLE)
    groups = [hit.group for hit in served.gallery.find(Query(texts=(Text(text="a person"),), group="identity", k=PAGE)).hits]
    assert page.locator(".row strong").all_text_contents() == [f"identity {group.value}" for group in groups if group]
    for row, group in zip(page.locator(".row").all()[:3], groups, strict=False):
        assert group is not None
        ids = row.locator(".card").evaluate_all("cards => cards.map(card => card.dataset.id)")
        assert ids[0] == group.ids[0]
        assert set(ids) == set(group.ids)


# Feedback


def test_marked_results_search_again(served: Served, opened: Callable[..., Page]) -> None:
    page = opened(f"{served.open}/#q=a+person")
    ids = shown(page)
    page.locator(".crop").first.focus()
    page.keyboard.press("r")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("w")
    expect(page.locator("#marks-text")).to_have_text("1 right, 1 wrong")
    expect(page.locator(".card").nth(1).locator(".crop")).to_have_attribute("aria-label", re.compile("marked as wrong"))
    with page.expect_request("**/v1/feedback"):
        page.keyboard.press("s")
    page.wait_for_url(re.compile(f"right={ids[0]}"))
    query = text("a person").model_copy(update={"right": (ids[0],), "wrong": (ids[1],)})
    expect(page.locator(".card.is-right")).to_have_count(1)
    assert shown(page) == found(served, query)
    expect(page.locator("#parts")).to_contain_text("1 result right")
    assert page.evaluate("document.activeElement.className") == "crop"
    page.reload()
    assert shown(page) == found(served, query)


def test_more_like_this(served: Served, opened: Callable[..., Page]) -> None:
    page = opened(f"{served.open}/#q=a+person&is=gender%3Dwoman")
    chosen = shown(page)[2]
    page.locator(".crop").nth(2).focus()
    page.keyboard.press("m")
    page.wait_for_url(re.compile(f"like={chosen}"))
    expect(page.locator(".card").first).to_have_attribute("data-id", chosen)
    assert shown(page) == found(served, Query(like=(Example(id=chosen),), equals={"gender": "woman"}))


def test_search_with_a_picture_chosen_or_dropped(served: Served, opened: Callable[..., Page]) -> None:
    picture = sorted((served.people / "images").iterdir())[7]
    page = opened(served.open)
    expect(page.locator(".start")).to_be_visible()
    page.locator("#picture-files").set_input_files(picture)
    first = served.gallery.find(Query(), [picture]).hits[0].id
    expect(page.locator(".card[data-id]").first).to_have_attribute("data-id", first)
    expect(page.locator("#parts")).to_contain_text("A link to this search does not contain the picture")
    page.reload()
    expect(page.get_by_role("heading", name="The picture is missing")).to_be_visible()
    bytes_of = list(picture.read_bytes())
    script = """bytes => {
      const data = new DataTransfer();
      data.items.add(new File([new Uint8Array(bytes)], 'p.jpg', { type: 'image/jpeg' }));
      for (const kind of ['dragenter', 'drop']) {
        document.body.dispatchEvent(new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true }));
      }
    }"""
    page.evaluate(script, bytes_of)
    expect(page.locator(".card[data-id]").first).to_have_attribute("data-id", first)


# One result


def test_detail_view_with_its_timeline(served: Served, opened: Callable[..., Page]) -> None:
    page = opened(f"{served.open}/#q=a+person")
    first, second = shown(page)[:2]
    page.locator(".crop").first.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Result 1")
    members = served.gallery.tracklet(str(served.gallery.image(first).attributes["tracklet"]))
    expect(dialog.locator(".moment")).to_have_count(len(members))
    expect(dialog.locator(".moment[aria-current] img")).to_have_attribute("src", f"/v1/images/{first}")
    assert [f"/v1/images/{member.id}" for member in members] == dialog.locator(".moment img").evaluate_all(
        "all => all.map(i => i.getAttribute('src'))"
    )
    expect(dialog).to_contain_text(HOSTILE)  # as text
    assert f"show={first}" in page.url
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("dialog", name="Result 2")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("dialog[open]")).to_have_count(0)
    page.wait_for_url(re.compile("#q=a\\+person$"))
    assert page.evaluate("document.activeElement.closest('.card').dataset.id") == second
    page.goto(f"{served.open}/#q=a+person&show={first}")
    page.reload()
    expect(page.get_by_role("dialog", name="Result 1")).to_be_visible()


def test_why_a_result_was_found(served: Served, opened: Callable[..., Page]) -> None:
    """Display of an explanation; the answer of the service is replaced by a known one."""
    told = {
        "score": 0.4,
        "words": [
            {"text": "a red coat", "word": word, "weight": weight} for word, weight in (("a", 0.0), ("red", 0.2), ("coat", -0.1))
        ],
        "regions": {"rows": 2, "columns": 1, "weights": [[1.0], [0.0]]},
    }
    page = opened(served.open)
    page.route("**/v1/explain", lambda route: route.fulfill(json=told))
    search(page, "a red coat")
    page.locator(".crop").first.click()
    with page.expect_request("**/v1/explain") as asked:
        page.keyboard.press("e")
    assert Query.parse(asked.value.post_data_json["query"]).texts == (Text(text="a red coat"),)
    expect(page.locator(".word")).to_have_text(["a (0 %) ", "red (100 %) ", "coat (lowered the score, 50 %) "])
    assert page.locator(".regions").evaluate(
        "c => [...c.getContext('2d').getImageData(0, 0, 1, 2).data].filter((_, i) => i % 4 == 3)"
    ) == [0, 180]
    page.get_by_label("Highlight the regions").uncheck()
    expect(page.locator(".regions")).to_be_hidden()


def test_the_explanation_is_that_of_the_gallery(served: Served, opened: Callable[..., Page]) -> None:
    page = opened(served.open)
    search(page, "a woman in a red coat")
    name = shown(page)[0]
    page.locator(".crop").first.click()
    page.keyboard.press("e")
    told = served.gallery.explain(Query(texts=(Text(text="a woman in a red coat"),)), name)
    expect(page.locator(".word")).to_have_count(6)
    titles = page.locator(".word").evaluate_all("words => words.map(word => word.title)")
    assert [float(title) for title in titles] == pytest.approx([word.weight for word in told.words], abs=2e-3)
    expect(page.locator("figcaption")).to_contain_text("Highlighted: regions that raised the score (6")


# Signing in, adding, forgetting


def test_nothing_is_shown_without_a_key_and_a_key_shows_its_cameras(served: Served, opened: Callable[..., Page]) -> None:
    page = opened(f"{served.locked}/#q=a+person")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    expect(page.locator("#search")).to_be_hidden()
    sign_in(page, "no such key")
    expect(page.locator("#signin-error")).to_contain_text("no such key")
    sign_in(page, served.keys["narrow"])
    cameras = {served.gallery.image(name).camera for name in shown(page)}
    assert cameras == {CAMERAS[0]}  # the address was kept
    page.get_by_role("button", name="Account").click()
    expect(page.locator("#account-role")).to_have_text(f"Can search and add images; sees only {CAMERAS[0]}.")
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert CAMERAS[0] not in page.content()
    assert "person" not in page.url
    page.goto(f"{served.locked}/#q=a+person")
    page.reload()
    sign_in(page, served.keys["viewer"])
    shown(page)
    expect(page.get_by_role("button", name="Add images")).to_be_hidden()
    page.locator(".crop").first.click()
    expect(page.locator(".moment").first).to_be_visible()
    expect(page.get_by_role("button", name="Erase…")).to_have_count(0)
    page.context.clear_cookies()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    expect(page.locator(".card")).to_have_count(0)


def test_adding_images_shows_progress_and_names_what_was_skipped(
    served: Served, opened: Callable[..., Page], tmp_path: Path
) -> None:
    new = draw_people_anew(served, tmp_path)
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    page = opened(served.locked)
    sign_in(page, served.keys["curator"])
    expect(page.locator(".holds")).to_contain_text(f"{PEOPLE * CROPS} images")
    page.get_by_role("button", name="Add images").click()
    page.locator("#index-files").set_input_files([*new, tmp_path / "broken.jpg"])
    page.get_by_label("Camera", exact=True).fill("cellar")
    page.get_by_role("button", name="Add to the gallery").click()
    job = page.locator("#jobs li").first
    expect(job).to_contain_text("2 images added")
    expect(job.locator("summary")).to_have_text("1 file skipped")
    job.locator("summary").click()
    expect(job).to_contain_text("broken.jpg")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Camera", exact=True).click()
    page.get_by_role("checkbox", name="cellar").check()
    page.keyboard.press("Escape")
    search(page, "a person")
    assert len(shown(page)) == 2


def test_a_job_under_way_shows_its_progress_and_can_be_cancelled(served: Served, opened: Callable[..., Page]) -> None:
    """Display of a running job, and the request of its button; the answers of the service are replaced."""
    job = {
        **{"id": "a/b", "state": "running", "done": 30, "total": 120, "rate": 4.5, "seconds_left": 20.0, "added": 28},
        **{"skipped": [{"name": HOSTILE, "reason": "is no picture"}], "message": "", "created_at": "2024-05-01T08:00:00"},
    }
    page = opened(served.open)
    page.route("**/v1/index", lambda route: route.fulfill(json={"jobs": [job]}))
    page.route("**/v1/index/*", lambda route: route.fulfill(json={**job, "state": "cancelled"}))
    page.reload()
    page.get_by_role("button", name="Indexing 25 %").click()
    shown_job = page.locator("#jobs li").first
    expect(shown_job).to_contain_text("30 of 120 · 4.5 per second · 20 seconds left · 28 images added")
    expect(shown_job.get_by_role("progressbar")).to_have_js_property("value", 30)
    shown_job.locator("summary").click()
    expect(shown_job).to_contain_text(HOSTILE)
    with page.expect_request("**/v1/index/a%2Fb") as asked:
        shown_job.get_by_role("button", name="Cancel").click()
    assert asked.value.method == "DELETE"


def draw_people_anew(served: Served, folder: Path) -> list[Path]:
    """Two pictures that are not in the gallery: mirrored copies of its own."""
    from PIL import Image, ImageOps

    made = []
    for number, picture in enumerate(sorted((served.people / "images").iterdir())[:2]):
        made.append(folder / f"new-{number}.jpg")
        ImageOps.mirror(Image.open(picture)).save(made[-1])
    return made


def test_erasing_counts_first_and_asks(served: Served, opened: Callable[..., Page]) -> None:
    page = opened(f"{served.locked}/#q=a+person&is=identity%3Dp3")
    sign_in(page, served.keys["administrator"])
    assert len(shown(page)) == CROPS
    page.locator(".crop").first.click()
    page.get_by_role("button", name="Erase…").click()
    expect(page.locator("#forget-count")).to_have_text("1 image will be erased.")
    page.get_by_label("All images of identity p3").check()
    expect(page.locator("#forget-count")).to_have_text(f"{CROPS} images will be erased.")
    page.get_by_role("button", name="Cancel").click()
    page.keyboard.press("Escape")
    assert len(shown(page)) == CROPS
    page.locator(".crop").first.click()
    page.get_by_role("button", name="Erase…").click()
    page.get_by_label("All images of identity p3").check()
    page.get_by_role("button", name=f"Erase {CROPS} images").click()
    expect(page.get_by_role("heading", name="No image matches these filters")).to_be_visible()


# The rest


def test_saved_searches_survive_a_reload(served: Served, opened: Callable[..., Page]) -> None:
    page = opened(f"{served.open}/#q=a+person&is=gender%3Dwoman&group=identity")
    shown(page)
    page.get_by_role("button", name="Saved").click()
    page.get_by_label("Save this search as").fill(HOSTILE)
    page.get_by_role("button", name="Save", exact=True).click()
    page.goto(f"{served.open}/#")
    page.reload()
    page.get_by_role("button", name="Saved").click()
    page.locator("#saved-list").get_by_role("button", name=HOSTILE, exact=True).click()
    page.wait_for_url(re.compile("gender%3Dwoman"))
    expect(page.locator(".row").first).to_be_visible()
    page.get_by_role("button", name="Saved").click()
    page.get_by_role("button", name=f"Delete {HOSTILE}").click()
    expect(page.locator("#saved-list li")).to_have_count(0)


def test_requests_to_a_busy_service_are_repeated_and_a_lost_connection_is_shown(
    served: Served, opened: Callable[..., Page]
) -> None:
    page = opened(served.open)
    tries = []

    def busy_once(route: Route) -> None:
        tries.append(1)
        error = {"error": {"code": "busy", "message": "too many requests"}}
        route.fulfill(status=503, headers={"Retry-After": "1"}, json=error) if len(tries) == 1 else route.continue_()

    page.route("**/v1/search", busy_once)
    page.locator("#words").fill(RED)
    page.locator("#words").press("Enter")
    expect(page.locator("#count")).to_contain_text("The service is busy. Trying again in 1 s")
    assert shown(page) == found(served, text(RED))
    page.route("**/v1/search", lambda route: route.abort())
    page.locator("#words").fill("a man")
    page.locator("#words").press("Enter")
    expect(page.get_by_role("heading", name="No connection")).to_be_visible()
    page.unroute("**/v1/search")
    page.get_by_role("button", name="Try again").click()
    assert shown(page) == found(served, text("a man"))


def test_everything_without_a_mouse(served: Served, opened: Callable[..., Page]) -> None:
    page = opened(served.open)
    keys = page.keyboard
    expect(page.locator("#words")).to_be_focused()
    keys.press("Escape")
    keys.press("/")
    keys.type("a person")
    keys.press("Enter")
    ids = shown(page)
    keys.press("ArrowDown")
    columns = page.evaluate("getComputedStyle(document.querySelector('.grid')).gridTemplateColumns.split(' ').length")

    def at() -> str:
        return str(page.evaluate("document.activeElement.closest('.card')?.dataset.id"))

    assert at() == ids[0]
    keys.press("ArrowRight")
    assert at() == ids[1]
    lined = page.locator(".line").count() and page.locator(".line").evaluate(
        "line => [...line.parentElement.children].indexOf(line)"
    )
    if not 0 < lined < 1 + columns:  # no line within the first rows: the one below stands `columns` further
        keys.press("ArrowDown")
        assert at() == ids[1 + columns]
        keys.press("ArrowUp")
    keys.press("End")
    assert at() == ids[-1]
    keys.press("Home")
    keys.press("Tab")
    assert page.evaluate("document.activeElement.dataset.mark") == "right"
    keys.press("Space")
    expect(page.locator(".card.is-right")).to_have_count(1)
    keys.press("Shift+Tab")
    keys.press("?")
    expect(page.get_by_role("dialog", name="Keyboard")).to_be_visible()
    keys.press("Escape")
    assert at() == ids[0]
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    keys.press("Enter")
    expect(page.get_by_role("dialog", name="Result 1")).to_be_visible()
    keys.press("w")
    expect(page.locator("#detail [data-mark=wrong]")).to_have_attribute("aria-pressed", "true")
    keys.press("Escape")
    expect(page.locator(".card.is-wrong")).to_have_count(1)
    assert at() == ids[0]


def test_every_control_has_a_name_and_every_colour_contrast(served: Served, opened: Callable[..., Page]) -> None:
    nameless = """() => [...document.querySelectorAll('button, input, select, a, progress, dialog, [role]')]
      .filter(e => !['listbox', 'list', 'status', 'alert'].includes(e.getAttribute('role')) && e.type !== 'hidden')
      .filter(e => !(e.getAttribute('aria-label') || e.getAttribute('aria-labelledby') || e.labels?.length || e.textContent.trim()))
      .map(e => e.outerHTML)"""
    for scheme in ("light", "dark"):
        page = opened(f"{served.open}/#q=a+person&q=-hat&is=gender%3Dwoman", color_scheme=scheme)
        shown(page)
        page.locator(".crop").first.click()
        expect(page.locator(".moment").first).to_be_visible()
        assert page.evaluate(nameless) == []
        names = ["ground", "surface", "text", "soft", "accent", "on-accent", "accent-soft", "right", "wrong", "on-mark", "sunken"]
        script = """names => {
          const style = getComputedStyle(document.documentElement);
          return Object.fromEntries(names.map(name => [name, style.getPropertyValue(`--${name}`).trim()]));
        }"""
        colours = page.evaluate(script, names)
        pairs = [(front, back) for front in ("text", "soft", "accent", "wrong", "right") for back in ("ground", "surface")]
        pairs += [
            ("on-accent", "accent"),
            ("on-mark", "right"),
            ("on-mark", "wrong"),
            ("text", "accent-soft"),
            ("text", "sunken"),
            ("soft", "sunken"),
            ("soft", "accent-soft"),
        ]
        weak = {pair: round(contrast(colours[pair[0]], colours[pair[1]]), 2) for pair in pairs}
        assert {pair: value for pair, value in weak.items() if value < 4.5} == {}, scheme


def contrast(front: str, back: str) -> float:
    """WCAG 2.2's contrast ratio of two colours such as #1a2b3c."""

    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        red, green, blue = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    light, dark = sorted((luminance(front), luminance(back)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_a_search_right_after_a_result_is_closed(served: Served, opened: Callable[..., Page]) -> None:
    """Closing goes back in the history, which takes time; a search during that time must not be lost."""
    page = opened(f"{served.open}/#q=a+person")
    page.locator("#results[aria-busy=false] button.crop").first.click()
    expect(page.locator("#detail")).to_be_visible()
    page.evaluate("""() => document.getElementById("detail").addEventListener("close", () => {
      document.getElementById("words").value = "a green coat";
      document.getElementById("search").requestSubmit();
    }, { once: true })""")
    page.keyboard.press("Escape")
    expect(page).to_have_url(re.compile(r"green"))
    expect(page.locator("#results[aria-busy=false] .crop").first).to_be_visible()
    page.wait_for_timeout(300)
    expect(page).to_have_url(re.compile(r"green"))
    page.go_back()
    expect(page).to_have_url(re.compile(r"#q=a\+person$"))


STICKING_OUT = """element => [...element.querySelectorAll("*")]
    .filter(part => part.getBoundingClientRect().right > element.getBoundingClientRect().left + element.clientWidth)
    .map(part => `${part.tagName}.${part.className}`)"""


def test_nothing_overflows_a_narrow_window(served: Served, opened: Callable[..., Page]) -> None:
    page = opened(served.open, viewport={"width": 360, "height": 640}, has_touch=True)

    def fits(what: str, within: str = "html") -> None:
        element = page.locator(within)
        assert element.evaluate("it => it.scrollWidth <= it.clientWidth"), f"{what} is too wide: {element.evaluate(STICKING_OUT)}"

    expect(page.locator(".start")).to_be_visible()
    fits("start")
    search(page, f'"{RED}" "-backpack" "{"long " * 90}"')
    fits("results")
    expect(page.locator("#notices")).to_contain_text("longer than the model reads at once")
    page.locator(".crop").first.click()
    expect(page.locator(".moment").first).to_be_visible()
    fits("page behind the detail")
    fits("detail", "#detail")
    page.keyboard.press("Escape")
    expect(page).to_have_url(re.compile(r"#q=(?!.*show=)"))  # wait for the history, or the next address would be lost
    page.goto(f"{served.open}/#q=a+person&group=tracklet&camera={CAMERAS[0]}")
    expect(page.locator(".row").first).to_be_visible()
    fits("rows")
    page.get_by_role("button", name="Add images").click()
    fits("indexing", "#indexing")
