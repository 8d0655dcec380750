"""Conversion of checkpoints of OpenAI's CLIP, open_clip, the TBPS-CLIP reference, IRRA and Hugging Face folders to a `PersonModel`.

All formats except Hugging Face's use OpenAI's tensor names (`visual.transformer.resblocks.0.attn.in_proj_weight`). Differences:

    format               names                                   image size    pixels of     activation
    openai               unchanged; TorchScript or state dict    square        CLIP          QuickGELU
    open_clip            unchanged; state dict                   square        CLIP          not in the file
    tbps-clip-reference  text tower under `encode_text.`         224 x 224     ImageNet      QuickGELU
    irra                 both towers under `base_model.`         384 x 128     CLIP          QuickGELU

IRRA resizes images bilinearly and computes in float16, tbps bicubically and in float32, so image embeddings differ slightly. Shapes
are derived from the tensors. A missing, unexpected or mis-shaped tensor is an error; training heads, recognised by name, are
omitted.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt, log
from pathlib import Path
from typing import Annotated, Any, Literal, final

import torch
from pydantic import Field
from transformers import CLIPConfig, CLIPTokenizer

from tbps.config import Settings
from tbps.errors import ModelError
from tbps.model import bundle
from tbps.model.bundle import PersonModel
from tbps.model.clip import unfilled
from tbps.model.foreign.layouts import IMAGE_POSITIONS, TEXT_POSITIONS, Shape, check_layout, listed, transformers_names
from tbps.model.foreign.positions import PatchGrid, resize_image_positions, resize_text_positions, square_image_positions
from tbps.model.pickles import TensorFile, read_tensors
from tbps.preprocess.image import CLIP_MEAN, CLIP_STD, ImageSpec

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
OPENAI_TOKENIZER = "openai/clip-vit-base-patch16"

Format = Literal["openai", "open_clip", "huggingface", "tbps-clip-reference", "irra"]
Activation = Literal["quick_gelu", "gelu"]
_Side = Annotated[int, Field(ge=1, le=4096)]

# Tensors that inference does not need: training heads of the reference and of IRRA, the bias of SigLIP's loss, three numbers in
# OpenAI's files that repeat shapes, and causal masks.
_LEFT_OUT = (
    "simclr_mlp.",
    "classifier.",
    "cross_attn.",
    "cross_modal_transformer.",
    "ln_pre_t.",
    "ln_pre_i.",
    "ln_post.",
    "mlm_head.",
)
_LEFT_OUT_WHOLE = ("logit_bias", "input_resolution", "context_length", "vocab_size")
_WRAPPERS = ("module.", "_orig_mod.")


class ConvertSettings(Settings):
    """How to convert a checkpoint. Sizes are (height, width) in pixels; None keeps the checkpoint's.

    `source_size`: input size that the checkpoint was trained with. Without it, the grid of positions is assumed to be square or, if
    the number of positions is not a square number, three times as high as wide. `activation`: required for open_clip models, whose
    files do not contain it.
    """

    format: Literal["auto", Format] = "auto"
    image_size: tuple[_Side, _Side] | None = None
    source_size: tuple[_Side, _Side] | None = None
    context_length: int | None = Field(default=None, ge=3, le=4096)
    activation: Activation | None = None


@final
@dataclass(frozen=True)
class Conversion:
    """Result of a conversion.

    `format`: format of the source; `left_out`: omitted parts with their number of tensors; `changes`: descriptions of changes to
    the weights.
    """

    model: PersonModel
    format: Format
    left_out: tuple[str, ...]
    changes: tuple[str, ...]


@final
@dataclass(frozen=True)
class _Towers:
    """Configuration and weights with transformers' names, and the grid of the image positions."""

    config: dict[str, Any]
    state: dict[str, torch.Tensor]
    grid: PatchGrid
    spec: ImageSpec


