"""A gallery of drawn people, a service of it in a thread, and Chromium."""

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
    """The path of a Chromium; without one the test is skipped or, where `TBPS_BROWSER=required`, fails."""
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
    """Chromium without its sandbox, which root cannot use."""
    path = chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


def draw_people(folder: Path) -> Path:
    """Draw people: two crops of each on one camera and two on the next, a second apart within a tracklet."""
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
    """The address of a service of a gallery."""
    with listening(Service(gallery, model, ServiceSettings.parse({"shutdown": 1, "timeout": 3000, **settings}))) as address:
        yield address


def indexed(people: Path, gallery: Path, model: PersonModel) -> Gallery:
    opened = Gallery.open(gallery, model)
    opened.add(people)
    return opened
