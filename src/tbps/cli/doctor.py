"""`tbps doctor`: check what is installed and whether it works."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from tbps.cli.console import output, plain

_PACKAGES = ("tbps", "torch", "transformers", "tokenizers", "safetensors", "lancedb", "pyarrow", "numpy", "pillow")


def doctor(
    model: Annotated[str | None, typer.Option(help="model folder or Hugging Face id to open and try")] = None,
    folder: Annotated[Path, typer.Option(help="folder for galleries and runs, to check its disk")] = Path(),
) -> None:
    """Check this machine: versions, device, disk, and whether a model opens and computes embeddings.

    Exit code 2 if something that `tbps` needs is missing.

    Example: tbps doctor --model models/mannequin-tiny
    """
    table = Table(show_header=False, title="tbps doctor", title_justify="left")
    missing = [*_packages(table), *_device(table), *_disk(table, folder), *_model(table, model)]
    output.print(table)
    for line in missing:
        output.print(Text("missing: ", style="red") + plain(line), soft_wrap=True)
    if missing:
        raise typer.Exit(2)
    output.print("nothing is missing")


def _packages(table: Table) -> list[str]:
    missing = []
    table.add_row("python", f"{platform.python_version()} on {platform.platform()}")
    for name in _PACKAGES:
        try:
            table.add_row(name, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            table.add_row(name, "missing")
            missing.append(f"{name}; run `pip install {name}`")
    if importlib.util.find_spec("torchvision"):
        table.add_row("torchvision", "installed: not used, and a broken one stops transformers' CLIP; uninstall it on trouble")
    return missing


def _device(table: Table) -> list[str]:
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a shared library of torch is missing
        table.add_row("device", "unknown: torch does not import")
        return [f"a working torch ({error}); run `pip install --force-reinstall torch`"]
    cuda = torch.cuda.is_available()
    table.add_row("device", torch.cuda.get_device_name() if cuda else f"cpu, {torch.get_num_threads()} threads")
    return []


def _disk(table: Table, folder: Path) -> list[str]:
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free / 2**30
    writable = os.access(there, os.W_OK)
    table.add_row("disk", plain(f"{free:.1f} GiB free at {there}, {'writable' if writable else 'not writable'}"))
    return ([] if writable else [f"permission to write at {there}"]) + ([] if free > 1 else [f"disk space at {there}"])


def _model(table: Table, model: str | None) -> list[str]:
    if model is None:
        table.add_row("model", "none tried; give --model")
        return []
    from PIL import Image

    from tbps.errors import ModelError

    try:
        from tbps.model import load

        opened = load(model)
    except (ModelError, ImportError, OSError, RuntimeError) as error:  # the last three: torch or transformers does not import
        table.add_row("model", "does not open")
        return [str(error)]
    opened.encode_texts(["a woman in a red coat"])
    opened.encode_images([Image.new("RGB", (64, 128), "red")])
    size = f"{opened.spec.height}x{opened.spec.width} pixels, {opened.context_length} tokens, {opened.dim} dimensions"
    table.add_row("model", plain(f"{model}: {size}, fingerprint {opened.fingerprint}"))
    return []
