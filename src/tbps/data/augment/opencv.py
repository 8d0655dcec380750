"""Applying drawn augmentations to uint8 images on a CPU with OpenCV, image by image; each step is rounded to the 256 levels.

Fields, their order and the black outside are those of `augment.apply`, whose float32 results are the reference in tests.
Differences besides rounding:

    geometry   coordinates are rounded to 1/32 pixel, as in every warp of OpenCV; flips alone move whole pixels
    jitter     one colour matrix as long as no value leaves [0, 1] in between
    hue        255 steps of the circle, as for Pillow's images: a saturated colour may differ by six levels
    blur       float32; ends of the kernel that together weigh less than half a level are cut off. Blur and the colour of an erased
               box are rounded only if a geometric or colour operation follows

OpenCV releases the interpreter lock: as many images are processed in parallel as torch may use threads. OpenCV itself uses one
thread for images of up to 2^16 pixels.
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

from tbps.data.augment.rounds import LUMA, Round

# Images per thread below which a thread costs more than it saves.
_IMAGES_PER_THREAD = 4

# Weight of the ends of a blur kernel that may be cut off: along two axes this changes no pixel by more than half a level.
_SPARED = 1 / 1024


class _Drawn(NamedTuple):
    """One round for one image."""

    blur_kernel: int
    erase_fill: tuple[float, float, float]
    crop: list[float]
    erase: list[float]
    grayscale: bool
    brightness: float
    contrast: float
    saturation: float
    hue: float
    flip: bool
    vertical_flip: bool
    angle: float
    blur: float

    @property
    def colours(self) -> bool:
        """Whether any colour operation applies."""
        return not self.brightness == self.contrast == self.saturation == 1 or self.hue != 0 or self.grayscale

    @property
    def late(self) -> bool:
        """Whether blur or erasing applies; their results stay in float32 until geometry or colour follows."""
        return self.blur > 0 or self.erase[2] > 0


def augment_bytes(images: UInt8[Tensor, "N 3 H W"], rounds: tuple[Round, ...]) -> Float32[Tensor, "N 3 H W"]:
    """Applies rounds to images on a CPU and returns them in [0, 1]; the rounds may be on another device."""
    count = len(images)
    pictures = images.permute(0, 2, 3, 1).numpy()
    drawn = list(zip(*(_by_picture(one) for one in rounds), strict=True))
    unit = np.empty(images.shape, dtype=np.float32)

    def work(rows: range) -> None:
        for row in rows:
            _augment(pictures[row], drawn[row], unit[row])

    threads = min(torch.get_num_threads(), count // _IMAGES_PER_THREAD)
    if threads <= 1:
        work(range(count))
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, (range(first, count, threads) for first in range(threads))))
    return torch.from_numpy(unit)


def _by_picture(drawn: Round) -> list[_Drawn]:
    columns = (getattr(drawn, name).tolist() for name in _Drawn._fields[2:])
    return [_Drawn(drawn.blur_kernel, drawn.erase_fill, *row) for row in zip(*columns, strict=True)]


def _augment(picture: np.ndarray, rounds: Sequence[_Drawn], unit: np.ndarray) -> None:
    """Augments one image: (H, W, 3) uint8, not modified, to (3, H, W) float32 in [0, 1], written to `unit`.

    Geometry is collected until the next operation of another kind, blur and erasing until the next geometry or colour.
    """
    height, width = picture.shape[:2]
    if not picture.flags.c_contiguous:
        picture = cv2.merge([picture[..., channel] for channel in range(3)])
    moves: list[_Drawn] = []
    late: list[_Drawn] = []
    for drawn in rounds:
        if drawn.flip or drawn.vertical_flip or drawn.angle != 0 or drawn.crop != [0, 0, height, width]:
            picture, late = _settle(picture, late), []
            moves.append(drawn)
        if drawn.colours:
            picture, late = _colour(_move(_settle(picture, late), moves), drawn), []
            moves = []
        if drawn.late:
            picture, moves = _move(picture, moves), []
            late.append(drawn)
    _finish(_move(picture, moves), late, unit)
    unit /= 255


def _colour(picture: np.ndarray, drawn: _Drawn) -> np.ndarray:
    picture = _jitter(picture, drawn)
    if drawn.hue != 0:
        picture = _turn_hue(picture, drawn.hue)
    if drawn.grayscale:
        picture = cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return picture


def _settle(picture: np.ndarray, late: Sequence[_Drawn]) -> np.ndarray:
    """Applies collected blur and erasing and rounds the image to 8 bits."""
    if not late:
        return picture
    planes = np.empty((3, *picture.shape[:2]), dtype=np.float32)
    _finish(picture, late, planes)
    settled: np.ndarray = cv2.merge([cv2.convertScaleAbs(plane) for plane in planes])
    return settled


def _finish(picture: np.ndarray, late: Sequence[_Drawn], out: np.ndarray) -> None:
    """Blurs and erases (H, W, 3) uint8 into (3, H, W) float32, both in 0 .. 255."""
    planes: Sequence[np.ndarray] = cv2.split(picture)
    for drawn in late:
        if drawn.blur > 0:
            planes = _blur(planes, drawn.blur, drawn.blur_kernel)
        top, left, height, width = drawn.erase
        if height > 0:
            planes = [plane.astype(np.float32, copy=False) for plane in planes]
            for plane, fill in zip(planes, drawn.erase_fill, strict=True):
                plane[_whole(top, height), _whole(left, width)] = 255 * fill
    for plane, target in zip(planes, out, strict=True):
        target[...] = plane


def _whole(start: float, length: float) -> slice:
    """Returns the whole pixels whose index lies in [start, start + length)."""
    return slice(max(0, math.ceil(start)), max(0, math.ceil(start + length)))


def _move(picture: np.ndarray, rounds: Sequence[_Drawn]) -> np.ndarray:
    if not rounds:
        return picture
    height, width = picture.shape[:2]
    backward = _backward_map(rounds, height, width)
    if (np.abs(backward) == np.eye(2, 3)).all():
        mirrors = backward.diagonal().tolist()
        return picture if mirrors == [1, 1] else cv2.flip(picture, {(-1, 1): 1, (1, -1): 0, (-1, -1): -1}[tuple(mirrors)])
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    backward[:, 2] += centre - backward[:, :2] @ centre
    return cv2.warpAffine(picture, backward, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)


def _backward_map(rounds: Sequence[_Drawn], height: int, width: int) -> np.ndarray:
    """Returns (2, 3), from output to input coordinates, in pixels from the centre of the image, y downwards."""
    backward = np.eye(3)
    for drawn in rounds:
        top, left, box_height, box_width = drawn.crop
        scale_x = (-1 if drawn.flip else 1) * box_width / width
        scale_y = (-1 if drawn.vertical_flip else 1) * box_height / height
        cos, sin = math.cos(math.radians(drawn.angle)), math.sin(math.radians(drawn.angle))
        row_x = [scale_x * cos, -scale_x * sin, left + (box_width - width) / 2]
        row_y = [scale_y * sin, scale_y * cos, top + (box_height - height) / 2]
        backward = backward @ np.array([row_x, row_y, [0, 0, 1]])
    return backward[:2]


def _jitter(picture: np.ndarray, drawn: _Drawn) -> np.ndarray:
    """Applies jitter. Results of brightness or contrast above 1 may leave [0, 1] and are clipped at once; all other factors are
    combined with saturation into one matrix.
    """
    brightness, contrast, saturation = drawn.brightness, drawn.contrast, drawn.saturation
    if brightness == contrast == saturation == 1:
        return picture
    if brightness > 1:
        picture, brightness = cv2.convertScaleAbs(picture, alpha=brightness), 1
    shift = 0.0
    if contrast != 1:
        shift = (1 - contrast) * brightness * cv2.mean(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY))[0]
    scale = brightness * contrast
    if contrast > 1 or saturation == 1:
        picture, scale, shift = cv2.addWeighted(picture, scale, picture, 0, shift), 1, 0
    if saturation == 1:
        return picture
    mix = saturation * np.eye(3) + (1 - saturation) * np.array(LUMA)
    return cv2.transform(picture, np.column_stack([scale * mix, [shift] * 3]))


def _turn_hue(picture: np.ndarray, turns: float) -> np.ndarray:
    hsv = cv2.cvtColor(picture, cv2.COLOR_RGB2HSV_FULL)
    # OpenCV writes a hue in 256ths of the circle and reads it in 255ths.
    turned = ((np.arange(256) / 256 + turns) % 1 * 255).round().astype(np.uint8)
    hsv = cv2.insertChannel(cv2.LUT(cv2.extractChannel(hsv, 0), turned), hsv, 0)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)


def _blur(planes: Sequence[np.ndarray], sigma: float, size: int) -> Sequence[np.ndarray]:
    """Blurs three planes (H, W), uint8 or float32, to float32."""
    kernel = _kernel(sigma, size)
    return [cv2.sepFilter2D(plane, cv2.CV_32F, kernel, kernel, borderType=cv2.BORDER_REFLECT_101) for plane in planes]


def _kernel(sigma: float, size: int) -> np.ndarray:
    """Returns a Gaussian kernel of `size` pixels with sum 1, without ends of negligible weight."""
    kernel = cv2.getGaussianKernel(size, sigma)[:, 0]
    spared = int((2 * kernel.cumsum() < _SPARED).sum())
    kernel = kernel[spared : size - spared]
    return np.asarray(kernel / kernel.sum())