def convert(source: str, settings: ConvertSettings, tokenizer: Path | None = None) -> Conversion:
    """Converts a checkpoint file, model folder or Hugging Face id to a model.

    `tokenizer`: folder with OpenAI's byte-pair vocabulary. Raises ModelError if the file cannot be read (see `read_tensors`), if
    tensors do not fit (the message names each), if an image size is not a multiple of the patch size, or if the tokenizer is
    missing (the message contains the command that downloads it).
    """
    path = Path(source)
    if path.is_file() or path.suffix in (".pt", ".pth", ".bin", ".safetensors"):
        return _convert_file(path, settings, tokenizer)
    return _convert_folder(source, settings, tokenizer)


def _convert_file(path: Path, settings: ConvertSettings, tokenizer: Path | None) -> Conversion:
    file = read_tensors(path)
    state = _unwrapped(file.tensors)
    kind = _format(state, file, path, settings)
    state, changes = _openai_names(state, kind, path)
    state, left_out = _without_heads(state)
    _check_kind(state, path)
    shape = Shape.of(state, path)
    check_layout(state, shape, path)
    grid, config = _grid(shape, settings.source_size, path), shape.config(settings.activation or "quick_gelu")
    opened = _open_tokenizer(tokenizer, shape.vocabulary)
    towers = _Towers(config, transformers_names(state, shape), grid, _spec(kind, grid, shape.patch))
    model, resized = _assemble(towers, settings, opened, str(path))
    return Conversion(model, kind, left_out, (*changes, *resized))


