"""Indexing and searching with a model folder like openai/clip-vit-base-patch16, written by transformers.

Scores are compared with those of the tokenizer and towers of transformers, on pixels normalised with NumPy.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

PEOPLE = Path(__file__).parents[1] / "people"
NAMES = [f"person_{number}.jpg" for number in (1, 2, 3, 4)]
QUERY = "a woman in a red coat"
MEAN, DEVIATION = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
PREPROCESSOR = {
    "crop_size": {"height": 64, "width": 64},
    "do_center_crop": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": MEAN,
    "image_std": DEVIATION,
    "resample": 3,
    "size": {"shortest_edge": 64},
}


def _byte_characters() -> list[str]:
    """The 256 characters that represent bytes in OpenAI's vocabulary, in its order."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("\xa1"), ord("\xac") + 1), *range(ord("\xae"), ord("\xff") + 1)]
    return [chr(byte) for byte in printable] + [chr(256 + number) for number in range(256 - len(printable))]


@pytest.fixture(scope="module")
def openai_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("openai")
    characters = _byte_characters()
    merges = [("r", "e"), ("re", "d</w>"), ("c", "o"), ("co", "a"), ("coa", "t</w>"), ("i", "n</w>")]
    pieces = [*characters, *(f"{c}</w>" for c in characters), *("".join(pair) for pair in merges)]
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({piece: number for number, piece in enumerate(pieces)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    end = {"content": "<|endoftext|>", "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    special = {"bos_token": end | {"content": "<|startoftext|>"}, "eos_token": end, "pad_token": "<|endoftext|>", "unk_token": end}
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    settings = {"do_lower_case": True, "errors": "replace", "model_max_length": 77, "tokenizer_class": "CLIPTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    tower = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    # OpenAI's configuration does have the ids 0, 1 and 2, which are not special tokens of the vocabulary.
    tokens = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "vocab_size": len(pieces)}
    config = CLIPConfig(text_config=tower | tokens, vision_config=tower | {"image_size": 64, "patch_size": 16}, projection_dim=32)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        CLIPModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def expected(openai_folder: Path) -> np.ndarray:
    """Cosine similarities of the query and the four photographs, computed with transformers."""
    pictures = [Image.open(PEOPLE / name).convert("RGB").resize((64, 64), Image.Resampling.BICUBIC) for name in NAMES]
    pixels = (np.stack([np.asarray(picture) for picture in pictures]) / 255 - MEAN) / DEVIATION
    tokens = CLIPTokenizer.from_pretrained(openai_folder)(QUERY, return_tensors="pt")
    with torch.no_grad():
        output = CLIPModel.from_pretrained(openai_folder)(
            input_ids=tokens["input_ids"], pixel_values=torch.tensor(pixels, dtype=torch.float32).permute(0, 3, 1, 2)
        )
    return (output.image_embeds @ output.text_embeds.T)[:, 0].numpy()


@pytest.fixture
def tbps(run: Callable[..., tuple[int, str, str]]) -> Callable[..., str]:
    """Function that runs a command, asserts that it succeeds and returns its standard output."""

    def succeed(*arguments: object) -> str:
        code, out, err = run(*arguments)
        assert code == 0, err
        return out

    return succeed


def test_photographs_are_indexed_searched_filtered_and_drawn(
    tbps: Callable[..., str], openai_folder: Path, expected: np.ndarray, tmp_path: Path
) -> None:
    gallery, metadata = tmp_path / "gallery", tmp_path / "metadata.jsonl"
    rows = [
        {"file_name": name, "camera": "gate" if number > 2 else "lobby", "age": 10 * number} for number, name in enumerate(NAMES, 1)
    ]
    metadata.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "4 added" in tbps("index", PEOPLE, "--gallery", gallery, "--model", openai_folder, "--metadata", metadata)

    for name in NAMES:
        [result] = json.loads(tbps("search", gallery, "--image", PEOPLE / name, "-k", 2, "--json"))
        assert result["hits"][0]["source"] == name
        assert result["hits"][0]["score"] == pytest.approx(1, abs=1e-5) and result["hits"][1]["score"] < 0.9999

    [result] = json.loads(tbps("search", gallery, QUERY, "--json"))
    assert {hit["source"]: hit["score"] for hit in result["hits"]} == pytest.approx(
        dict(zip(NAMES, expected.tolist(), strict=True)), abs=1e-5
    )
    sheet = tmp_path / "hits.png"
    arguments = ("--where", "camera = 'gate' and age < 40", "--json", "--sheet", sheet)
    [result] = json.loads(tbps("search", gallery, QUERY, *arguments))
    assert [hit["source"] for hit in result["hits"]] == NAMES[2:3]
    with Image.open(sheet) as drawn:
        assert np.asarray(drawn.convert("L")).std() > 5
