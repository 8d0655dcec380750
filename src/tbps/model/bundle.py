"""Loading and saving model folders in the Hugging Face layout: weights, tokenizer and preprocessing. Every tensor is checked.

    config.json               towers (transformers.CLIPConfig)
    model.safetensors         weights, float16 or float32
    tokenizer.json, tokenizer_config.json
    preprocessor_config.json  size, mean and standard deviation of the pixels
    few_shot.safetensors      a learned prompt or adapter, where config.json has "few_shot" (`tbps.model.few_shot`)

`transformers.CLIPModel.from_pretrained(folder)` opens the same folder, without prompt and adapter.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import final

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from tbps.errors import ModelError
from tbps.hub import model_folder
from tbps.model.clip import choose_products, image_features, text_features, unfilled
from tbps.model.few_shot import ADDED, add_few_shot, few_shot_of
from tbps.model.folder import (
    FEW_SHOT,
    PREPROCESSOR,
    WEIGHTS,
    FewShotSettings,
    fingerprint,
    preprocessor,
    prompted,
    read_few_shot,
    read_json,
    read_spec,
)
from tbps.model.pickles import read_safetensors, read_tensors
from tbps.model.relevance import carried_by_patches
from tbps.model.tokens import count_tokens, tokenise
from tbps.preprocess.caption import clean_caption
from tbps.preprocess.image import ImageSpec, normalise, to_array, upright_rgb
from tbps.storage import make_folder, write_bytes, write_text

_HUB_FILES = [
    "config.json",
    "model.safetensors",
    "few_shot.safetensors",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
]

_SMALL = 2**26  # parameters; smaller models are built without the size check, and then every tensor that does not fit is named


@final
class PersonModel:
    """A CLIP model with tokenizer and preprocessing: the encoder for training, evaluation, indexing and search.

    Embeddings are (N, `dim`) float32 with unit rows. `fingerprint` depends on weights, tokenizer and preprocessing: two models
    with the same fingerprint compute the same embeddings.
    """

    def __init__(self, clip: CLIPModel, tokenizer: CLIPTokenizer, spec: ImageSpec, name: str, folder: Path | None = None) -> None:
        self.clip = clip
        self.tokenizer = tokenizer
        self.spec = spec
        self.name = name
        self.folder = folder
        self.dim: int = clip.config.projection_dim
        self.context_length: int = clip.config.text_config.max_position_embeddings
        self._fingerprint: str | None = None

    @property
    def fingerprint(self) -> str:
        """Hash of everything that determines an embedding, as 16 hexadecimal digits.

        Computed once; after changing the weights of `clip`, create a new `PersonModel`.
        """
        if self._fingerprint is None:
            weights = ((name, tensor.detach().cpu().numpy()) for name, tensor in self.clip.state_dict().items())
            self._fingerprint = fingerprint(weights, self.tokenizer.backend_tokenizer.to_str(), self.spec, self.few_shot)
        return self._fingerprint

    @property
    def few_shot(self) -> FewShotSettings | None:
        """Settings of the learned prompt and adapter, None for plain towers."""
        return few_shot_of(self.clip)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        device: torch.device = self.clip.logit_scale.device
        return device

    def to(self, device: str | torch.device) -> "PersonModel":
        """Moves the weights to a device and returns this model."""
        choose_products(tf32=False)
        self.clip.to(device)
        return self

    def encode_images(self, images: Sequence[Image.Image], batch_size: int = 64) -> np.ndarray:
        """Encodes images of any size and mode to (N, dim) float32 unit rows. They are resized without cropping; EXIF orientation is
        applied.
        """
        rows = [np.zeros((0, self.dim), np.float32)]
        for start in range(0, len(images), batch_size):
            arrays = np.stack([to_array(upright_rgb(image), self.spec) for image in images[start : start + batch_size]])
            rows.append(self.encode_arrays(arrays))
        return np.concatenate(rows)

    def encode_arrays(self, arrays: np.ndarray) -> np.ndarray:
        """Encodes images of the input size: (N, height, width, 3) uint8 -> (N, dim) float32 unit rows."""
        pixels = torch.from_numpy(np.array(arrays)).permute(0, 3, 1, 2).to(self.device)
        with torch.no_grad():
            return _unit_rows(image_features(self.clip, normalise(pixels, self.spec)))

    def encode_texts(self, texts: Sequence[str], batch_size: int = 256) -> np.ndarray:
        """Encodes captions to (N, dim) float32 unit rows. They are cleaned and truncated to the context length. Raises CaptionError
        for a caption without words.
        """
        cleaned = [clean_caption(text) for text in texts]
        by_length = sorted(range(len(cleaned)), key=lambda row: len(cleaned[row]))
        embeddings = np.zeros((len(cleaned), self.dim), np.float32)
        for start in range(0, len(cleaned), batch_size):
            rows = by_length[start : start + batch_size]
            tokens = self.tokenise([cleaned[row] for row in rows]).to(self.device)
            with torch.no_grad():
                embeddings[rows] = _unit_rows(text_features(self.clip, tokens))
        return embeddings

    def carried(self, image: Image.Image, vector: np.ndarray) -> np.ndarray:
        """Returns each patch's contribution to an image's similarity to a (dim,) vector: (rows, columns) float32.

        See `tbps.model.relevance`.
        """
        pixels = torch.from_numpy(to_array(upright_rgb(image), self.spec).copy()).permute(2, 0, 1)[None].to(self.device)
        seen = torch.from_numpy(np.asarray(vector, np.float32)).to(self.device)
        carried: np.ndarray = carried_by_patches(self.clip, normalise(pixels, self.spec)[0], seen).cpu().numpy()
        return carried

    def is_cut(self, text: str) -> bool:
        """Returns whether a text is longer than the model's context length, so that its end is ignored."""
        return count_tokens(self.tokenizer, prompted(clean_caption(text), self.few_shot)) > self.context_length

    def tokenise(self, captions: Sequence[str]) -> torch.Tensor:
        """Tokenises cleaned captions to (N, L) token ids, truncated to the context length and including a learned prompt."""
        few_shot = self.few_shot
        return tokenise(self.tokenizer, [prompted(caption, few_shot) for caption in captions], self.context_length)

    def save(self, folder: str | Path, half: bool = False) -> None:
        """Saves the model folder. Files are written atomically, the weights last. `half`: store float16."""
        target = make_folder(Path(folder))
        self.tokenizer.save_pretrained(target)
        config = self.clip.config.to_dict() | {"architectures": ["CLIPModel"], "dtype": "float32"}
        if self.few_shot is not None:
            config["few_shot"] = self.few_shot.model_dump()
        write_text(target / "config.json", json.dumps(config, indent=2, sort_keys=True, default=str) + "\n")
        write_text(target / PREPROCESSOR, json.dumps(preprocessor(self.spec), indent=2) + "\n")
        weights = {k: v.detach().cpu().to(torch.float16 if half else v.dtype) for k, v in self.clip.state_dict().items()}
        added = {name: weights.pop(name) for name in ADDED if name in weights}
        for file, tensors in ((FEW_SHOT, added), (WEIGHTS, weights)):
            if tensors:
                write_bytes(target / file, save({k: v.contiguous() for k, v in tensors.items()}, {"format": "pt"}))


