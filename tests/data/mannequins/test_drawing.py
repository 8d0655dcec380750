"""Images depend on person and viewpoint only; camera and background depend on the viewpoint's seed."""

import hashlib
import io
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tbps.data.mannequins.camera import sample_camera
from tbps.data.mannequins.colours import COLOURS
from tbps.data.mannequins.drawing import draw_background, draw_person, encode_picture, figure_mask
from tbps.data.mannequins.people import Mannequin, Viewpoint
from tbps.data.mannequins.population import population, sample_view
from tbps.seeding import generator

PEOPLE = population(3, "train", 60)


def views(count: int, name: str = "views") -> list[Viewpoint]:
    rng = generator(8, name)
    return [sample_view(rng) for _ in range(count)]


def digest(count: int) -> str:
    found = hashlib.sha256()
    for person, view in zip(PEOPLE[:count], views(count), strict=True):
        found.update(encode_picture(draw_person(person, view)))
    return found.hexdigest()


def test_images_are_reproducible_in_another_process() -> None:
    script = "from tests.data.mannequins.test_drawing import digest; print(digest(8))"
    settings = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(Path(__file__).parents[3])}
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=settings)
    assert digest(8) == digest(8) == told.stdout.strip()


def test_images_do_not_depend_on_the_order_of_drawing() -> None:
    pairs = list(zip(PEOPLE[:6], views(6), strict=True))
    forward = [encode_picture(draw_person(person, view)) for person, view in pairs]
    backward = [encode_picture(draw_person(person, view)) for person, view in reversed(pairs)]
    assert forward == backward[::-1]


def test_image_and_file_sizes() -> None:
    sizes, qualities, weights = [], set(), []
    for person, view in zip(PEOPLE, views(60), strict=True):
        rendered = draw_person(person, view)
        data = encode_picture(rendered)
        with Image.open(io.BytesIO(data)) as opened:
            assert opened.format == "JPEG"
            assert opened.size == rendered.image.size
            opened.load()
        sizes.append(rendered.image.size)
        qualities.add(rendered.quality)
        weights.append(len(data))
    widths, heights = zip(*sizes, strict=True)
    assert min(widths) >= 56 and max(widths) <= 168
    assert min(heights) >= 96 and max(heights) <= 400
    assert len(set(sizes)) > 50 and len(qualities) > 15
    assert min(weights) > 1000 and max(weights) < 60_000


def test_camera_and_background_do_not_depend_on_the_person() -> None:
    """Compares two people from one viewpoint: equal size, JPEG quality, and pixels outside of both figures and their shadows."""
    left = []
    for number, view in enumerate(views(40)):
        first, second = PEOPLE[number], PEOPLE[(number + 17) % len(PEOPLE)]
        pictures = [draw_person(first, view), draw_person(second, view), draw_background(view)]
        assert len({(p.image.size, p.quality) for p in pictures}) == 1
        away = ~_near(figure_mask(first, view) | figure_mask(second, view), view)
        left.append(away.mean())
        one, two, empty = (np.asarray(p.image)[away] for p in pictures)
        assert (one == two).all() and (one == empty).all()
    assert np.mean(left) > 0.2


def _near(mask: np.ndarray, view: Viewpoint) -> np.ndarray:
    """Returns a mask of the figure and the surroundings that blur and shadow may change."""
    grown = mask.copy()
    for axis in (0, 1):
        grown = np.logical_or.reduce([np.roll(grown, shift, axis) for shift in range(-6, 7)])
    camera = sample_camera(view)
    grown[int(camera.ground - 0.25 * camera.body) :] = True
    return grown


def test_the_person_is_visible_in_every_image() -> None:
    for person, view in zip(PEOPLE, views(60, "stand"), strict=True):
        share = figure_mask(person, view).mean()
        assert 0.12 < share < 0.75, (person, view)


def test_clothes_have_their_colour() -> None:
    """The median colour of the upper garment is nearest, in CIELAB, to the centre of its colour name in most images."""
    exact = family = total = 0
    names = list(COLOURS)
    centres = lab(np.array([COLOURS[name].rgb for name in names]))
    for person, view in zip(population(4, "train", 160), views(160, "colours"), strict=True):
        if person.upper.pattern != "plain":
            continue
        found = names[int(np.argmin(((centres - lab(upper_colour(person, view))) ** 2).sum(axis=1)))]
        total += 1
        exact += found == person.upper.colour
        family += COLOURS[found].family == COLOURS[person.upper.colour].family
    assert total > 90
    assert exact / total > 0.8
    assert family / total > 0.88


def upper_colour(person: Mannequin, view: Viewpoint) -> np.ndarray:
    """Returns the median colour of the pixels that show the upper garment's colour."""
    view = replace(view, hidden="none")
    away = "red" if COLOURS[person.upper.colour].family != "red" else "green"
    dyed = replace(person, upper=replace(person.upper, colour=away, tint=(0, 0, 0)))
    picture, other = (np.asarray(draw_person(p, view).image, dtype=float) for p in (person, dyed))
    return np.asarray(np.median(picture[np.abs(picture - other).max(axis=2) > 25], axis=0))


def lab(rgb: np.ndarray) -> np.ndarray:
    """Converts sRGB (0 .. 255) to CIELAB under D65 (IEC 61966-2-1, CIE 15)."""
    value = np.asarray(rgb, dtype=float) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    ratio = linear @ matrix.T / np.array([0.9505, 1.0, 1.089])
    f = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1)


@pytest.mark.parametrize(("direction", "side"), [("front", 1), ("back", -1)])
def test_the_left_hand_is_at_the_right_of_front_views_and_at_the_left_of_back_views(direction: str, side: int) -> None:
    for number, person in enumerate(p for p in PEOPLE if p.bag is not None and p.bag.side == "left"):
        assert person.bag is not None
        view = Viewpoint(direction, 0.25, "none", 100 + number)
        with_bag, without = (np.asarray(draw_person(p, view).image, dtype=int) for p in (person, replace(person, bag=None)))
        columns = np.nonzero(np.abs(with_bag - without).max(axis=2) > 12)[1]
        if person.bag.kind != "messenger bag":  # its strap crosses the body
            assert side * (columns.mean() - sample_camera(view).centre) > 0
