"""The call chain from the path of a picture to its row has at most ten functions in at most five files and returns to no file."""

import ast
import sys
import threading
from itertools import groupby
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import tbps
from tbps.gallery.gallery import Gallery
from tests.support.colour_encoder import ColourEncoder, write_pictures

# As in docs/explanation/architecture.md: each function is called by one above it; the calls begin in this order.
WALK = (
    ("gallery/gallery.py", "Gallery.add"),
    ("gallery/ingest/sources/find.py", "find_sources"),
    ("gallery/ingest/sources/find.py", "_Found.add_folder"),
    ("gallery/ingest/sources/find.py", "_Found.add_file"),
    ("gallery/ingest/ingest.py", "ingest"),
    ("gallery/ingest/ingest.py", "add_pictures"),
    ("gallery/ingest/ingest.py", "read_picture"),
    ("gallery/ingest/commits.py", "Writer.add"),
    ("gallery/ingest/commits.py", "Writer.commit"),
    ("gallery/store/table.py", "Table.append"),
)
SOURCE = Path(tbps.__file__).parent


def _functions(file: str) -> dict[str, ast.FunctionDef]:
    """Qualified name -> definition, of the functions and methods of a file."""
    tree = ast.parse((SOURCE / file).read_text(encoding="utf-8"))
    found = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    for owner in (node for node in tree.body if isinstance(node, ast.ClassDef)):
        found |= {f"{owner.name}.{node.name}": node for node in owner.body if isinstance(node, ast.FunctionDef)}
    return found


def test_the_call_chain_is_short_and_enters_no_file_twice() -> None:
    files = [file for file, _ in groupby(file for file, _ in WALK)]
    assert len(WALK) <= 10 and len(files) <= 5 and len(files) == len(set(files))


def test_each_function_is_called_by_one_before_it() -> None:
    named: set[str] = set()
    for file, name in WALK:
        definition = _functions(file)[name]
        assert not named or name.rpartition(".")[2] in named
        named |= {node.id for node in ast.walk(definition) if isinstance(node, ast.Name)}
        named |= {node.attr for node in ast.walk(definition) if isinstance(node, ast.Attribute)}


def test_adding_a_picture_calls_these_functions_in_order(tmp_path: Path) -> None:
    """Records all calls, also those of reader threads, while a folder with one picture is added."""
    write_pictures(tmp_path / "photos", 1)
    gallery = Gallery.open(tmp_path / "gallery", ColourEncoder())
    places = {(str(SOURCE / file), name): number for number, (file, name) in enumerate(WALK)}
    order: list[int] = []

    def watch(frame: FrameType, event: str, argument: Any) -> None:
        code: CodeType = frame.f_code
        place = places.get((code.co_filename, code.co_qualname))
        if event == "call" and place is not None and place not in order:
            order.append(place)

    threading.setprofile(watch)
    sys.setprofile(watch)
    try:
        gallery.add(tmp_path / "photos")
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    assert order == list(range(len(WALK)))
