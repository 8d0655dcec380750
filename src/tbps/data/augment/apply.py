"""Applying drawn augmentations to the pixels of a batch, in PyTorch; one `Round` holds the strengths for every image.

    crop       the box is resized to the size of the image
    flips      horizontal, vertical
    rotation   around the centre, black outside
    jitter     brightness b: b x; contrast c: c x + (1 - c) mean(L); saturation s: s x + (1 - s) L; each clipped to [0, 1]
    hue        rotates the hue of HSV
    grayscale  the three channels become L = 0.299 R + 0.587 G + 0.114 B
    blur       Gaussian of `blur_kernel` x `blur_kernel` pixels, the border reflected
    erase      the box is filled with one colour, `erase_fill`

A field with its neutral value changes nothing, so one round can hold any mixture of operations. Rounds are applied one after
another. Within a round, geometry comes first (crop, flips, rotation), then colour (jitter, hue, grayscale), blur and erasing.
Consecutive geometry becomes one affine map with one bilinear sampling, which blends the outermost half pixel with the black
outside. Semantics are torchvision's, except that jitter has the fixed order brightness, contrast, saturation, hue.

Computed in float32 on any device. uint8 images on a CPU are processed by OpenCV instead (`augment.opencv`), which is more than
three times as fast and differs by a few of the 256 levels.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from tbps.data.augment.rounds import LUMA, Round, neutral_round
from tbps.transfer import send

# Images per chunk on a CPU, so that their copies stay in the cache and in memory that is already allocated.
_CPU_IMAGES = 8


_KINDS = (
    ("crop", "flip", "vertical_flip", "angle"),
    ("brightness", "contrast", "saturation", "hue", "grayscale"),
    ("blur",),
    ("erase",),
)


def operation_by_operation(rounds: tuple[Round, ...], size: tuple[int, int]) -> tuple[Round, ...]:
    """Reorders operations: the geometry of all rounds first, then all colours, all blurs and all erasing."""
    found = []
    for names in _KINDS:
        for drawn in rounds:
            neutral = neutral_round(len(drawn.angle), size, drawn.angle.device)
            kept = {name: getattr(drawn, name) for name in names}
            found.append(replace(neutral, blur_kernel=drawn.blur_kernel, erase_fill=drawn.erase_fill, **kept))
    return tuple(found)


def as_unit(images: UInt8[Tensor, "N 3 H W"] | Float[Tensor, "N 3 H W"]) -> Float32[Tensor, "N 3 H W"]:
    """Returns a float32 copy in [0, 1]: uint8 is divided by 255, floats are in [0, 1] already."""
    return images.float() / 255 if images.dtype == torch.uint8 else images.to(torch.float32, copy=True)


def apply_rounds(
    images: UInt8[Tensor, "N 3 H W"] | Float[Tensor, "N 3 H W"], rounds: tuple[Round, ...]
) -> Float32[Tensor, "N 3 H W"]:
    """Applies rounds to images and returns them in [0, 1]; the rounds may be on another device."""
    if not rounds:
        return as_unit(images)
    if images.device.type == "cpu" and images.dtype == torch.uint8:
        from tbps.data.augment.opencv import augment_bytes  # OpenCV: a slow import

        return augment_bytes(images, rounds)
    if images.device.type != "cpu" or len(images) <= _CPU_IMAGES:
        return _apply_together(images, rounds)
    unit = torch.empty(images.shape, dtype=torch.float32)
    for start in range(0, len(images), _CPU_IMAGES):
        rows = slice(start, start + _CPU_IMAGES)
        unit[rows] = _apply_together(images[rows], tuple(drawn.part(rows) for drawn in rounds))
    return unit


def _apply_together(images: Tensor, rounds: tuple[Round, ...]) -> Tensor:
    unit = as_unit(images)
    count, size = len(unit), (unit.shape[2], unit.shape[3])
    device = rounds[0].angle.device
    # Geometry is collected until the next operation of another kind, so that consecutive geometry is sampled once.
    matrix, waits = torch.eye(3, device=device).repeat(count, 1, 1), torch.zeros(count, dtype=torch.bool, device=device)
    for drawn in rounds:
        moved = _moves(drawn, size)
        rows = moved.nonzero()[:, 0]
        if len(rows):
            matrix[rows] = matrix[rows] @ _backward_map(drawn, rows, size)
            waits = waits | moved
        due = waits & _changes_pixels(drawn)
        _sample(unit, matrix, due)
        matrix[due] = torch.eye(3, device=device)
        waits = waits & ~due
        for apply in (_apply_jitter, _apply_hue, _apply_grayscale, _apply_blur, _apply_erasing):
            apply(unit, drawn)
    _sample(unit, matrix, waits)
    return unit


def _moves(drawn: Round, size: tuple[int, int]) -> Tensor:
    """Returns (N,) bool: which images have geometric operations."""
    whole = torch.tensor([0.0, 0.0, *size], device=drawn.crop.device)
    return (drawn.crop != whole).any(1) | drawn.flip | drawn.vertical_flip | (drawn.angle != 0)


def _changes_pixels(drawn: Round) -> Tensor:
    """Returns (N,) bool: which images have other operations than geometry."""
    jitter = (drawn.brightness != 1) | (drawn.contrast != 1) | (drawn.saturation != 1)
    return jitter | (drawn.hue != 0) | drawn.grayscale | (drawn.blur > 0) | (drawn.erase[:, 2] > 0)


def resample(images: Float32[Tensor, "n 3 H W"], backward: Float32[Tensor, "n 2 3"]) -> Float32[Tensor, "n 3 H W"]:
    """Samples images bilinearly, black outside. `backward` maps output to input coordinates (x, y, 1), where [-1, 1] spans the
    image.
    """
    return F.grid_sample(images, _grid(backward, images.shape[2:]), mode="bilinear", padding_mode="zeros", align_corners=False)


def _grid(backward: Tensor, size: torch.Size) -> Tensor:
    """Computes the same grid (n, H, W, 2) as `F.affine_grid`, which is ten times slower on a CPU (matrix products of width 3)."""
    y, x = ((2 * torch.arange(length, device=backward.device) + 1) / length - 1 for length in size)
    grid = backward.new_empty(len(backward), *size, 2)
    for axis in range(2):
        along, down, shift = (backward[:, axis, column, None] for column in range(3))
        torch.add((down * y + shift)[:, :, None], (along * x)[:, None, :], out=grid[..., axis])
    return grid


def _sample(unit: Tensor, matrix: Tensor, due: Tensor) -> None:
    rows = due.nonzero()[:, 0]
    if len(rows):
        backward, rows = send(matrix[rows, :2], unit.device), send(rows, unit.device)
        unit.index_copy_(0, rows, resample(unit.index_select(0, rows), backward))


def _backward_map(drawn: Round, rows: Tensor, size: tuple[int, int]) -> Tensor:
    """Returns (n, 3, 3): the map from output to input coordinates, both in [-1, 1], of crop, then flips, then rotation."""
    height, width = size
    top, left, box_height, box_width = drawn.crop[rows].unbind(1)
    scale_x, scale_y = box_width / width, box_height / height
    shift_x = (2 * left + box_width) / width - 1
    shift_y = (2 * top + box_height) / height - 1
    mirror_x = torch.where(drawn.flip[rows], -1.0, 1.0)
    mirror_y = torch.where(drawn.vertical_flip[rows], -1.0, 1.0)
    radians = torch.deg2rad(drawn.angle[rows])
    cos, sin = radians.cos(), radians.sin()
    # Rotation is rigid in pixels, not in the square [-1, 1]: hence the aspect ratios. With y downwards, this rotates the image
    # counter-clockwise, because an output pixel looks up the input pixel that lies clockwise of it.
    row_x = [mirror_x * scale_x * cos, -mirror_x * scale_x * sin * (height / width), shift_x]
    row_y = [mirror_y * scale_y * sin * (width / height), mirror_y * scale_y * cos, shift_y]
    zero, one = torch.zeros_like(cos), torch.ones_like(cos)
    return torch.stack([*row_x, *row_y, zero, zero, one], 1).view(-1, 3, 3)


def _luma(images: Tensor) -> Tensor:
    """Computes the luma: (n, 3, H, W) -> (n, 1, H, W)."""
    red, green, blue = LUMA
    return (images[:, 0:1] * red).add_(images[:, 1:2], alpha=green).add_(images[:, 2:3], alpha=blue)


def _apply_jitter(unit: Tensor, drawn: Round) -> None:
    changed = (drawn.brightness != 1) | (drawn.contrast != 1) | (drawn.saturation != 1)
    rows = changed.nonzero()[:, 0]
    if not len(rows):
        return
    brightness, contrast, saturation = (
        send(factor[rows], unit.device).view(-1, 1, 1, 1) for factor in (drawn.brightness, drawn.contrast, drawn.saturation)
    )
    rows = send(rows, unit.device)
    images = unit.index_select(0, rows).mul_(brightness).clamp_(0, 1)
    mean = _luma(images).mean((1, 2, 3), keepdim=True)
    images.mul_(contrast).add_(mean * (1 - contrast)).clamp_(0, 1)
    grey = _luma(images).mul_(1 - saturation)
    unit.index_copy_(0, rows, images.mul_(saturation).add_(grey).clamp_(0, 1))


def _apply_hue(unit: Tensor, drawn: Round) -> None:
    rows = (drawn.hue != 0).nonzero()[:, 0]
    if not len(rows):
        return
    turns = send(drawn.hue[rows], unit.device).view(-1, 1, 1)
    rows = send(rows, unit.device)
    unit.index_copy_(0, rows, _turn_hue(unit.index_select(0, rows), turns))


def _turn_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Rotates the hue: to HSV, and back.

    With the hue on a circle of six, a channel is value - chroma * clamp(2 - |k - 2|, 0, 1), k = (n + hue) mod 6, n = 5, 3, 1 for
    red, green, blue. Masks are floats, and k - 2 is the distance to the nearest multiple of 6: on a CPU `where` and `remainder`
    cost ten times as much as a product.
    """
    red, green, blue = images.unbind(1)
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    is_red, is_green = (torch.eq(value, channel, out=torch.empty_like(value)) for channel in (red, green))
    is_green.mul_(1 - is_red)
    is_blue = 1 - is_red - is_green
    hue = is_red.mul_(green - blue).addcmul_(is_green, blue - red).addcmul_(is_blue, red - green)
    hue.div_(chroma.clamp(min=1e-12))  # the hue of grey is arbitrary
    hue.add_(is_green, alpha=2).add_(is_blue, alpha=4).div_(6).add_(turns)
    turned = torch.empty_like(images)
    for channel, n in enumerate((5, 3, 1)):
        turn = hue + (n - 2) / 6
        share = turn.sub_(turn.round()).abs_().mul_(-6).add_(2).clamp_(0, 1)
        torch.addcmul(value, share, chroma, value=-1, out=turned[:, channel])
    return turned.clamp_(0, 1)


