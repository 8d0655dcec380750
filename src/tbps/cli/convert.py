"""`tbps convert`: convert checkpoints of other projects to model folders."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tbps.cli.console import output
from tbps.errors import SettingsError

if TYPE_CHECKING:
    from tbps.model import Conversion

_FORMATS = "auto, openai, open_clip, huggingface, tbps-clip-reference or irra"


def convert(
    source: Annotated[str, typer.Argument(help="checkpoint file (.pt, .pth, .bin, .safetensors), model folder or Hugging Face id")],
    out: Annotated[Path, typer.Argument(help="model folder to write")],
    format: Annotated[str, typer.Option(help=f"{_FORMATS}; auto recognises the format by the names of the tensors")] = "auto",
    image_size: Annotated[
        str | None, typer.Option(help="input size of the new model in pixels, HxW or N; default: the checkpoint's")
    ] = None,
    source_size: Annotated[
        str | None, typer.Option(help="input size that the checkpoint was trained for; default: square, else 3:1")
    ] = None,
    context_length: Annotated[
        int | None, typer.Option(help="tokens per caption in the new model; default: the checkpoint's")
    ] = None,
    activation: Annotated[str | None, typer.Option(help="quick_gelu or gelu; files of open_clip do not name it")] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="folder with OpenAI's vocab.json and merges.txt, or tokenizer.json")
    ] = None,
    half: Annotated[bool, typer.Option("--half", help="store float16 weights: half the size")] = False,
) -> None:
    """Convert a checkpoint of OpenAI's CLIP, open_clip, the TBPS-CLIP reference or IRRA to a model folder.

    The folder opens in tbps and in `transformers.CLIPModel`. Nothing in the file is executed; a pickle that asks for more than
    tensors is refused. Position embeddings are interpolated when `--image-size` or `--context-length` differs.

    Example: tbps convert best.pth models/irra-cuhk --tokenizer clip-tokenizer
    """
    from tbps.model import ConvertSettings, load
    from tbps.model import convert as converted

    if out.exists() and out.resolve() == Path(source).resolve():
        raise SettingsError(f"{out} is the model to convert; give another folder to write")
    wanted = {"image_size": _size(image_size), "source_size": _size(source_size), "context_length": context_length}
    settings = ConvertSettings.parse({"format": format, "activation": activation, **wanted})
    conversion = converted(source, settings, tokenizer)
    conversion.model.save(out, half)
    _describe(conversion)
    spec = load(out).spec
    output.print(f"{out}: {spec.height} x {spec.width} pixels, {conversion.model.context_length} tokens", highlight=False)


def _describe(conversion: "Conversion") -> None:
    towers = conversion.model.clip.config
    shapes = [
        f"{name} {tower.num_hidden_layers} layers of {tower.hidden_size}"
        for name, tower in (("image", towers.vision_config), ("text", towers.text_config))
    ]
    output.print(f"{conversion.format}: {', '.join(shapes)}, patch {towers.vision_config.patch_size}", highlight=False)
    for change in conversion.changes:
        output.print(change, highlight=False)
    if conversion.left_out:
        output.print(f"left out: {', '.join(conversion.left_out)}", highlight=False)


def _size(text: str | None) -> tuple[int, int] | None:
    """Parse "384x128" or "224" as (height, width). Raises SettingsError."""
    if text is None:
        return None
    sides = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", text)
    if not sides:
        raise SettingsError(f"size {text!r} is neither HxW nor N; write 384x128 (height first) or 224")
    return int(sides[1]), int(sides[2] or sides[1])
