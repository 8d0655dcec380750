"""`tbps data show-augmentations`: draw the effect of every image augmentation on an image."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from torch import Tensor

    from tbps.sheet import SheetRow

_WORDS = {
    "none": "the image, as a model with inputs of 224 x 224 pixels sees it",
    "pool": "two of the six below for every image (the default)",
    "crop": "90 to 100 % of the area, width/height 3/4 to 4/3",
    "erase": "half of the images lose 10 to 20 % of their area",
    "grayscale": "one image in ten",
    "jitter": "brightness, contrast and saturation within 10 %",
    "flip": "half of the images",
    "rotation": "up to 15 degrees either way",
    "stacking": "all six of the pool, one after another",
    "blur": "Gaussian, 3 x 3 pixels, sigma 0.1 to 2",
    "hue": "up to a tenth of the colour circle either way",
    "vertical_flip": "half of the images",
    "auto_augment": "one of 25 pairs of operations found on ImageNet",
    "rand_augment": "any 2 of 14 operations, magnitude 9 of 30",
    "trivial_augment": "one of 14 operations, any magnitude",
    "irra": "IRRA: flip, moved by up to 10 pixels, 2 to 40 % of the area erased",
}
_VIEWS = "SimCLR: crop from 20 %, strong jitter, grayscale, blur, flip"
_TIMES = 7
_THUMB = (56, 140)


def show_augmentations(
    image: Annotated[Path, typer.Argument(help="crop of one person: JPEG, PNG, WebP, BMP or TIFF")],
    out: Annotated[Path, typer.Option(help="PNG file to write")] = Path("augmentations.png"),
    seed: Annotated[int, typer.Option(help="seed of the random strengths")] = 0,
) -> None:
    """Draw every method of `image_augmentation.method`, applied several times to one crop with the strengths of the paper.

    Example: tbps data show-augmentations photo.jpg --out augmentations.png
    """
    from tbps.cli.console import output
    from tbps.sheet import contact_sheet
    from tbps.storage import atomic_path

    sheet = contact_sheet(_rows(image, seed), thumb=_THUMB, title=f"Image augmentations: {image.name}")
    with atomic_path(out) as temporary:
        sheet.save(temporary, format="PNG")
    output.print(f"{len(_WORDS) + 1} rows written to {out}", highlight=False, soft_wrap=True)


def _rows(file: Path, seed: int) -> "list[SheetRow]":
    import numpy as np
    import torch
    from PIL import Image

    from tbps.data import ImageAugmentation, ViewAugmentation, augment_images, simclr_view_of
    from tbps.preprocess.image import ImageSpec, open_image, to_array
    from tbps.seeding import torch_generator
    from tbps.sheet import SheetRow, Tile

    crop = open_image(file)
    pixels = torch.from_numpy(to_array(crop, ImageSpec())).permute(2, 0, 1)
    whole = np.asarray(crop)
    crop.thumbnail((448, 448))  # from here on only its shape is used

    def row(name: str, words: str, augmented: "Tensor", size: tuple[int, int]) -> SheetRow:
        arrays = (augmented * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        return SheetRow(f"{name}: {words}", tuple(Tile(Image.fromarray(array).resize(size)) for array in arrays))

    rows = []
    for method, words in _WORDS.items():
        settings = ImageAugmentation.parse({"method": method})
        batch = pixels.repeat(1 if method == "none" else _TIMES, 1, 1, 1)
        augmented = augment_images(batch, settings, torch_generator(seed, "augmentations", method))
        rows.append(row(method, words, augmented, crop.size))  # back from the model's square to the shape of the crop
    stream, square = torch_generator(seed, "augmentations", "views"), (ImageSpec().height, ImageSpec().width)
    views = simclr_view_of([whole] * _TIMES, square, ViewAugmentation(), stream, pixels.device)
    return [
        *rows,
        row("views", _VIEWS, views, (crop.width, crop.width)),
    ]  # views are cropped from the whole image, so they are about square
