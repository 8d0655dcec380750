"""The NumPy text tower has the embeddings, fingerprint and truncation of the whole model, without importing torch."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tbps.errors import CaptionError
from tbps.model.bundle import PersonModel, load
from tbps.model.text_reader import TextReader

TINY = Path(__file__).parents[2] / "models/mannequin-tiny"
CAPTIONS = [
    "A woman in a red coat, with a black backpack.",
    "x",
    "man",
    "an \u00fcberlong caf\u00e9 \u2014 \u201ccurly\u201d &amp; \U0001f600 " + "people's clothes 12345 " * 9,
    " ".join(f"word{number}" for number in range(70)),
    "he  wears\tgrey trousers and it's raining",
]


@pytest.fixture(params=["bundled", "quick_gelu", "gelu", "half"])
def folder(request: pytest.FixtureRequest, tiny_model_folder: Path, tmp_path: Path) -> Path:
    if request.param == "bundled":
        return TINY
    model = load(tiny_model_folder)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(0)
        for parameter in model.clip.parameters():  # biases are initialised with 0, norms with 1
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    model.clip.config.text_config.hidden_act = "gelu" if request.param == "gelu" else "quick_gelu"
    PersonModel(model.clip, model.tokenizer, model.spec, "made").save(tmp_path, half=request.param == "half")
    return tmp_path


def test_embeddings_fingerprint_and_truncation_equal_those_of_the_whole_model(folder: Path) -> None:
    whole, reader = load(folder), TextReader.open(folder)
    assert reader is not None
    # float32 sums are added in another order, over at most 192 channels and six layers.
    np.testing.assert_allclose(reader.encode_texts(CAPTIONS), whole.encode_texts(CAPTIONS), atol=1e-6)
    assert reader.encode_texts(CAPTIONS).dtype == np.float32
    assert [reader.is_cut(text) for text in CAPTIONS] == [whole.is_cut(text) for text in CAPTIONS]
    assert any(whole.is_cut(text) for text in CAPTIONS)
    assert reader.fingerprint == whole.fingerprint
    assert (reader.name, reader.dim, reader.context_length, reader.spec) == (
        whole.name,
        whole.dim,
        whole.context_length,
        whole.spec,
    )


def test_images_are_encoded_by_the_whole_model() -> None:
    picture = Image.new("RGB", (40, 90), (200, 30, 30))
    reader = TextReader.open(TINY)
    assert reader is not None
    assert np.array_equal(reader.encode_images([picture]), load(TINY).encode_images([picture]))


def test_an_empty_list_and_an_empty_caption() -> None:
    reader = TextReader.open(TINY)
    assert reader is not None
    assert reader.encode_texts([]).shape == (0, reader.dim)
    with pytest.raises(CaptionError):
        reader.encode_texts(["..."])


@pytest.mark.parametrize("damage", ["no tokenizer", "no weights", "broken weights", "activation", "broken tokenizer", "no json"])
def test_unsupported_folders_are_left_to_the_whole_model(damage: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(TINY, tmp_path / "model"))
    weights, tokenizer, config = (folder / name for name in ("model.safetensors", "tokenizer.json", "config.json"))
    if damage == "activation":
        values = json.loads(config.read_text())
        values["text_config"]["hidden_act"] = "relu"
        config.write_text(json.dumps(values))
    else:
        file = {"tokenizer": tokenizer, "weights": weights, "json": config}[damage.split()[1]]
        if damage.startswith("broken"):
            file.write_bytes(file.read_bytes()[:1000])
        else:
            file.unlink()
    assert TextReader.open(folder) is None


def test_reading_descriptions_loads_no_torch() -> None:
    code = """
import sys
from pathlib import Path
from tbps.model import TextReader
reader = TextReader.open(Path(sys.argv[1]))
assert reader.encode_texts(["a woman in a red coat"]).shape == (1, reader.dim)
sys.exit("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code, str(TINY)], check=False).returncode == 0
