"""`tbps data check` and `tbps data describe`: check that a data set can be used, and describe its contents."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from tbps.data import PersonDataset, PersonImage
    from tbps.sheet import SheetRow

_Name = Annotated[str, typer.Argument(help="format of the data set: cuhk-pedes, icfg-pedes, rstpreid, tbps, ufine6926, folder")]
_Root = Annotated[Path, typer.Argument(help="folder of the data set, which holds the annotation file")]

_AllowMissing = Annotated[bool, typer.Option("--allow-missing", help="skip images whose files are missing, and say how many")]

_PROBLEMS_SHOWN = 20
_SHEET_ROWS = 8


def check(
    name: _Name,
    root: _Root,
    decode: Annotated[bool, typer.Option("--decode", help="decode every image instead of its header only")] = False,
    allow_missing: _AllowMissing = False,
) -> None:
    """Check every record, path and image of a data set, and compare the counts with the published ones.

    Warnings are about unusual but usable data, such as a subset. An invalid record ends the check with its number and field;
    invalid images are listed. Both end with exit code 2.

    Example: tbps data check cuhk-pedes ~/data/CUHK-PEDES --decode
    """
    from tbps.cli.console import messages, output, progress
    from tbps.data import read_dataset
    from tbps.errors import ImageError
    from tbps.preprocess.image import check_image, open_image

    dataset = read_dataset(name, root, allow_missing=allow_missing)
    output.print(_counts(dataset))
    for warning in dataset.warnings:
        messages.print(f"warning: {warning}", markup=False, highlight=False, soft_wrap=True)
    problems: list[str] = []
    inspect = open_image if decode else check_image
    with progress("decoding" if decode else "reading headers", "images") as on_progress:
        for number, image in enumerate(dataset.images, start=1):
            try:
                inspect(image.path)
            except ImageError as error:
                problems.append(str(error))
            on_progress(number, len(dataset.images))
    for problem in problems[:_PROBLEMS_SHOWN]:
        messages.print(f"problem: {problem}", markup=False, highlight=False, soft_wrap=True)
    if problems:
        raise ImageError(f"{len(problems):,} of {len(dataset.images):,} images cannot be used; replace or remove them")
    output.print(f"{len(dataset.images):,} images and {len(dataset.pairs()):,} captions are usable")


def describe(
    name: _Name,
    root: _Root,
    sheet: Annotated[Path | None, typer.Option(help="write an image with crops and captions of some identities")] = None,
    model: Annotated[str | None, typer.Option(help="model whose tokenizer counts tokens, instead of words")] = None,
    allow_missing: _AllowMissing = False,
) -> None:
    """Describe a data set: counts, caption lengths, images per identity, image sizes, and a sample as an image.

    Example: tbps data describe folder ~/photos --sheet sample.png
    """
    from tbps.cli.console import messages, output
    from tbps.data import read_dataset
    from tbps.sheet import contact_sheet
    from tbps.storage import atomic_path

    dataset = read_dataset(name, root, allow_missing=allow_missing)
    output.print(_counts(dataset))
    output.print(_distributions(dataset))
    output.print(_length_note(dataset, model))
    for warning in dataset.warnings:
        messages.print(f"warning: {warning}", markup=False, highlight=False, soft_wrap=True)
    if sheet:
        picture = contact_sheet(_sample_rows(dataset), title=f"{dataset.name}: {len(dataset.images):,} images")
        with atomic_path(sheet) as temporary:
            picture.save(temporary, format="PNG")
        output.print(f"sample written to {sheet}", soft_wrap=True)


def _counts(dataset: "PersonDataset") -> "Table":
    from rich.table import Table

    table = Table("split", title=f"{dataset.name} at {dataset.root}")
    for column in ("identities", "images", "captions", "paraphrases", "cameras"):
        table.add_column(column, justify="right")
    for split in ("train", "val", "test"):
        images = dataset.split(split).images
        numbers = (
            len({image.identity for image in images}),
            len(images),
            sum(len(image.captions) for image in images),
            sum(len(image.captions_bt) for image in images),
            len({image.camera for image in images} - {None}),
        )
        table.add_row(split, *(f"{number:,}" for number in numbers))
    return table


def _distributions(dataset: "PersonDataset") -> "Table":
    from collections import Counter

    import numpy as np
    from rich.table import Table

    from tbps.preprocess.image import check_image

    sizes = np.array([check_image(image.path) for image in dataset.images])
    values = {
        "words per caption": [len(caption.split()) for image in dataset.images for caption in image.captions],
        "captions per image": [len(image.captions) for image in dataset.images],
        "images per identity": list(Counter(image.identity for image in dataset.images).values()),
        "image width": sizes[:, 0],
        "image height": sizes[:, 1],
        "height / width": sizes[:, 1] / sizes[:, 0],
    }
    table = Table("")
    for column in ("least", "5 %", "median", "mean", "95 %", "most"):
        table.add_column(column, justify="right")
    for label, numbers in values.items():
        low, middle, high = np.percentile(numbers, [5, 50, 95])
        table.add_row(label, *(f"{n:.4g}" for n in (np.min(numbers), low, middle, np.mean(numbers), high, np.max(numbers))))
    return table


def _length_note(dataset: "PersonDataset", model: str | None) -> str:
    """A note on the number of captions longer than the context: in tokens of a model, or in words without a model."""
    if model is None:
        from tbps.data import CONTEXT_WORDS, long_captions

        return "".join(long_captions(dataset.images)) or f"no caption has more than {CONTEXT_WORDS} words"
    from tbps.model import count_tokens, load
    from tbps.preprocess.caption import clean_caption

    captions = [caption for image in dataset.images for caption in image.captions]
    loaded = load(model)
    cut = sum(count_tokens(loaded.tokenizer, clean_caption(caption)) > loaded.context_length for caption in captions)
    return f"{cut:,} of {len(captions):,} captions have more than {loaded.context_length} tokens and are cut by {model}"


def _sample_rows(dataset: "PersonDataset") -> "list[SheetRow]":
    """Sample of identities, evenly spaced: the first crops of each and one caption."""
    from tbps.preprocess.image import open_image
    from tbps.sheet import SheetRow, Tile

    people: dict[int, list[PersonImage]] = {}
    for image in dataset.images:
        people.setdefault(image.identity, []).append(image)
    groups = list(people.values())
    step = max(1, len(groups) // _SHEET_ROWS)
    return [
        SheetRow(
            images[0].captions[0],
            tuple(Tile(open_image(image.path), f"{image.split} {image.identity}") for image in images[:6]),
        )
        for images in groups[::step][:_SHEET_ROWS]
    ]
