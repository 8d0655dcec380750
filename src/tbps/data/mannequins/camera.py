"""The camera of an image: position, framing and image quality, all drawn from the seed of the viewpoint."""

from dataclasses import dataclass
from functools import cache
from math import cos, exp, hypot, log, radians, sin

import numpy as np
from jaxtyping import Float32
from PIL import Image

from tbps.data.mannequins.people import Viewpoint
from tbps.data.mannequins.tubes import Point
from tbps.seeding import generator

YAW = {"front": 0.0, "left": 90.0, "back": 180.0, "right": -90.0}
CUT = {"none": -0.2, "feet": 0.185, "legs": 0.305}  # `Viewpoint.hidden` -> height in body heights below which the person is hidden
NOISE_TILE = 640


@dataclass(frozen=True, slots=True)
class Camera:
    """Camera parameters; lengths in pixels of the crop, angles in degrees."""

    width: int
    height: int
    yaw: float  # turn of the person from the exact front, left, back or right
    pitch: float  # how far the camera looks down
    squeeze: float  # shortening of the legs by a high camera
    stretch: float  # width of things relative to their height
    body: float  # the height of an average adult
    ground: float  # y of the ground below the person
    centre: float  # x of the person
    cropped: bool  # whether the crop's lower edge, not an obstacle, hides the part named by `Viewpoint.hidden`
    sun: float
    grade: Float32[np.ndarray, "3 3"]  # colour matrix: exposure, cast and saturation
    lift: float  # added to every value: haze
    blur: float
    shake: float  # additional blur along the rows
    noise: float  # standard deviation
    shift: tuple[int, int]  # of the noise tile
    quality: int  # of the JPEG


def sample_camera(view: Viewpoint) -> Camera:
    rng = generator(view.seed, "camera")
    a = rng.random(24).tolist()
    cropped = view.hidden != "none" and a[0] < 0.5
    full = exp(log(134) + (log(400) - log(134)) * a[1] ** 1.5)
    bottom = CUT[view.hidden] if cropped else 0.0
    margin, below = 0.072 + 0.068 * a[2], (0.0 if cropped else 0.02 + 0.06 * a[3])
    squeeze = 0.16 * a[4]
    seen = 1.0 - _squeezed(bottom, squeeze)
    height = round(full * (0.25 + 0.75 * seen))
    body = height * (1 - margin - below) / seen
    aspect = (0.43 + 0.1 * a[5]) * (0.9 + 0.2 * a[6]) * min(1.0, 0.8 + 40 / full)
    width = min(168, max(56, round(body * aspect * 1.06)))
    exposure, saturation = exp(0.3 * (a[7] - 0.5)), 0.8 + 0.28 * a[8]
    cast = np.exp(0.12 * (np.array(a[21:]) - 0.5))
    return Camera(
        width=width,
        height=height,
        yaw=YAW[view.direction] + (28 if view.direction in ("front", "back") else 18) * (a[9] - 0.5),
        pitch=2 + 14 * a[10] ** 1.5,
        squeeze=squeeze,
        stretch=0.93 + 0.14 * a[11],
        body=body,
        ground=height * margin + body,
        centre=width * (0.5 + 0.08 * (a[12] - 0.5)),
        cropped=cropped,
        sun=2 * a[13] - 1,
        grade=_grade(exposure, saturation, cast),
        lift=10 * a[14] ** 2,
        blur=0.24 * a[15] ** 1.5,
        shake=0.22 * max(0.0, a[16] * 2 - 1.2),
        noise=1.0 + 7.0 * a[17] ** 2.5,
        shift=(int(a[19] * (NOISE_TILE - 180)), int(a[20] * (NOISE_TILE - 420))),
        quality=int(58 + 38 * a[18]),
    )


def _grade(exposure: float, saturation: float, cast: np.ndarray) -> np.ndarray:
    grey = np.full((3, 3), (1 - saturation) / 3)
    return np.asarray((grey + np.eye(3) * saturation) * (cast * exposure)[:, None], dtype=np.float32)


def _squeezed(z: float, squeeze: float) -> float:
    return z * (1 + squeeze * (min(z, 1.0) - 1))


