"""The augmentations of the plain trainer: Pillow, one picture at a time, drawn from Python's `random`."""

import math
import random
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter
from torch import Tensor

from tbps.data import ImageAugmentation, ViewAugmentation
from tbps.preprocess.image import ImageSpec


def open_resized(path: Any, spec: ImageSpec) -> Image.Image:
    """Opens an image file as RGB, resized as a whole."""
    with Image.open(path) as picture:
        return resized(picture.convert("RGB"), spec, Image.Resampling.BICUBIC)


def resized(picture: Image.Image, spec: ImageSpec, resampling: Image.Resampling) -> Image.Image:
    """Resizes the whole image to the input size."""
    return picture.resize((spec.width, spec.height), resampling)


def to_pixels(picture: Image.Image, spec: ImageSpec) -> Tensor:
    """Converts an image to (3, H, W) float32, normalised."""
    unit = torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous().float() / 255
    return (unit - torch.tensor(spec.mean).view(3, 1, 1)) / torch.tensor(spec.std).view(3, 1, 1)


def weak_view(picture: Image.Image, settings: ImageAugmentation) -> Image.Image:
    """Applies `pool_size` operations drawn from the pool of six with replacement."""
    if not settings.enabled:
        return picture
    pool = (crop_weakly, erase, grey_sometimes, jitter_weakly, flip_sometimes, rotate)
    for operation in random.choices(pool, k=settings.pool_size):
        picture = operation(picture, settings)
    return picture


def strong_view(picture: Image.Image, settings: ViewAugmentation, size: tuple[int, int]) -> Image.Image:
    """Draws a SimCLR view of (width, height) `size`: crop, then jitter, grayscale, blur and flip, each with its probability."""
    picture = crop(picture, settings.crop_scale, settings.crop_ratio, size)
    if random.random() < settings.jitter_probability:
        picture = jitter(picture, (settings.brightness, settings.contrast, settings.saturation))
        picture = turn_hue(picture, random.uniform(-settings.hue, settings.hue))
    if random.random() < settings.grayscale_probability:
        picture = picture.convert("L").convert("RGB")
    if random.random() < settings.blur_probability:
        picture = picture.filter(ImageFilter.GaussianBlur(random.uniform(*settings.blur_sigma)))
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.random() < settings.flip_probability else picture


def crop_weakly(picture: Image.Image, settings: ImageAugmentation) -> Image.Image:
    return crop(picture, settings.crop_scale, settings.crop_ratio, picture.size)


def erase(picture: Image.Image, settings: ImageAugmentation) -> Image.Image:
    if random.random() >= settings.erase_probability:
        return picture
    low, high = settings.erase_ratio
    box = draw_box(picture.size, settings.erase_area, (1 / high, 1 / low))
    if box is None:
        return picture
    left, top, right, bottom = box
    erased = picture.copy()
    ImageDraw.Draw(erased).rectangle((left, top, right - 1, bottom - 1), fill=(0, 0, 0))
    return erased


def grey_sometimes(picture: Image.Image, settings: ImageAugmentation) -> Image.Image:
    return picture.convert("L").convert("RGB") if random.random() < settings.grayscale_probability else picture


def jitter_weakly(picture: Image.Image, settings: ImageAugmentation) -> Image.Image:
    return jitter(picture, (settings.brightness, settings.contrast, settings.saturation))


def flip_sometimes(picture: Image.Image, settings: ImageAugmentation) -> Image.Image:
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.random() < settings.flip_probability else picture


def rotate(picture: Image.Image, settings: ImageAugmentation) -> Image.Image:
    angle = random.uniform(-settings.rotation_degrees, settings.rotation_degrees)
    return picture.rotate(angle, Image.Resampling.BILINEAR)


def crop(picture: Image.Image, scale: tuple[float, float], ratio: tuple[float, float], size: tuple[int, int]) -> Image.Image:
    """Draws a RandomResizedCrop to (width, height) `size` as torchvision does: where no box fits, the largest central one within
    the ratio.
    """
    box = draw_box(picture.size, scale, ratio) or central_box(picture.size, ratio)
    return picture.crop(box).resize(size, Image.Resampling.BILINEAR)


def draw_box(size: tuple[int, int], area: tuple[float, float], ratio: tuple[float, float]) -> tuple[int, int, int, int] | None:
    """Draws a box (left, top, right, bottom) with a share of the area and a width/height; None where none of ten draws fits."""
    for _ in range(10):
        pixels = random.uniform(*area) * size[0] * size[1]
        shape = math.exp(random.uniform(math.log(ratio[0]), math.log(ratio[1])))
        width, height = round(math.sqrt(pixels * shape)), round(math.sqrt(pixels / shape))
        if 0 < width <= size[0] and 0 < height <= size[1]:
            left, top = random.randint(0, size[0] - width), random.randint(0, size[1] - height)
            return left, top, left + width, top + height
    return None


def central_box(size: tuple[int, int], ratio: tuple[float, float]) -> tuple[int, int, int, int]:
    """Returns the largest central box (left, top, right, bottom) with width/height in `ratio`."""
    width, height = min(size[0], round(size[1] * ratio[1])), min(size[1], round(size[0] / ratio[0]))
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return left, top, left + width, top + height


def jitter(picture: Image.Image, strengths: tuple[float, float, float]) -> Image.Image:
    """Changes brightness, contrast and saturation by factors within 1 +- strength."""
    for enhance, strength in zip((ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color), strengths, strict=True):
        picture = enhance(picture).enhance(random.uniform(1 - strength, 1 + strength))
    return picture


def turn_hue(picture: Image.Image, turns: float) -> Image.Image:
    """Rotates the hue as torchvision does for Pillow images."""
    hue, saturation, value = picture.convert("HSV").split()
    turned = np.asarray(hue) + np.uint8(round(turns * 255) % 256)
    return Image.merge("HSV", (Image.fromarray(turned, "L"), saturation, value)).convert("RGB")
