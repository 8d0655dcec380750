"""Takes docs/images/page.png, the README's screenshot of the search page, in Chromium with the gallery of the demo.

    python examples/page_picture.py

Cost: half a minute once the demo's gallery exists, else a few minutes. Needs Chromium on the path.
Result: docs/images/page.png, 1280 x 860 pixels in 256 colours.
"""

import io
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

TBPS = Path(sys.executable).with_name("tbps")
PEOPLE, GALLERY, MODEL = Path("demo/people"), Path("demo/gallery"), "models/mannequin-tiny"
PICTURE = Path("docs/images/page.png")
SIZE = {"width": 1280, "height": 860}
SEEN = "a woman in a red dress"


def make_gallery() -> None:
    """Creates the gallery of `make demo` unless it exists."""
    sizes = ("--train", "0", "--val", "0", "--test", "250", "--images", "4", "--seed", "7")
    subprocess.run([TBPS, "data", "mannequins", str(PEOPLE), *sizes], check=True)
    subprocess.run([TBPS, "index", str(PEOPLE), "--gallery", str(GALLERY), "--model", MODEL], check=True)


@contextmanager
def served() -> Iterator[str]:
    """Runs `tbps serve` and yields its address."""
    with subprocess.Popen([TBPS, "serve", str(GALLERY), "--port", "0"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield re.search(r"http://\S+", process.stdout.readline())[0]  # type: ignore[index]
        finally:
            process.terminate()


def take(address: str) -> bytes:
    """Takes a screenshot of a search with the calibration line and one marked result."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE, color_scheme="light")
        page.goto(address)
        page.locator("#words").fill(SEEN)
        page.locator("#words").press("Enter")
        page.locator(".card[data-id]").first.wait_for()
        page.locator("#words").press("ArrowDown")
        page.keyboard.press("r")
        page.wait_for_load_state("networkidle")
        return page.screenshot()


def main() -> None:
    make_gallery()
    with served() as address:
        picture = Image.open(io.BytesIO(take(address))).convert("RGB")
    picture.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(PICTURE, optimize=True)
    print(f"{PICTURE}: {PICTURE.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