def load(model: str | Path, device: str | torch.device = "cpu") -> PersonModel:
    """Loads a model folder, or a Hugging Face id such as "openai/clip-vit-base-patch16".

    Raises ModelError if the folder is missing, if weights are missing, unexpected or of the wrong shape (the message names each),
    or if the hub cannot be reached (the message contains the command that downloads the model).
    """
    folder = model_folder(model, _HUB_FILES, "model", "openai/clip-vit-base-patch16")
    config, few_shot = _config(folder)
    with _understanding(folder / "config.json"):
        _check_size(folder, config)
        clip = unfilled(config)
    tokenizer = open_tokenizer(folder, config.text_config.vocab_size)
    if few_shot is not None:
        add_few_shot(clip, tokenizer, few_shot)
    load_weights(folder, clip)
    opened = Path(model).resolve() if Path(model).is_dir() else None
    return PersonModel(clip, tokenizer, read_spec(folder, config.vision_config.image_size), str(model), opened).to(device)


def load_weights(folder: Path, clip: CLIPModel) -> None:
    """Loads the weights of a model folder into towers of the same shape. Raises ModelError that names every tensor that does not
    fit.
    """
    state = _weights(folder)
    if few_shot_of(clip) is not None:
        state |= _tensors(folder / FEW_SHOT)
    clip.load_state_dict(_checked(state, clip, folder))


