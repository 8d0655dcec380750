"""The call chain from the text of a query to its scores has few functions in few files and returns to no file."""

import sys
from pathlib import Path
from types import FrameType
from typing import Any

from tbps.gallery.gallery import Gallery
from tests.support.colour_encoder import ColourEncoder, write_pictures

SOURCE = Path(__file__).parents[3] / "src" / "tbps"
WALK = [
    ("gallery/gallery.py", "Gallery.search"),
    ("gallery/gallery.py", "Gallery.find"),
    ("gallery/search/compose.py", "compose"),
    ("gallery/encoder.py", "Encoder.encode_texts"),
    ("gallery/search/find.py", "find"),
    ("gallery/search/find.py", "_Search.ranking"),
    ("gallery/store/version.py", "Version.top"),
    ("gallery/store/version.py", "ExactIndex.ranked"),
]


def _order_of_files(walk: list[tuple[str, str]]) -> list[str]:
    files = [file for file, _ in walk]
    return [file for at, file in enumerate(files) if at == 0 or files[at - 1] != file]


def test_a_search_calls_these_functions_in_order(tmp_path: Path) -> None:
    write_pictures(tmp_path / "photos", 3)
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    gallery.add(tmp_path / "photos")
    called: list[tuple[str, str]] = []

    def record(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            name = "Encoder.encode_texts" if frame.f_code.co_qualname == "ColourEncoder.encode_texts" else frame.f_code.co_qualname
            called.append(("gallery/encoder.py" if name.startswith("Encoder.") else frame.f_code.co_filename, name))

    sys.setprofile(record)
    try:
        gallery.search("a man")
    finally:
        sys.setprofile(None)
    steps = [(file.removeprefix(f"{SOURCE}/"), name) for file, name in called]
    assert [step for step in steps if step in WALK] == WALK


def test_the_call_chain_is_short_and_enters_no_file_twice() -> None:
    files = _order_of_files(WALK)
    assert len(WALK) <= 8 and len(files) <= 5 and len(files) == len(set(files))
