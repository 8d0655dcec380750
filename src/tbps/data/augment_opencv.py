"""What a `Round` does to uint8 images on a CPU: OpenCV, picture by picture, each step rounded to the 256 levels.

Fields, their order and the black outside are those of `augment_round`, whose float32 is the reference in tests. Apart from rounding:

    geometry   coordinates are rounded to 1/32 pixel, as in every warp of OpenCV; flips alone move whole pixels
    jitter     one matrix of colours as long as nothing leaves [0, 1] in between
    hue        in 256 steps of the circle, as torchvision turns it in Pillow's pictures
    blur       float32; the ends of the kernel that together weigh less than half a level are cut off

OpenCV releases the interpreter: with several torch threads, as many pictures are in work.
"""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from tbps.data.augment_round import LUMA, Round, backward_map

# A thread costs as much as the augmentation of a picture.
_PICTURES_A_THREAD = 4

# What both ends of a blur's kernel may weigh: along two axes they then move no pixel by more than half a level of 255.
_SPARED = 1 / 1024


class _Drawn(NamedTuple):
    """One round of one picture, without its geometry."""

    erase: list[float]
    grayscale: bool
    brightness: float
    contrast: float
    saturation: float
    hue: float
    blur: float
    blur_kernel: int


def apply_to_bytes(images: UInt8[Tensor, "N 3 H W"], rounds: tuple[Round, ...]) -> Float32[Tensor, "N 3 H W"]:
    """The images of a CPU in [0, 1] with the drawn operations applied. Quickest where a channel is the innermost in memory."""
    count, _, height, width = images.shape
    pictures = images.permute(0, 2, 3, 1).numpy()
    maps = backward_map(rounds, torch.arange(count, device=rounds[0].angle.device), (height, width)).double().cpu().numpy()
    drawn = list(zip(*map(_by_picture, rounds), strict=True))
    unit = np.empty(images.shape, dtype=np.float32)

    def work(rows: range) -> None:
        for row in rows:
            _augment(pictures[row], maps[row], drawn[row], unit[row])

    threads = max(1, min(torch.get_num_threads(), count // _PICTURES_A_THREAD))
    if threads == 1:
        work(range(count))
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, (range(start, count, threads) for start in range(threads))))
    return torch.from_numpy(unit)


def _by_picture(drawn: Round) -> list[_Drawn]:
    fields = (drawn.erase, drawn.grayscale, drawn.brightness, drawn.contrast, drawn.saturation, drawn.hue, drawn.blur)
    return [_Drawn(*row, drawn.blur_kernel) for row in zip(*(field.tolist() for field in fields), strict=True)]


def _augment(picture: np.ndarray, backward: np.ndarray, rounds: Sequence[_Drawn], unit: np.ndarray) -> None:
    """(H, W, 3) uint8, left as it is, to (3, H, W) float32 in [0, 1], written into `unit`."""
    if not picture.flags.c_contiguous:
        picture = cv2.merge([picture[..., channel] for channel in range(3)])
    picture = _move(picture, backward)
    for drawn in rounds:
        picture = _jitter(picture, drawn)
        if drawn.hue != 0:
            picture = _turn_hue(picture, drawn.hue)
        if drawn.grayscale:
            picture = cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    planes = cv2.split(picture)
    for drawn in rounds:
        if drawn.blur > 0:
            planes = [_blur(plane, drawn.blur, drawn.blur_kernel) for plane in planes]
    for plane, out in zip(planes, unit, strict=True):
        np.divide(plane, 255, out=out, dtype=np.float32)
    for drawn in rounds:
        top, left, height, width = drawn.erase
        if height > 0:
            rows, columns = _whole(top, height), _whole(left, width)
            unit[:, rows, columns] = 0


def _whole(start: float, length: float) -> slice:
    """The pixels from `start` on that lie before its end."""
    return slice(max(0, math.ceil(start)), max(0, math.ceil(start + length)))


def _move(picture: np.ndarray, backward: np.ndarray) -> np.ndarray:
    """`backward` (2, 3): from output to input coordinates, both in [-1, 1], as in `augment_round.resample`."""
    if (np.abs(backward) == np.eye(2, 3)).all():  # flips, or nothing
        mirror_x, mirror_y = backward[0, 0] < 0, backward[1, 1] < 0
        if not mirror_x and not mirror_y:
            return picture
        return cv2.flip(picture, (-1 if mirror_y else 1) if mirror_x else 0)
    height, width = picture.shape[:2]
    # Pixel x lies at (2 x + 1) / width - 1.
    half = np.array([width, height]) / 2
    matrix = backward[:, :2] * half[:, None] / half
    shift = half * (backward[:, 2] + 1) - 0.5 + matrix @ (0.5 - half)
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(picture, np.column_stack([matrix, shift]), (width, height), flags=how)


def _jitter(picture: np.ndarray, drawn: _Drawn) -> np.ndarray:
    """Brightness beyond 1 and contrast beyond 1 may leave [0, 1] and are clipped; all else is one matrix with saturation."""
    brightness, contrast, saturation = drawn.brightness, drawn.contrast, drawn.saturation
    if brightness == contrast == saturation == 1:
        return picture
    if brightness > 1:
        picture, brightness = cv2.convertScaleAbs(picture, alpha=brightness), 1
    shift = 0.0
    if contrast != 1:
        shift = (1 - contrast) * brightness * cv2.mean(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY))[0]
    scale = brightness * contrast
    if contrast > 1:
        picture, scale, shift = cv2.addWeighted(picture, scale, picture, 0, shift), 1, 0
    mix = saturation * np.eye(3) + (1 - saturation) * np.array(LUMA)
    return cv2.transform(picture, np.column_stack([scale * mix, [shift] * 3]))


def _turn_hue(picture: np.ndarray, turns: float) -> np.ndarray:
    height, width = picture.shape[:2]
    hsv = cv2.cvtColor(picture, cv2.COLOR_RGB2HSV_FULL)
    turn = np.zeros((width, 3), dtype=np.uint8)
    turn[:, 0] = round(turns * 256) % 256
    hsv += turn
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)


def _blur(plane: np.ndarray, sigma: float, size: int) -> np.ndarray:
    """(H, W) uint8 or float32 to float32."""
    kernel = _kernel(sigma, size)
    return cv2.sepFilter2D(plane, cv2.CV_32F, kernel, kernel, borderType=cv2.BORDER_REFLECT_101)


def _kernel(sigma: float, size: int) -> np.ndarray:
    """A Gaussian of `size` pixels, without the ends that weigh next to nothing; the sum is 1."""
    kernel = cv2.getGaussianKernel(size, sigma)[:, 0]
    spared = int((2 * kernel.cumsum() < _SPARED).sum())
    kernel = kernel[spared : size - spared]
    return kernel / kernel.sum()
