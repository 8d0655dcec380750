"""Gallery of drawn people, its service in a thread, and Chromium, for tests of the browser page."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

from tbps.data.mannequins.writing import SplitSize, write_mannequins
from tbps.gallery.gallery import Gallery
from tbps.model.bundle import PersonModel
from tbps.server.service import Service
from tbps.server.settings import ServiceSettings
from tests.support.served import listening

PEOPLE, CROPS = 13, 4
HOSTILE = '<img src=x onerror="window.hacked = true">'
CAMERAS = ("lobby", "yard", '<b onclick="window.hacked = true">gate</b>')
REQUIRED = "TBPS_BROWSER"


def chromium() -> str:
    """Path of Chromium. Without Chromium the test is skipped or, if `TBPS_BROWSER=required`, fails."""
    named = os.environ.get("TBPS_CHROMIUM")
    found = named or next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        reason = "no Chromium: `apt-get install chromium`, or name one in TBPS_CHROMIUM"
        if os.environ.get(REQUIRED) == "required":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@contextmanager
def browsing() -> Iterator[Browser]:
    """Runs Chromium without its sandbox, which does not work for root."""
    path = chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


def draw_people(folder: Path) -> Path:
    """Draw four crops per person: a tracklet of two crops on one camera and one on the next; crops of a tracklet are 1 s apart."""
    write_mannequins(folder, {"test": SplitSize(PEOPLE, CROPS)}, seed=5, workers=1)
    seen = dict[int, int]()
    lines = []
    for line in map(json.loads, (folder / "metadata.jsonl").read_text().splitlines()):
        person = line["identity"]
        crop = seen[person] = seen.get(person, -1) + 1
        lines.append(
            {
                "file_name": line["file_name"],
                "identity": f"p{person}",
                "camera": CAMERAS[(person + crop // 2) % len(CAMERAS)],
                "captured_at": f"2024-05-{1 + person:02d}T08:3{crop // 2}:0{crop % 2}",
                "tracklet": f"t{person}-{crop // 2}",
                "frame": 25 * (crop % 2),
                "note": HOSTILE,
                **{name: line["attributes"][name] for name in ("gender", "upper.colour", "upper.kind")},
            }
        )
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@contextmanager
def serving(gallery: Path, model: PersonModel, **settings: Any) -> Iterator[str]:
    """Runs the service of a gallery in a thread; yields its URL."""
    with listening(Service(gallery, model, ServiceSettings.parse({"shutdown": 1, "timeout": 3000, **settings}))) as address:
        yield address


def indexed(people: Path, gallery: Path, model: PersonModel) -> Gallery:
    opened = Gallery.open(gallery, model)
    opened.add(people)
    return opened
