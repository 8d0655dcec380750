"""Write a diagnosis (`tbps.study.diagnosis`) as diagnosis.md and failures.png."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from tbps.data.records import PersonDataset
from tbps.evaluation import Embeddings
from tbps.preprocess.image import open_image
from tbps.sheet import SheetRow, Tile, contact_sheet
from tbps.storage import atomic_path, write_text
from tbps.study.diagnosis import LEAST, TWIN_THINGS, Diagnosis, Failure
from tbps.study.report.grids import Grid
from tbps.study.report.markdown import markdown_rows, markdown_text


def write_diagnosis(found: Diagnosis, split: PersonDataset, embedded: Embeddings, about: str, folder: Path) -> list[Path]:
    """Write diagnosis.md and, if there are failures, failures.png; returns their paths. `about`: names model, data and split."""
    text, picture = folder / "diagnosis.md", folder / "failures.png"
    write_text(text, _text(found, f"{about}, model {embedded.model}"))
    if not found.failures:
        return [text]
    with atomic_path(picture) as temporary:
        failure_sheet(found, split, embedded, about).save(temporary, format="PNG")
    return [text, picture]


def failure_sheet(found: Diagnosis, split: PersonDataset, embedded: Embeddings, about: str) -> Image.Image:
    """Draw the failures, one per row: the first images found, then the image that the caption describes."""
    pairs = split.pairs()

    def row(failure: Failure) -> SheetRow:
        pair = pairs[failure.query]
        person = embedded.text_ids[failure.query]
        tiles = [
            Tile(open_image(split.images[image].path), f"{place}.", right=bool(embedded.image_ids[image] == person))
            for place, image in enumerate(failure.found, 1)
        ]
        own = Tile(open_image(split.images[pair.image].path), f"described\nbest rank: {failure.rank}", right=None)
        return SheetRow(split.images[pair.image].captions[pair.caption], (*tiles, own))

    return contact_sheet([row(failure) for failure in found.failures], title=f"Failures with the largest margin: {about}")


def _text(found: Diagnosis, about: str) -> str:
    twins = found.twins
    slots = [(m.slot, f"{m.queries:,}", _one(m.r1), _one(m.r1_without), _signed(m.r1, m.r1_without)) for m in found.mentioned]
    swaps = [(s.group, f"{s.captions:,}", _one(s.preferred), f"{s.drop:+.4f}", _one(s.share)) for s in found.swapped]
    words = [(f"{word} to {other}", f"{count:,}", _one(percent)) for word, other, count, percent in found.words]
    parts = [
        f"# Diagnosis: {markdown_text(about)}",
        f"{found.queries:,} captions against {found.gallery:,} images: Rank-1 {found.r1:.2f} %; a single model and split.",
        "## Rank-1 by attribute mentioned",
        f"Attributes that fewer than {LEAST} captions mention are left out. Captions that mention one attribute often mention "
        "others too, so the differences are between groups of captions and are not effects of a single word.",
        *_rows(("attribute", "captions", "Rank-1, %", "without it, %", "difference"), slots),
        "## Near-twins",
        f"{twins.with_twin:,} of {twins.people:,} people have somebody who differs in at most {TWIN_THINGS} things.",
        *_rows(
            ("", "%", "captions"),
            [
                ("Rank-1, people with a near-twin", _one(twins.r1_with), ""),
                ("Rank-1, others", _one(twins.r1_without), ""),
                ("errors that found the twin first", _share(twins.errors_to_twin, twins.errors), f"{twins.errors:,}"),
                ("own above twin, difference mentioned", *_percent_and_count(twins.told_apart_named)),
                ("own above twin, difference not mentioned", *_percent_and_count(twins.told_apart_unnamed)),
            ],
        ),
        "## One false word",
        "How often the true caption scores higher with its image than the false one, and which share of its lead over the mean "
        "image is lost through the false word. The control group changes the wording but not the meaning.",
        *_rows(("words", "captions", "true preferred, %", "drop in cosine", "share of the lead, %"), swaps),
        *_rows(("least noticed", "captions", "true preferred, %"), words),
        "## Failures with the largest margin",
        "![captions, the images found first, and the image described](failures.png)" if found.failures else "None.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _rows(headings: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    return ["\n".join(markdown_rows(Grid(headings, tuple(rows))))] if rows else []


def _percent_and_count(found: tuple[float | None, int]) -> tuple[str, str]:
    return _one(found[0]), f"{found[1]:,}"


def _one(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _signed(value: float, other: float | None) -> str:
    return "" if other is None else f"{value - other:+.1f}"


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}" if whole else ""
