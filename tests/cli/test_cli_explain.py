"""`tbps explain`."""

from collections.abc import Callable
from pathlib import Path

from PIL import Image

from tbps.gallery.gallery import Gallery
from tbps.model.bundle import load

PEOPLE = Path(__file__).parents[1] / "people"


def test_contributions_of_words_and_an_image_of_regions(
    tmp_path: Path, tiny_model_folder: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    gallery = Gallery.open(tmp_path / "gallery", load(tiny_model_folder))
    gallery.add([PEOPLE / "person_1.jpg"])
    name = gallery.search("a man")[0].id

    def explain(*arguments: str) -> tuple[int, str, str]:
        return run("explain", tmp_path / "gallery", *arguments)

    code, out, _ = explain("a [red] coat", "-backpack", "--id", name, "--out", str(tmp_path / "why.png"))
    assert code == 0
    for word in ("[red]", "coat", "backpack", "score"):
        assert word in out
    with Image.open(tmp_path / "why.png") as picture:
        assert picture.format == "PNG" and picture.height > 400
    for wrong, says in ((["a coat", "--id", "none"], "'none'"), (["a coat", "--id", name, "--out", "why.gif"], ".png")):
        code, _, error = explain(*wrong)
        assert code == 2 and says in error and "Traceback" not in error
