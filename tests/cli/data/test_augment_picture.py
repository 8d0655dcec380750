from pathlib import Path

import numpy as np
from PIL import Image
from typer.testing import CliRunner

from tbps.cli import app
from tbps.data.augment.image import METHODS


def test_the_image_has_a_row_per_method_and_depends_on_the_seed(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 12, 3), dtype=np.uint8)
    crop, out = tmp_path / "crop.png", tmp_path / "shown.png"
    Image.fromarray(pixels).resize((60, 150)).save(crop)
    sheets = []
    for seed in (0, 1):
        result = CliRunner().invoke(app, ["data", "show-augmentations", str(crop), "--out", str(out), "--seed", str(seed)])
        assert result.exit_code == 0, result.output
        assert f"{len(METHODS) + 1} rows" in result.output
        sheets.append(out.read_bytes())
        with Image.open(out) as sheet:
            assert sheet.format == "PNG"
    assert sheets[0] != sheets[1]