def open_tokenizer(folder: Path, vocabulary: int) -> CLIPTokenizer:
    """Opens the tokenizer of a model folder. Raises ModelError where it is missing, damaged or larger than `vocabulary`."""
    if not (folder / "tokenizer.json").is_file() and not (folder / "vocab.json").is_file():
        raise ModelError(f"{folder} has no tokenizer: tokenizer.json, or vocab.json and merges.txt, is missing")
    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"the tokenizer of {folder} cannot be read: {error}") from error
    except Exception as error:  # the only type that the `tokenizers` library raises
        if type(error) is not Exception:
            raise
        raise ModelError(f"the tokenizer of {folder} cannot be read: {error}") from error
    if len(tokenizer) > vocabulary:
        raise ModelError(
            f"the tokenizer of {folder} has {len(tokenizer)} tokens but the text tower only {vocabulary}: "
            "they belong to different models"
        )
    return tokenizer


def _config(folder: Path) -> tuple[CLIPConfig, FewShotSettings | None]:
    file = folder / "config.json"
    if not file.is_file():
        raise ModelError(f"{folder} is not a model folder: config.json is missing")
    values = read_json(file)
    if not isinstance(values, dict) or values.get("model_type") != "clip":
        kind = values.get("model_type") if isinstance(values, dict) else type(values).__name__
        raise ModelError(f"{file} describes a {kind!r} model; tbps opens model_type 'clip'")
    few_shot = read_few_shot(values, file)
    with _understanding(file):
        return CLIPConfig.from_dict({key: value for key, value in values.items() if key != "few_shot"}), few_shot


def _check_size(folder: Path, config: CLIPConfig) -> None:
    """Raises ModelError if a large configuration has more parameters than the weights file has bytes; allocates no memory."""
    file = _weight_file(folder)
    size, vision, text = file.stat().st_size, config.vision_config, config.text_config
    side = vision.image_size // max(1, vision.patch_size)
    described = vision.hidden_size * side * side + text.hidden_size * (text.vocab_size + text.max_position_embeddings)
    for tower in (vision, text):
        width = tower.hidden_size
        described += tower.num_hidden_layers * width * (4 * width + 2 * tower.intermediate_size) + width * config.projection_dim
    if described > max(size, _SMALL):
        raise ModelError(
            f"{folder / 'config.json'} describes a model of at least {described:,} numbers, but {file.name} has {size:,} bytes: "
            "they belong to different models, or one is damaged"
        )


@contextmanager
def _understanding(file: Path) -> Iterator[None]:
    """Converts errors of transformers for an invalid configuration value into a ModelError that names the file."""
    from huggingface_hub.errors import StrictDataclassError

    try:
        yield
    except (StrictDataclassError, TypeError, ValueError, KeyError, AttributeError, RuntimeError, ZeroDivisionError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"{file} has a value that no CLIP model can have: {reason}") from error


def _weight_file(folder: Path) -> Path:
    """Returns the weights file of a model folder: model.safetensors, or the pickle of old hub folders.

    Of a pickle, only the tensors are read (`tbps.model.pickles`).
    """
    for file in (folder / WEIGHTS, folder / "pytorch_model.bin"):
        if file.is_file():
            return file
    raise ModelError(f"{folder} lacks weights: {WEIGHTS} is missing")


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    file = _weight_file(folder)
    return _tensors(file) if file.name == WEIGHTS else read_tensors(file).tensors


def _tensors(file: Path) -> dict[str, torch.Tensor]:
    if not file.is_file():
        raise ModelError(f"{file.parent} lacks weights: {file.name} is missing")
    return read_safetensors(file)


def _checked(state: dict[str, torch.Tensor], clip: CLIPModel, folder: Path) -> dict[str, torch.Tensor]:
    expected = clip.state_dict()
    # Folders written by old versions of transformers store the position numbers 0, 1, 2, ... as weights.
    state = {name: tensor for name, tensor in state.items() if not name.endswith("embeddings.position_ids")}
    faults = [f"missing {name}" for name in sorted(expected.keys() - state.keys())]
    faults += [f"unexpected {name}" for name in sorted(state.keys() - expected.keys())]
    faults += [
        f"{name} is {tuple(state[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in sorted(expected.keys() & state.keys())
        if state[name].shape != expected[name].shape
    ]
    if faults:
        shown = "; ".join(faults[:8]) + (f"; and {len(faults) - 8} more" if len(faults) > 8 else "")
        raise ModelError(f"the weights of {folder} do not fit its config.json: {shown}")
    return {name: tensor.to(expected[name].dtype) for name, tensor in state.items()}


def _unit_rows(features: torch.Tensor) -> np.ndarray:
    rows: np.ndarray = torch.nn.functional.normalize(features.float(), dim=-1).cpu().numpy()
    return rows
