"""A data set that a small model learns in seconds."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

COLOURS = {"red": (200, 30, 30), "blue": (30, 30, 200), "green": (30, 160, 40), "yellow": (230, 220, 40)}


@pytest.fixture(scope="session")
def flags(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen people who are two coloured halves each, three pictures a person, in three splits."""
    folder = tmp_path_factory.mktemp("flags")
    rng = np.random.default_rng(0)
    lines = []
    people = [(top, bottom) for top in COLOURS for bottom in COLOURS]
    for split in ("train", "val", "test"):
        for identity, (top, bottom) in enumerate(people):
            for number in range(3):
                pixels = np.zeros((40, 20, 3))
                pixels[:20], pixels[20:] = COLOURS[top], COLOURS[bottom]
                noisy = np.clip(pixels + rng.normal(0, 10, pixels.shape), 0, 255).astype(np.uint8)
                name = f"{split}-{identity}-{number}.png"
                Image.fromarray(noisy).save(folder / name)
                caption = f"a person with a {top} top and {bottom} trousers"
                paraphrase = f"{bottom} trousers and a {top} top are worn"
                row = {"file_name": name, "captions": [caption], "captions_bt": [paraphrase], "split": split}
                lines.append(json.dumps(row | {"identity": f"{split}{identity}"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return folder