def _convert_folder(source: str, settings: ConvertSettings, tokenizer: Path | None) -> Conversion:
    if settings.format not in ("auto", "huggingface"):
        raise ModelError(
            f"{source} is not a file: the format {settings.format} is read from a checkpoint file; leave the format out"
        )
    if settings.activation or settings.source_size:
        raise ModelError(f"activation and source size of {source} are given by its own files; leave out both options")
    model = bundle.load(source)
    if model.few_shot is not None:
        raise ModelError(f"{source} has a learned prompt or adapter, which fits only its own towers; convert its start model")
    clip, config = model.clip, model.clip.config.to_dict()
    patch = config["vision_config"]["patch_size"]
    grid = (model.spec.height // patch, model.spec.width // patch)
    opened = _open_tokenizer(tokenizer, config["text_config"]["vocab_size"]) if tokenizer else model.tokenizer
    same_size = settings.image_size in (None, (model.spec.height, model.spec.width))
    if same_size and settings.context_length in (None, model.context_length):
        return Conversion(PersonModel(clip, opened, model.spec, source), "huggingface", (), ())
    state = {name: tensor.float() for name, tensor in clip.state_dict().items()}
    # Use the positions at the model's own input size, which may differ from the square grid that it stores.
    if (model.spec.height, model.spec.width) != (config["vision_config"]["image_size"],) * 2:
        patches = torch.zeros(1, 1 + grid[0] * grid[1], config["vision_config"]["hidden_size"])
        with torch.no_grad():
            used = clip.vision_model.embeddings.interpolate_pos_encoding(patches, model.spec.height, model.spec.width)
        state[IMAGE_POSITIONS] = used[0]
    made, resized = _assemble(_Towers(config, state, grid, model.spec), settings, opened, source)
    return Conversion(made, "huggingface", (), resized)


def _assemble(
    towers: _Towers, settings: ConvertSettings, tokenizer: CLIPTokenizer, name: str
) -> tuple[PersonModel, tuple[str, ...]]:
    """Returns the model at the wanted sizes, and descriptions of the changes."""
    vision, text = dict(towers.config["vision_config"]), dict(towers.config["text_config"])
    state, patch, changes = dict(towers.state), vision["patch_size"], []
    height, width = settings.image_size or (towers.spec.height, towers.spec.width)
    if settings.image_size and (height % patch or width % patch):
        raise ModelError(f"an image size of {height} x {width} is not a multiple of the patch of {patch} pixels")
    grid = (height // patch, width // patch)
    if grid != towers.grid:
        state[IMAGE_POSITIONS] = resize_image_positions(state[IMAGE_POSITIONS], towers.grid, grid)
        changes.append(f"image positions interpolated from {_by(towers.grid)} to {_by(grid)} patches")
    if grid[0] != grid[1]:
        state[IMAGE_POSITIONS] = square_image_positions(state[IMAGE_POSITIONS], grid)
        side = max(grid)
        changes.append(f"positions of {_by(grid)} patches stored in {_by((side, side))}, from which they are interpolated exactly")
    length = settings.context_length or text["max_position_embeddings"]
    if length != (old := len(state[TEXT_POSITIONS])):
        if old < 3:
            raise ModelError(f"a context of {old} tokens cannot be stretched to {length}")
        state[TEXT_POSITIONS] = resize_text_positions(state[TEXT_POSITIONS], length)
        changes.append(f"text positions interpolated from {old} to {length} tokens")
    vision["image_size"], text["max_position_embeddings"] = max(grid) * patch, length
    clip = unfilled(CLIPConfig.from_dict({**towers.config, "vision_config": vision, "text_config": text}))
    clip.load_state_dict(state)
    spec = ImageSpec(height=height, width=width, mean=towers.spec.mean, std=towers.spec.std)
    return PersonModel(clip, tokenizer, spec, name), tuple(changes)


def _unwrapped(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Removes the prefixes that distributed training and compilation add to every name."""
    state = dict(tensors)
    while prefix := next((p for p in _WRAPPERS if all(name.startswith(p) for name in state)), None):
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def _format(state: Mapping[str, torch.Tensor], file: TensorFile, path: Path, settings: ConvertSettings) -> Format:
    if any(name.startswith(("vision_model.", "text_model.")) for name in state) or settings.format == "huggingface":
        raise ModelError(f"{path} is one file of a Hugging Face folder: give the folder, with config.json and tokenizer")
    found: Format | None = None
    if any(name.startswith("base_model.") for name in state):
        found = "irra"
    elif any(name.startswith("encode_text.") for name in state):
        found = "tbps-clip-reference"
    elif file.torchscript or "input_resolution" in state:
        found = "openai"
    if settings.format != "auto":
        if found != settings.format and {found, settings.format} & {"irra", "tbps-clip-reference"}:
            raise ModelError(f"{path} has the names of the format {found or 'openai'}, not of {settings.format}")
        found = settings.format
    if settings.activation is None and found in (None, "open_clip"):
        raise ModelError(
            f"{path} does not say which activation its layers use; give --activation quick_gelu (models of OpenAI and those whose "
            "open_clip name ends in -quickgelu) or --activation gelu (other models of open_clip)"
        )
    return found or "open_clip"


def _openai_names(state: Mapping[str, torch.Tensor], kind: Format, path: Path) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    """Returns the state with OpenAI's names, and descriptions of what was added."""
    if kind == "tbps-clip-reference":
        return _unprefixed(state, "encode_text.", path), ()
    if kind != "irra":
        return dict(state), ()
    towers = _unprefixed(state, "base_model.", path)
    if "logit_scale" in towers:
        return towers, ()
    # IRRA multiplies similarities by a constant that it does not save: 1 / 0.02 by default.
    return {**towers, "logit_scale": torch.tensor(log(50))}, ("no logit_scale in the file: IRRA's constant 50 is set",)


def _unprefixed(state: Mapping[str, torch.Tensor], prefix: str, path: Path) -> dict[str, torch.Tensor]:
    twice = [name for name in state if name.startswith(prefix) and name.removeprefix(prefix) in state]
    if twice:
        raise ModelError(f"{path} has tensors both with and without {prefix!r}: {listed(sorted(twice))}")
    return {name.removeprefix(prefix): tensor for name, tensor in state.items()}


def _without_heads(state: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    heads = {name for name in state if name.startswith(_LEFT_OUT) or name in _LEFT_OUT_WHOLE or name.endswith(".attn_mask")}
    counts = Counter(name if name.endswith(".attn_mask") else name.partition(".")[0] for name in heads)
    left_out = tuple(f"{part} ({count} tensor{'s' if count > 1 else ''})" for part, count in sorted(counts.items()))
    return {name: tensor for name, tensor in state.items() if name not in heads}, left_out


def _check_kind(state: Mapping[str, torch.Tensor], path: Path) -> None:
    """Raises ModelError for architectures other than CLIP's vision transformer and text tower.

    The message names the architecture instead of hundreds of unexpected tensors.
    """
    if any(name.startswith(("visual.layer1.", "visual.attnpool.")) for name in state):
        raise ModelError(f"{path} has a ResNet as image tower; tbps reads vision transformers (ViT-B/16, ViT-L/14, ...)")
    foreign = sorted({prefix for prefix in ("visual.trunk.", "text.") for name in state if name.startswith(prefix)})
    if foreign:
        raise ModelError(f"{path} has an unsupported tower under {' and '.join(foreign)}; tbps reads CLIP's own two transformers")
    image = any(name.startswith("visual.") for name in state)
    text = any(name.startswith(("transformer.", "token_embedding.")) for name in state)
    if image != text:
        raise ModelError(f"{path} holds the {'image' if image else 'text'} tower only; both towers are needed")
    if not image:
        raise ModelError(f"{path} holds no CLIP towers; it begins with {listed(sorted(state)[:3])}")


def _grid(shape: Shape, source_size: tuple[int, int] | None, path: Path) -> PatchGrid:
    """Returns the grid of patches (down, across), derived from their number, since the file contains only that."""
    side, third = isqrt(shape.patches), isqrt(shape.patches // 3)
    if source_size:
        grid = (source_size[0] // shape.patch, source_size[1] // shape.patch)
        if grid[0] * grid[1] == shape.patches:
            return grid
        raise ModelError(
            f"{path} has positions for {shape.patches} patches of {shape.patch} pixels, "
            f"but {_by(source_size)} pixels have {_by(grid)} patches"
        )
    if side * side == shape.patches:
        return side, side
    if 3 * third * third == shape.patches:  # IRRA's 384 x 128
        return 3 * third, third
    raise ModelError(
        f"{path} has positions for {shape.patches} patches of {shape.patch} pixels, neither a square grid nor one three times as "
        "high as wide; give --source-size HxW, the input size that it was trained with (overlapping patches are not supported)"
    )


def _spec(kind: Format, grid: PatchGrid, patch: int) -> ImageSpec:
    """Returns the input size and normalisation that the checkpoint was trained with."""
    mean, std = (IMAGENET_MEAN, IMAGENET_STD) if kind == "tbps-clip-reference" else (CLIP_MEAN, CLIP_STD)
    return ImageSpec.parse({"height": grid[0] * patch, "width": grid[1] * patch, "mean": mean, "std": std})


def _open_tokenizer(folder: Path | None, vocabulary: int) -> CLIPTokenizer:
    """Opens OpenAI's tokenizer, which checkpoints do not contain, from `folder` or from the local hub cache."""
    folder = folder or _cached_tokenizer()
    tokenizer = bundle.open_tokenizer(folder, vocabulary)
    ends, wanted = (tokenizer.bos_token_id, tokenizer.eos_token_id), (vocabulary - 2, vocabulary - 1)
    if ends != wanted:
        raise ModelError(
            f"the tokenizer of {folder} has start and end token {ends}, a text tower of {vocabulary} tokens needs {wanted}: "
            "they belong to different models"
        )
    return tokenizer


def _cached_tokenizer() -> Path:
    from huggingface_hub import try_to_load_from_cache

    for files in (["tokenizer.json"], ["vocab.json", "merges.txt"]):
        found = [try_to_load_from_cache(OPENAI_TOKENIZER, file) for file in files]
        if all(isinstance(file, str) for file in found):
            return Path(str(found[0])).parent
    raise ModelError(
        "a checkpoint does not contain the tokenizer, and OpenAI's is not in the local Hugging Face cache; on a machine with "
        f"internet run `hf download {OPENAI_TOKENIZER} vocab.json merges.txt tokenizer.json --local-dir clip-tokenizer` "
        "and give --tokenizer clip-tokenizer"
    )


def _by(pair: tuple[int, int]) -> str:
    return f"{pair[0]} x {pair[1]}"
