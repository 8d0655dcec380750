"""Passers-by in the background and at the edges of crops; each process draws a pool of cut-out figures once."""

from dataclasses import replace
from functools import cache

import numpy as np
from PIL import Image, ImageFilter

from tbps.data.mannequins.camera import Eye, sample_camera
from tbps.data.mannequins.canvas import SCALE, Canvas
from tbps.data.mannequins.figure import body_of
from tbps.data.mannequins.population import sample_person, sample_view
from tbps.data.mannequins.portrait import paint_person
from tbps.seeding import generator

POOL = 96
_TALL, _WIDE = 260, 180


@cache
def passer(number: int) -> Image.Image:
    """Draws a cut-out (RGBA, `_WIDE` x `_TALL`) of a random walking person, with the feet at the lower edge."""
    rng = generator(0, "mannequins", "passer", number)
    person, view = sample_person(rng), replace(sample_view(rng), hidden="none")
    camera = replace(sample_camera(view), width=_WIDE, height=_TALL, body=_TALL * 0.9, ground=_TALL * 0.96, centre=_WIDE / 2)
    canvas = Canvas(Image.new("RGB", (_WIDE * SCALE, _TALL * SCALE), (110, 110, 108)), camera.sun)
    paint_person(canvas, person, view, Eye(camera, body_of(person).scale))
    values = np.clip(canvas.picture((0, 0)), 0, 255).astype(np.uint8)
    picture = Image.merge("RGB", [Image.fromarray(plane) for plane in values])
    mask = Image.fromarray(canvas.mask().astype(np.uint8) * 255).filter(ImageFilter.BoxBlur(0.6))
    picture.putalpha(mask)
    return picture
