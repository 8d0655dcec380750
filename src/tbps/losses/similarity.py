"""Unit embeddings and their cosine similarities: the common first step of all contrastive losses.

Without `gathered` the n rows of a loss are also its columns. With `gathered=(image_all, text_all)` the rows are the n pairs of this
process, and the columns are the N pairs of all processes: both directions of retrieval compare local rows with global columns and
average over the local rows. The mean over processes with equally many rows equals the loss of one process with the whole batch.
The same holds for the gradient if gradients flow through the gather.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

Gathered = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class Sides:
    """Unit embeddings in float32 or float64: local `image` and `text` (n, D), and those of all processes (N, D)."""

    image: Tensor
    text: Tensor
    image_all: Tensor
    text_all: Tensor


def unit_sides(image: Tensor, text: Tensor, gathered: Gathered | None) -> Sides:
    """Normalise the embeddings of a batch to unit length. Raises ValueError if the shapes do not fit together."""
    image_all, text_all = (image, text) if gathered is None else gathered
    _check_shapes(image, text, image_all, text_all)
    double = torch.float64 in (image.dtype, text.dtype, image_all.dtype, text_all.dtype)
    dtype = torch.float64 if double else torch.float32
    rows = (_unit(image, dtype), _unit(text, dtype))
    return Sides(*rows, *(rows if gathered is None else (_unit(image_all, dtype), _unit(text_all, dtype))))


def similarity(rows: Tensor, columns: Tensor) -> Tensor:
    """Computes cosines (n, N) of unit rows (n, D) and (N, D), in full precision under any autocast."""
    with torch.autocast(rows.device.type, enabled=False):
        return rows @ columns.T


def directions(sides: Sides, scale: Tensor | float) -> tuple[Tensor, Tensor]:
    """Scaled similarities (n, N) of image to text and of text to image; row i is the i-th local query of its direction."""
    if isinstance(scale, Tensor):
        scale = scale.to(sides.image.dtype)
    return scale * similarity(sides.image, sides.text_all), scale * similarity(sides.text, sides.image_all)


def find_rows(image: Tensor, text: Tensor, gathered: Gathered | None, row_start: int | None) -> int:
    """Returns the column of the first local row: `row_start` if given, else the position of the local among the gathered pairs.

    The search compares exactly, so the gathered tensors must be unchanged copies, and it synchronises with the device. A training
    loop passes `row_start` (rank times local batch size), which also works for embeddings that are NaN. Raises ValueError if the
    rows are not found.
    """
    if gathered is None:
        return 0
    image_all, text_all = gathered
    _check_shapes(image, text, image_all, text_all)
    last = len(image_all) - len(image)
    if row_start is not None:
        if not 0 <= row_start <= last:
            raise ValueError(f"row_start {row_start} is outside 0..{last}: {len(image)} rows among {len(image_all)} columns")
        return row_start
    first = (image_all[: last + 1] == image[0]).all(dim=1) & (text_all[: last + 1] == text[0]).all(dim=1)
    for start in first.nonzero().flatten().tolist():
        rows = slice(start, start + len(image))
        if torch.equal(image_all[rows], image) and torch.equal(text_all[rows], text):
            return int(start)
    raise ValueError(
        "the local rows are not among the gathered ones bit for bit; pass row_start, the column of the first local row"
    )


def _check_shapes(image: Tensor, text: Tensor, image_all: Tensor, text_all: Tensor) -> None:
    for what, one, other in (("rows", image, text), ("gathered columns", image_all, text_all)):
        if one.ndim != 2 or one.shape != other.shape or len(one) == 0:
            shapes = f"{tuple(one.shape)} and {tuple(other.shape)}"
            raise ValueError(f"{what} of a loss are two equal (N, D) matrices with N >= 1, not {shapes}")
    if image_all.shape[1] != image.shape[1] or len(image_all) < len(image):
        raise ValueError(f"gathered embeddings {tuple(image_all.shape)} cannot hold the local ones {tuple(image.shape)}")


def _unit(embeddings: Tensor, dtype: torch.dtype) -> Tensor:
    return F.normalize(embeddings.to(dtype), dim=1)
