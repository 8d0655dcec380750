"""Parts of a model folder that need no torch: preprocessing, few-shot settings and the fingerprint."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, field_validator, model_validator

from tbps.config import Settings
from tbps.errors import ModelError, SettingsError, TbpsError
from tbps.preprocess.caption import clean_caption
from tbps.preprocess.image import CLIP_MEAN, CLIP_STD, ImageSpec

WEIGHTS = "model.safetensors"
FEW_SHOT = "few_shot.safetensors"
PREPROCESSOR = "preprocessor_config.json"
PROMPT = "text_model.embeddings.token_embedding.vectors"


class FewShotSettings(Settings):
    """Prompt and adapter that are trained while the towers are locked (`tbps.model.few_shot`). Stored as "few_shot" in config.json.

    `prompt` (CoOp): the text whose token embeddings initialise the vectors in front of every caption, one vector per token.
    `adapter_ratio` (CLIP-Adapter): weight of the adapter's output in the image embedding.
    """

    prompt: str | None = None
    """Text that initialises the learned vectors in front of every caption, one vector per token (CoOp); null for no prompt."""
    adapter_ratio: float | None = Field(None, gt=0, le=1)
    """Weight of the learned adapter's output in the image embedding (CLIP-Adapter); null for no adapter."""

    @field_validator("prompt")
    @classmethod
    def _like_a_caption(cls, prompt: str | None) -> str | None:
        return None if prompt is None else clean_caption(prompt)

    @model_validator(mode="after")
    def _something(self) -> "FewShotSettings":
        if self.prompt is None and self.adapter_ratio is None:
            raise SettingsError("few_shot adds nothing; give it a prompt, an adapter_ratio or both, or leave it null")
        return self


def read_few_shot(config: Mapping[str, Any], file: Path) -> FewShotSettings | None:
    """Returns the few-shot settings in the values of a `config.json`, None for plain towers. `file` is named in errors."""
    values = config.get("few_shot")
    try:
        return None if values is None else FewShotSettings.parse(values)
    except TbpsError as error:
        raise ModelError(f"{file}: few_shot: {error}") from error


def prompted(caption: str, few_shot: FewShotSettings | None) -> str:
    """Returns a cleaned caption with the text of the learned prompt in front.

    The learned vectors replace the token embeddings of that text.
    """
    return caption if few_shot is None or few_shot.prompt is None else f"{few_shot.prompt} {caption}"


def read_json(file: Path) -> Any:
    """Reads a JSON file. Raises ModelError that names the file where it cannot be read."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ModelError(f"{file} is not JSON: {error}") from error
    except OSError as error:
        raise ModelError(f"{file} cannot be read ({error.strerror})") from error


def read_spec(folder: Path, image_size: int) -> ImageSpec:
    """Reads the preprocessing of a model folder. Without height and width in the file, images are `image_size` x `image_size`."""
    file = folder / PREPROCESSOR
    values: Any = read_json(file) if file.is_file() else {}
    if not isinstance(values, dict):
        raise ModelError(f"{file} is not a JSON object")
    wanted = values.get("size")
    square = (image_size, image_size)
    height, width = (wanted["height"], wanted.get("width")) if isinstance(wanted, dict) and "height" in wanted else square
    mean, std = values.get("image_mean", CLIP_MEAN), values.get("image_std", CLIP_STD)
    try:
        return ImageSpec.parse({"height": height, "width": width, "mean": mean, "std": std})
    except SettingsError as error:
        raise ModelError(f"{file}: {error}") from error


def preprocessor(spec: ImageSpec) -> dict[str, Any]:
    """Returns the content of `preprocessor_config.json` in the format of transformers."""
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"height": spec.height, "width": spec.width},
        "resample": 3,
        "do_center_crop": False,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(spec.mean),
        "image_std": list(spec.std),
    }


def fingerprint(
    weights: Iterable[tuple[str, np.ndarray]], tokenizer: str, spec: ImageSpec, few_shot: FewShotSettings | None
) -> str:
    """Returns a hash of weights, tokenizer, preprocessing and few-shot settings as 16 hexadecimal digits.

    `tokenizer`: JSON of the tokenizer, as `tokenizers` serialises it.
    """
    digest = hashlib.sha256()
    for name, array in sorted(weights, key=lambda pair: pair[0]):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(array).data)
    # Hash only vocabulary and merges: truncation and padding settings of the tokenizer change with every call.
    pairs = json.loads(tokenizer)["model"]
    digest.update(json.dumps([pairs["vocab"], pairs["merges"]], sort_keys=True).encode())
    digest.update(spec.fingerprint().encode())
    if few_shot is not None:
        digest.update(few_shot.fingerprint().encode())
    return digest.hexdigest()[:16]
