"""Drawing an image of a person from a viewpoint."""

import io
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool
from PIL import Image

from tbps.data.mannequins.camera import Eye, expose, sample_camera
from tbps.data.mannequins.canvas import SCALE, Canvas
from tbps.data.mannequins.figure import body_of
from tbps.data.mannequins.people import Mannequin, Viewpoint
from tbps.data.mannequins.portrait import paint_person
from tbps.data.mannequins.scene import paint_clutter, paint_foreground, sample_scene


@dataclass(frozen=True, slots=True)
class Rendered:
    """A finished crop and the JPEG quality to store it with."""

    image: Image.Image
    quality: int


def draw_person(person: Mannequin, view: Viewpoint) -> Rendered:
    """Draws the person from the viewpoint; depends on these two arguments only."""
    return _render(person, view)


def draw_background(view: Viewpoint) -> Rendered:
    """Draws the image of `draw_person` without the person."""
    return _render(None, view)


def figure_mask(person: Mannequin, view: Viewpoint) -> Bool[np.ndarray, "height width"]:
    """Returns the mask of the person and their things, without shadows. Obstacles are ignored.

    Drawn over black and over white: pixels that are equal in both belong to the person.
    """
    camera = sample_camera(view)
    size, painted = (camera.width * SCALE, camera.height * SCALE), []
    for ground in ((0, 0, 0), (255, 255, 255)):
        canvas = Canvas(Image.new("RGB", size, ground), camera.sun)
        paint_person(canvas, person, view, Eye(camera, body_of(person).scale))
        painted.append(np.asarray(canvas.colours))
    alike = (painted[0] == painted[1]).all(axis=2)
    return np.asarray(alike.reshape(camera.height, SCALE, camera.width, SCALE).any(axis=(1, 3)))


def encode_picture(rendered: Rendered) -> bytes:
    """Encodes the crop as a JPEG file."""
    buffer = io.BytesIO()
    rendered.image.save(buffer, "JPEG", quality=rendered.quality)
    return buffer.getvalue()


def _render(person: Mannequin | None, view: Viewpoint) -> Rendered:
    camera = sample_camera(view)
    scene = sample_scene(view, camera)
    canvas = Canvas(scene.ground, camera.sun, scene.ambient)
    paint_clutter(canvas, scene, camera)
    if person is not None:
        paint_person(canvas, person, view, Eye(camera, body_of(person).scale))
    paint_foreground(canvas, scene, camera, view)
    return Rendered(expose(canvas.picture(scene.offset), camera), camera.quality)