def _apply_grayscale(unit: Tensor, drawn: Round) -> None:
    rows = send(drawn.grayscale.nonzero()[:, 0], unit.device)
    if len(rows):
        unit.index_copy_(0, rows, _luma(unit.index_select(0, rows)).expand(-1, 3, -1, -1))


def _apply_blur(unit: Tensor, drawn: Round) -> None:
    rows = (drawn.blur > 0).nonzero()[:, 0]
    if not len(rows):
        return
    from kornia.filters import gaussian_blur2d

    sigma = drawn.blur[rows, None].expand(-1, 2)  # Kornia checks on the CPU that they are positive, and copies them itself
    rows = send(rows, unit.device)
    unit.index_copy_(0, rows, gaussian_blur2d(unit.index_select(0, rows), drawn.blur_kernel, sigma).clamp_(0, 1))


def _apply_erasing(unit: Tensor, drawn: Round) -> None:
    rows = (drawn.erase[:, 2] > 0).nonzero()[:, 0]
    if not len(rows):
        return
    top, left, box_height, box_width = send(drawn.erase[rows], unit.device).unbind(1)
    y, x = (torch.arange(length, device=unit.device) for length in unit.shape[2:])
    inside_y = (y >= top[:, None]) & (y < (top + box_height)[:, None])  # (n, H)
    inside_x = (x >= left[:, None]) & (x < (left + box_width)[:, None])  # (n, W)
    rows = send(rows, unit.device)
    kept = 1 - inside_y[:, :, None].float() * inside_x[:, None, :].float()  # (n, H, W)
    erased = unit.index_select(0, rows).mul_(kept[:, None])
    if any(drawn.erase_fill):
        fill = send(torch.tensor(drawn.erase_fill), unit.device).view(1, 3, 1, 1)
        erased.add_((1 - kept)[:, None] * fill)
    unit.index_copy_(0, rows, erased)
