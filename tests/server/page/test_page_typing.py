# ruff: noqa: F811 (fixtures of test_page are parameters here)
"""The page in a real browser: unsent text is kept by every action, and the page recovers from failures."""

import re
import time
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, Route, expect

from tests.server.page.test_page import RED, Served, browser, found, opened, search, served, shown, sign_in, text  # noqa: F401 (fixtures among them)
from tests.support.page_served import CAMERAS, PEOPLE

pytestmark = pytest.mark.browser

Open = Callable[..., Page]
JOB = {
    **{"id": "a", "state": "running", "done": 30, "total": 120, "rate": 4.5, "seconds_left": 20.0, "added": 28},
    **{"skipped": [], "message": "", "created_at": "2024-05-01T08:00:00"},
}


def type_avoided(page: Page, words: str = "backpack") -> None:
    """Type a description to avoid without sending it."""
    page.get_by_role("button", name="Add a description to avoid").click()
    page.keyboard.type(words)
    expect(page.locator("#entry")).to_have_value(words)


def until_kept(page: Page, part: str, words: str) -> None:
    """Wait until the state of the history contains the typed text, a moment after the last key."""
    until = time.monotonic() + 300
    while page.evaluate(f"history.state?.draft?.{part}") != words:
        assert time.monotonic() < until
        page.wait_for_timeout(20)


def test_an_unsent_description_is_part_of_the_next_search(served: Served, opened: Open) -> None:
    page = opened(served.open)
    search(page, "a person")
    type_avoided(page)
    page.get_by_role("button", name="Search", exact=True).click()
    page.wait_for_url(re.compile("q=-backpack"))
    assert shown(page) == found(served, text("a person", "-backpack"))
    expect(page.locator("#parts .chip.avoid")).to_contain_text("backpack")
    expect(page.locator("#entry")).to_be_hidden()
    page.get_by_role("button", name="Add a description", exact=True).click()
    page.keyboard.type("white shoes")
    page.locator("#words").fill(RED)
    page.locator("#words").press("Enter")
    page.wait_for_url(re.compile("white"))
    assert shown(page) == found(served, text(RED, "-backpack", "white shoes"))


def tick(page: Page, camera: str) -> None:
    page.get_by_role("button", name="Camera", exact=True).click()
    page.get_by_role("checkbox", name=camera).check()


def since(page: Page, moment: str) -> None:
    page.get_by_role("button", name="Time", exact=True).click()
    page.get_by_label("From (UTC)").fill(moment)
    page.get_by_role("button", name="Apply").click()


def more_like(page: Page) -> None:
    page.locator(".crop").first.focus()
    page.keyboard.press("m")


def mark(page: Page) -> None:
    page.locator(".crop").first.focus()
    page.keyboard.press("r")
    page.keyboard.press("s")


ACTIONS: dict[str, tuple[Callable[[Page], None], str]] = {
    "a camera": (lambda page: tick(page, CAMERAS[1]), "camera=yard"),
    "a time": (lambda page: since(page, "2024-05-02T00:00:00"), "since=2024"),
    "rows": (lambda page: page.get_by_label("Show", exact=True).select_option("identity") and None, "group=identity"),
    "re-ranking": (lambda page: page.get_by_label("Re-rank").check(), "rerank=100"),
    "another chip": (lambda page: page.get_by_role("button", name="Remove blue hat").click(), "q=a\\+person&q=-"),
    "more like this": (more_like, "like="),
    "marks": (mark, "right="),
    "another line": (lambda page: page.get_by_role("button", name="Add a description", exact=True).click(), "q=-umbrella"),
}


