"""Commands import only what they need, so that they start quickly."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import tbps

MODEL = Path(__file__).parents[2] / "models/mannequin-tiny"
HEAVY = {
    "torch",
    "transformers",
    "lancedb",
    "matplotlib",
    "kornia",
    "tensorboard",
    "scipy",
    "sklearn",
    "pandas",
    "peft",
    "cv2",
    "av",
}
SHOW = "import sys; print('LOADED', *sorted({name.partition('.')[0] for name in sys.modules}))"


def loaded_by(code: str) -> set[str]:
    done = subprocess.run([sys.executable, "-c", f"{code}\n{SHOW}"], capture_output=True, text=True, check=True)
    return set(done.stdout.rpartition("LOADED ")[2].split())


def by_command(*arguments: str) -> set[str]:
    return loaded_by(
        f"from tbps.cli import app\ntry:\n    app({list(arguments)!r})\nexcept SystemExit as end:\n    assert not end.code"
    )


@pytest.mark.parametrize("arguments", [["--help"], ["search", "--help"], ["train", "--help"]])
def test_help_imports_no_large_package(arguments: list[str]) -> None:
    assert not by_command(*arguments) & (HEAVY | {"numpy", "PIL", "pyarrow"})


def test_importing_tbps_imports_no_large_package() -> None:
    assert not loaded_by("import tbps") & (HEAVY | {"numpy", "PIL", "pyarrow"})


def test_search_by_description_does_not_import_torch(tmp_path: Path) -> None:
    gallery = tbps.Gallery.open(tmp_path / "gallery", tbps.load(MODEL))
    gallery.add([Image.new("RGB", (40, 90), colour) for colour in ("red", "blue")])
    found = by_command("search", str(tmp_path / "gallery"), "a woman in a red coat")
    assert "lancedb" in found
    assert not found & (HEAVY - {"lancedb"})
