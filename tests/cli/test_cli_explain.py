"""`tbps explain` through the program's own entry."""

import sys
from pathlib import Path

import pytest
from PIL import Image

from tbps.cli import main
from tbps.model.bundle import load
from tbps.search.gallery import Gallery

PEOPLE = Path(__file__).parents[1] / "people"


def test_words_with_their_parts_and_a_picture(
    tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gallery = Gallery.open(tmp_path / "gallery", load(tiny_model_folder))
    gallery.add([PEOPLE / "person_1.jpg"])
    name = gallery.search("a man")[0].id

    def explain(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tbps", "explain", str(tmp_path / "gallery"), *arguments])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        return code, *capsys.readouterr()

    code, out, _ = explain("a [red] coat", "-backpack", "--id", name, "--out", str(tmp_path / "why.png"))
    assert code == 0
    for word in ("[red]", "coat", "backpack", "score"):
        assert word in out
    with Image.open(tmp_path / "why.png") as picture:
        assert picture.format == "PNG" and picture.height > 400
    for wrong, says in ((["a coat", "--id", "none"], "'none'"), (["a coat", "--id", name, "--out", "why.gif"], ".png")):
        code, _, error = explain(*wrong)
        assert code == 2 and says in error and "Traceback" not in error