@pytest.mark.parametrize("name", ACTIONS)
def test_an_unsent_description_is_part_of_every_other_action(name: str, served: Served, opened: Open) -> None:
    act, told = ACTIONS[name]
    page = opened(f"{served.open}/#q=a+person&q=blue+hat")
    shown(page)
    type_avoided(page, "umbrella")
    act(page)
    page.wait_for_url(re.compile(told))
    assert "q=-umbrella" in page.url
    expect(page.locator("#parts .chip.avoid")).to_contain_text("umbrella")
    expect(page.locator(".card[data-id]").first).to_be_visible()


def test_a_saved_search_includes_an_unsent_description_to_avoid(served: Served, opened: Open) -> None:
    page = opened(f"{served.open}/#q=a+person&is=gender%3Dwoman")
    shown(page)
    page.get_by_role("button", name="Saved").click()
    page.get_by_label("Save this search as").fill("women")
    page.get_by_role("button", name="Save", exact=True).click()
    page.keyboard.press("Escape")
    type_avoided(page, "umbrella")
    page.get_by_role("button", name="Saved").click()
    page.locator("#saved-list").get_by_role("button", name="women", exact=True).click()
    page.wait_for_url(re.compile("q=-umbrella"))
    assert "gender%3Dwoman" in page.url


def test_choosing_a_camera_keeps_all_fields_and_the_focus(served: Served, opened: Open) -> None:
    page = opened(served.open)
    expect(page.locator(".holds")).to_be_visible()
    page.locator("#words").fill("a man in a blue jacket")
    page.get_by_role("button", name="Time", exact=True).click()
    page.get_by_label("Before (UTC)").fill("2024-06-01T00:00:00")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="More filters").click()
    page.get_by_label("Column", exact=True).select_option("gender")
    page.get_by_label("Value", exact=True).fill("wom")
    page.get_by_label("Condition").fill("camera = 'ya")
    page.keyboard.press("Escape")
    tick(page, CAMERAS[1])
    page.wait_for_url(re.compile("camera=yard"))
    expect(page.locator("#words")).to_have_value("a man in a blue jacket")
    assert "q=a+man+in+a+blue+jacket" in page.url  # the search uses the text in the box
    expect(page.get_by_role("checkbox", name=CAMERAS[1])).to_be_focused()
    for field, value in (("until", "2024-06-01T00:00"), ("column", "gender"), ("column-value", "wom"), ("where", "camera = 'ya")):
        assert page.locator(f"#{field}").input_value().removesuffix(":00") == value.removesuffix(":00")
    expect(page.locator(".card[data-id]").first).to_be_visible()
    tick_again = page.get_by_role("checkbox", name=CAMERAS[0])
    tick_again.check()
    page.wait_for_url(re.compile("camera=lobby"))
    expect(tick_again).to_be_focused()


def test_text_typed_while_results_arrive_stays(served: Served, opened: Open) -> None:
    page = opened(served.open)
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.route("**/v1/search", hold)
    page.locator("#words").fill("a person")
    page.locator("#words").press("Enter")
    expect(page.locator("#results")).to_have_attribute("aria-busy", "true")
    page.keyboard.type(" with a hat")
    until_kept(page, "words", "a person with a hat")
    held[0].continue_()
    shown(page)
    expect(page.locator("#words")).to_have_value("a person with a hat")
    expect(page.locator("#words")).to_be_focused()


def test_going_back_and_reloading_restore_unsent_text(served: Served, opened: Open) -> None:
    page = opened(served.open)
    search(page, "a person")
    page.locator("#words").fill("a person who was not")
    page.get_by_role("button", name="Add a description to avoid").click()
    page.keyboard.type("umbr")
    until_kept(page, "entry?.line", "umbr")
    page.reload()
    shown(page)
    expect(page.locator("#words")).to_have_value("a person who was not")
    expect(page.locator("#entry")).to_have_value("umbr")
    page.keyboard.press("Escape")
    page.goto(f"{served.open}/#q={RED.replace(' ', '+')}")
    expect(page.locator("#words")).to_have_value(RED)
    page.go_back()
    expect(page.locator("#words")).to_have_value("a person who was not")
    expect(page.locator("#entry")).to_have_value("umbr")


