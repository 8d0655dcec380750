"""Model folders, local or downloaded from the Hugging Face hub."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from tbps.errors import ModelError


def model_folder(model: str | Path, files: Sequence[str], kind: str, example: str) -> Path:
    """Returns the local folder of a model: `model` itself if it is a folder, else the download of that Hugging Face id.

    `files`: glob patterns of the files to download; `kind`: name of the kind of model in messages; `example`: id in messages.
    Raises ModelError where `model` is neither a folder nor an id, or the hub cannot be reached; the message then contains the
    download command.
    """
    if os.path.isdir(model):  # Path.is_dir raises on a name too long for the disk
        return Path(model)
    name = str(model)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or name.startswith((".", "models/")):
        raise ModelError(f"{kind} folder {name!r} does not exist; give a folder or a Hugging Face id like {example}")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        return Path(snapshot_download(name, allow_patterns=list(files)))
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, OSError) as error:
        local = f"models/{name.partition('/')[2]}"
        raise ModelError(
            f"{name!r} is neither a folder here nor could it be fetched from the hub; on a machine with internet run "
            f"`hf download {name} --local-dir {local}`, copy that folder here, and give {local} as the model"
        ) from error