class Eye:
    """Projects coordinates of a body to pixels.

    Coordinates are in body heights: x to the person's left, y forward, z up from the ground.
    """

    __slots__ = ("_cos", "_sin", "_tilt", "base", "camera", "centre", "facing", "unit", "wide")

    def __init__(self, camera: Camera, height: float, offset: Point = (0.0, 0.0)) -> None:
        self.camera = camera
        self.facing = camera.yaw
        self._cos, self._sin = cos(radians(camera.yaw)), sin(radians(camera.yaw))
        self._tilt = sin(radians(camera.pitch))
        self.unit = camera.body * height
        self.wide = self.unit * camera.stretch
        self.base = camera.ground + offset[1]
        self.centre = camera.centre + offset[0]

    def at(self, x: float, y: float, z: float) -> Point:
        u, d = x * self._cos - y * self._sin, x * self._sin + y * self._cos
        near = 1 + self.camera.squeeze * (z - 0.5)
        low = z * (1 + self.camera.squeeze * (min(z, 1.0) - 1))
        return self.centre + u * near * self.wide, self.base - low * self.unit + d * self._tilt * self.unit

    def depth(self, x: float, y: float) -> float:
        """Returns how much nearer to the camera a point is than the body's axis."""
        return x * self._sin + y * self._cos

    def extent(self, half_width: float, half_depth: float) -> float:
        """Returns half the visible width of an upright ellipse, in body heights."""
        return hypot(half_width * self._cos, half_depth * self._sin)

    def sag(self, half_width: float, half_depth: float) -> float:
        """Returns how far the near edge of a level ellipse lies below its sides, in pixels."""
        return hypot(half_width * self._sin, half_depth * self._cos) * self._tilt * self.unit

    def angle(self, phi: float) -> float:
        """Returns the angle between a direction of the body (0 front, 90 left) and the line of sight, -180 .. 180 degrees."""
        return (phi - self.facing + 180) % 360 - 180

    def span(self, low: float, high: float) -> tuple[float, float] | None:
        """Returns the visible part of the surface between two directions of the body, as positions -1 .. 1 across a round tube.

        None if that surface faces away from the camera.
        """
        middle, half = self.angle((low + high) / 2), (high - low) / 2
        start, stop = max(middle - half, -90.0), min(middle + half, 90.0)
        if stop - start < 1:
            return None
        return sin(radians(start)), sin(radians(stop))


def expose(picture: Float32[np.ndarray, "3 height width"], camera: Camera) -> Image.Image:
    """Simulates the sensor: blur, colour cast and exposure, haze, noise."""
    _, height, width = picture.shape
    picture = _blurred(picture, camera.blur + camera.shake, camera.blur)
    picture = (camera.grade @ picture.reshape(3, -1)).reshape(picture.shape)
    x, y = camera.shift
    noise = _noise()[:, y : y + height, x : x + width] * np.float32(camera.noise)
    noise += picture
    noise += np.float32(camera.lift)
    np.clip(noise, 0, 255, out=noise)
    return Image.merge("RGB", [Image.fromarray(plane) for plane in noise.astype(np.uint8)])


def _blurred(picture: np.ndarray, across: float, down: float) -> np.ndarray:
    """Blurs along rows and columns; border pixels are unchanged."""
    if (share := min(across, 0.33)) > 0.03:
        kept = picture * np.float32(1 - 2 * share)
        kept[..., 1:-1] += (picture[..., :-2] + picture[..., 2:]) * np.float32(share)
        kept[..., 0], kept[..., -1] = picture[..., 0], picture[..., -1]
        picture = kept
    if (share := min(down, 0.33)) > 0.03:
        kept = picture * np.float32(1 - 2 * share)
        kept[:, 1:-1] += (picture[:, :-2] + picture[:, 2:]) * np.float32(share)
        kept[:, 0], kept[:, -1] = picture[:, 0], picture[:, -1]
        picture = kept
    return picture


@cache
def _noise() -> np.ndarray:
    """Returns float32 (3, NOISE_TILE, NOISE_TILE): unit variance, slightly correlated between colours and neighbouring pixels."""
    fine = generator(0, "mannequins", "noise").standard_normal((3, NOISE_TILE, NOISE_TILE)).astype(np.float32)
    fine += 0.5 * fine.mean(axis=0)
    soft = fine + 0.5 * (np.roll(fine, 1, axis=1) + np.roll(fine, 1, axis=2))
    return np.asarray(soft / soft.std(), dtype=np.float32)