def test_keys_of_an_input_method_editor_are_ignored(served: Served, opened: Open) -> None:
    page = opened(f"{served.open}/#q=a+person")
    shown(page)
    page.get_by_role("button", name="Add a description", exact=True).click()
    page.keyboard.type("背")
    script = """id => {
      for (const key of ["Enter", "Escape", "ArrowDown"]) {
        const pressed = new KeyboardEvent("keydown", { key, isComposing: true, bubbles: true, cancelable: true });
        document.getElementById(id).dispatchEvent(pressed);
      }
    }"""
    page.evaluate(script, "entry")
    expect(page.locator("#entry")).to_have_value("背")
    expect(page.locator("#entry")).to_be_focused()
    page.locator("#words").focus()
    page.evaluate(script, "words")
    expect(page.locator("#words")).to_be_focused()
    assert "%E8%83%8C" not in page.url


def test_escape_closes_a_description_and_a_blank_one_closes_itself(served: Served, opened: Open) -> None:
    page = opened(f"{served.open}/#q=a+person&q=-hat")
    shown(page)
    type_avoided(page)
    page.keyboard.press("Escape")
    expect(page.locator("#entry")).to_be_hidden()
    expect(page.get_by_role("button", name="Add a description to avoid")).to_be_focused()
    page.get_by_role("button", name="Add a description", exact=True).click()
    page.locator("#words").click()
    expect(page.locator("#entry")).to_be_hidden()
    page.get_by_role("button", name="Change: avoided, hat").click()
    expect(page.locator("#entry")).to_have_value("-hat")
    page.keyboard.press("End")
    page.keyboard.type(" and scarf")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"q=a\+person&q=-hat\+and\+scarf$"))


def test_an_unknown_camera_is_refused_and_can_be_removed(served: Served, opened: Open) -> None:
    """The page shows the service's error and buttons that correct the search."""
    page = opened(f"{served.open}/#q=a+person")
    shown(page)
    told = "no image has the camera 'lobbi'; did you mean 'lobby'?"

    def refuse(route: Route) -> None:
        error = {"error": {"code": "query", "message": told}}
        route.fulfill(status=400, json=error) if "lobbi" in (route.request.post_data or "") else route.continue_()

    page.route("**/v1/search", refuse)
    page.goto(f"{served.open}/#q=a+person&camera=lobbi")
    expect(page.get_by_role("alert").filter(has_text="did you mean 'lobby'?")).to_be_visible()
    expect(page.locator(".card")).to_have_count(0)
    expect(page.locator("#filter-chips")).to_contain_text("lobbi")
    page.set_viewport_size({"width": 360, "height": 640})
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    for button in page.locator(".message button").all():
        box = button.bounding_box()
        assert box and box["x"] >= 0 and box["x"] + box["width"] <= 360
    page.get_by_role("button", name="Search without camera lobbi").click()
    assert shown(page) == found(served, text("a person"))
    expect(page.get_by_role("alert").filter(has_text="lobbi")).to_have_count(0)


@pytest.mark.parametrize(
    ("wrong", "told", "way_out"),
    [
        ("camera=lobbi", "did you mean 'lobby'?", "Search without camera lobbi"),
        ("group=trackle", "did you mean 'tracklet'?", "Show single images"),
        ("since=yesterday", "'yesterday'", "Remove all filters"),
    ],
)
def test_a_mistyped_link_is_refused_and_can_be_corrected(served: Served, opened: Open, wrong: str, told: str, way_out: str) -> None:
    page = opened(f"{served.open}/#q=a+person&{wrong}")
    expect(page.get_by_role("alert").filter(has_text=told)).to_be_visible()
    expect(page.locator(".card[data-id]")).to_have_count(0)
    page.get_by_role("button", name=way_out).click()
    assert shown(page) == found(served, text("a person"))


