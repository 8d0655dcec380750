"""Resolving paths with one listing per folder, against resolving each component with the file system."""

from pathlib import Path

import pytest

from tbps.data.readers.paths import ImageFolder
from tbps.errors import AnnotationError
from tbps.preprocess.metadata import resolve_inside

NAMES = [
    "a.jpg", "./a.jpg", "sub/a.jpg", "sub//a.jpg", "sub/./a.jpg", "./sub/a.jpg", "sub/deep/b.jpg", "missing.jpg", "nowhere/a.jpg",
    "/a.jpg", "//a.jpg", "../a.jpg", "sub/../a.jpg", "..", ".", "", " ", "  ", "sub/", "sub", "a.jpg/", "a.jpg/b.jpg",
    "C:a.jpg", "c:\\a.jpg", "..\\a.jpg", "sub\\a.jpg", "\0", "a\0.jpg", "sub/\0",
    "link.jpg", "out.jpg", "broken.jpg", "linked/a.jpg", "linked/../a.jpg", "outside/secret.jpg", "loop/a.jpg", "A.JPG",
]  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Files with unusual names, and symbolic links: inside, to the outside, broken and circular."""
    root, outside = tmp_path / "images", tmp_path / "outside"
    for folder in (root / "sub" / "deep", outside):
        folder.mkdir(parents=True)
    for file in ("a.jpg", "sub/a.jpg", "sub/deep/b.jpg", " ", "C:a.jpg", "..\\a.jpg", "sub\\a.jpg", "../outside/secret.jpg"):
        (root / file).touch()
    (root / "link.jpg").symlink_to("sub/a.jpg")
    (root / "linked").symlink_to("sub")
    (root / "out.jpg").symlink_to(outside / "secret.jpg")
    (root / "outside").symlink_to(outside)
    (root / "broken.jpg").symlink_to("nothing.jpg")
    (root / "loop").symlink_to("loop")
    return root


def outcome(find, *given) -> str:
    try:
        return str(find(*given))
    except AnnotationError as error:
        return f"refused: {error}"


@pytest.mark.parametrize("through_link", [False, True])
def test_paths_equal_those_resolved_link_by_link(root: Path, tmp_path: Path, through_link: bool) -> None:
    if through_link:
        (tmp_path / "way").symlink_to(root)
        root = tmp_path / "way"
    folder = ImageFolder(root)
    expected = {name: outcome(resolve_inside, root, name) for name in NAMES}
    assert {name: outcome(folder.resolve, name) for name in NAMES} == expected
    assert len({value for value in expected.values() if not value.startswith("refused")}) > 8
    assert sum(value.startswith("refused") for value in expected.values()) > 12


def test_paths_agree_for_a_relative_and_a_missing_root(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    for place in (Path(), Path("sub"), Path("nowhere")):
        folder = ImageFolder(place)
        assert [outcome(folder.resolve, name) for name in NAMES] == [outcome(resolve_inside, place, name) for name in NAMES]


def test_a_file_that_appears_later_is_found(root: Path) -> None:
    folder = ImageFolder(root)
    folder.resolve("a.jpg")
    (root / "later.jpg").touch()
    assert folder.resolve("later.jpg") == (root / "later.jpg").resolve()
