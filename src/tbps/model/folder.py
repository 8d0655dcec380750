"""The parts of a model folder that need no towers: preprocessing and the fingerprint of everything that decides an embedding."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from tbps.errors import ModelError, SettingsError
from tbps.preprocess.image import CLIP_MEAN, CLIP_STD, ImageSpec

WEIGHTS = "model.safetensors"
PREPROCESSOR = "preprocessor_config.json"


def read_json(file: Path) -> Any:
    """Raises ModelError naming the file where it cannot be read."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{file} is not JSON: {error}") from error
    except OSError as error:
        raise ModelError(f"{file} cannot be read ({error.strerror})") from error


def read_spec(folder: Path, image_size: int) -> ImageSpec:
    """The preprocessing of a model folder; square pictures of `image_size` where it names no height and width."""
    file = folder / PREPROCESSOR
    values: Any = read_json(file) if file.is_file() else {}
    if not isinstance(values, dict):
        raise ModelError(f"{file} is no JSON object")
    wanted = values.get("size")
    square = (image_size, image_size)
    height, width = (wanted["height"], wanted.get("width")) if isinstance(wanted, dict) and "height" in wanted else square
    mean, std = values.get("image_mean", CLIP_MEAN), values.get("image_std", CLIP_STD)
    try:
        return ImageSpec.parse({"height": height, "width": width, "mean": mean, "std": std})
    except SettingsError as error:
        raise ModelError(f"{file}: {error}") from error


def preprocessor(spec: ImageSpec) -> dict[str, Any]:
    """What `transformers` calls the preprocessing, for `preprocessor_config.json`."""
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


def fingerprint(weights: Iterable[tuple[str, np.ndarray]], tokenizer: str, spec: ImageSpec) -> str:
    """16 hexadecimal digits over weights, tokenizer (its JSON by `tokenizers`) and preprocessing."""
    digest = hashlib.sha256()
    for name, array in sorted(weights, key=lambda pair: pair[0]):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(array).data)
    # Only the byte pairs: truncation and padding of the backend change with every call.
    pairs = json.loads(tokenizer)["model"]
    digest.update(json.dumps([pairs["vocab"], pairs["merges"]], sort_keys=True).encode())
    digest.update(spec.fingerprint().encode())
    return digest.hexdigest()[:16]