@pytest.mark.parametrize("failure", ["abort", "500", "503", "no JSON"])
def test_progress_continues_after_failed_requests(failure: str, served: Served, opened: Open) -> None:
    page = opened(served.open)
    answers = [JOB, failure, failure, {**JOB, "done": 90}, {**JOB, "done": 120, "state": "done"}]

    def answer(route: Route) -> None:
        now = answers.pop(0) if len(answers) > 1 else answers[0]
        if now == "abort":
            route.abort()
        elif now == "no JSON":
            route.fulfill(body="<html>gateway</html>", content_type="text/html")
        elif isinstance(now, str):
            route.fulfill(status=int(now), headers={"Retry-After": "1"}, json={"error": {"code": "x", "message": "a problem"}})
        else:
            route.fulfill(json={"jobs": [now]})

    page.route("**/v1/index", answer)
    page.reload()
    page.locator("#open-indexing").click()
    expect(page.locator("#jobs-error")).to_contain_text("trying again")
    expect(page.locator("#jobs li").first).to_contain_text("120")  # the last known state stays
    expect(page.locator("#jobs li").first).to_contain_text("Done")
    expect(page.locator("#jobs-error")).to_be_empty()
    expect(page.locator("#index-error")).to_be_empty()
    expect(page.locator("#indexing-label")).to_have_text("Add images")


def test_progress_continues_after_signing_in_again(served: Served, opened: Open) -> None:
    page = opened(served.locked)
    page.route("**/v1/index", lambda route: route.fulfill(json={"jobs": [JOB]}))
    sign_in(page, served.keys["curator"])
    expect(page.locator("#indexing-label")).to_have_text("Indexing 25 %")
    page.route("**/v1/index", lambda route: route.fulfill(status=401, json={"error": {"code": "key", "message": "sign in"}}))
    page.context.clear_cookies()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    page.route("**/v1/index", lambda route: route.fulfill(json={"jobs": [{**JOB, "done": 60}]}))
    sign_in(page, served.keys["curator"])
    expect(page.locator("#indexing-label")).to_have_text("Indexing 50 %")


def test_the_content_of_the_gallery_is_requested_until_it_arrives(served: Served, opened: Open) -> None:
    page = opened(served.open)
    tries: list[int] = []

    def twice_lost(route: Route) -> None:
        tries.append(1)
        route.abort() if len(tries) < 3 else route.continue_()

    page.route("**/v1/gallery", twice_lost)
    page.reload()
    expect(page.locator(".holds")).to_contain_text("images")
    page.get_by_role("button", name="Camera", exact=True).click()
    expect(page.get_by_role("checkbox", name=CAMERAS[1])).to_be_visible()
    assert len(tries) >= 3


def test_errors_are_shown_in_place_and_disappear_after_success(served: Served, opened: Open) -> None:
    page = opened(f"{served.open}/#q=a+person")
    shown(page)
    page.route("**/detail", lambda route: route.abort())
    page.locator(".crop").first.click()
    problem = page.locator("#detail .problem")
    expect(problem).to_contain_text("cannot be reached")
    page.unroute("**/detail")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#detail .facts-list").first).to_be_visible()
    expect(problem).to_have_count(0)
    page.route("**/v1/explain", lambda route: route.abort())
    page.keyboard.press("e")
    expect(problem).to_contain_text("cannot be reached")
    page.unroute("**/v1/explain")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".word").first).to_be_visible()
    expect(problem).to_have_count(0)
    page.keyboard.press("Escape")
    page.route("**/v1/search", lambda route: route.abort())
    page.get_by_role("button", name="More results").click()
    expect(page.locator("#further .problem")).to_be_visible()
    page.unroute("**/v1/search")
    page.locator("#further").get_by_role("button", name="Try again").click()
    expect(page.locator("#count")).to_contain_text(f"48 of {PEOPLE * 4}")
    expect(page.locator("#further .problem")).to_have_count(0)
