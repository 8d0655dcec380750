"""The body below the clothes: proportions, walking pose, joints in space, and the tubes that clothes are cut from."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, pi, radians, sin

import numpy as np

from tbps.data.mannequins.camera import Eye
from tbps.data.mannequins.colours import Rgb
from tbps.data.mannequins.people import Item, Mannequin, Viewpoint
from tbps.data.mannequins.tubes import Point, Points, Tube, bent, hull
from tbps.seeding import generator

Joint = tuple[float, float, float]
SIDES = {"left": 1, "right": -1}

_SKIN = ((240, 204, 178), (226, 176, 142), (196, 140, 102), (142, 94, 64), (84, 54, 40))


@dataclass(frozen=True, slots=True)
class Physique:
    """Proportions of a body: half widths, radii and levels in body heights."""

    scale: float  # height of this body in average adults
    shoulder: float
    chest: float
    waist: float
    hip: float
    depth: float
    belly: float  # how far the belly or bust stands forward
    arm: float  # scale of the limbs' radii
    leg: float
    head: float  # scale of the head
    lean: float  # how far forward the shoulders are
    stride: float  # largest angle of the thigh in degrees


def body_of(person: Mannequin) -> Physique:
    woman, old, young = person.gender == "woman", person.age == "elderly", person.age == "young"
    wide = {"slim": 0.87, "average": 1.0, "heavy": 1.2}[person.build]
    waist = {"slim": 0.84, "average": 1.0, "heavy": 1.42}[person.build]
    thick = {"slim": 0.84, "average": 1.0, "heavy": 1.24}[person.build]
    frame = 0.95 if young else 1.0
    return Physique(
        scale=person.height * (0.97 if young or old else 1.0),
        shoulder=(0.098 if woman else 0.114) * (0.6 + 0.4 * wide) * frame,
        chest=(0.088 if woman else 0.102) * wide * frame,
        waist=(0.070 if woman else 0.088) * waist * frame,
        hip=(0.098 if woman else 0.092) * wide * frame,
        depth=0.064 * (0.5 + 0.5 * waist),
        belly=0.012 * (waist - 0.84) * 4 + (0.006 if woman else 0.0),
        arm=thick * (0.88 if woman else 1.04),
        leg=thick * (1.0 if woman else 1.02),
        head=1.09 if young else 1.0,
        lean=0.055 if old else 0.0,
        stride=13.0 if old else 24.0,
    )


@dataclass(frozen=True, slots=True)
class Limb:
    """A limb: three joints."""

    top: Joint
    middle: Joint
    end: Joint


class Figure:
    """A posed person in front of the camera. `person`: reduced to what the viewpoint shows (`portrait.seen`)."""

    def __init__(self, person: Mannequin, view: Viewpoint, eye: Eye) -> None:
        self.person, self.view, self.eye, self.body = person, view, eye, body_of(person)
        chance = generator(view.seed, "pose").random(24).tolist()
        self.umbrella_open = chance[0] < 0.55
        self.folds: list[float] = chance[2:]
        self.skin = skin_of(person.skin)
        legs = {side: self._leg(sign) for side, sign in SIDES.items()}
        self.rise = 0.042 - min(leg.end[2] for leg in legs.values())  # sets the standing foot on the ground
        self.legs = {side: _raised(leg, self.rise) for side, leg in legs.items()}
        self.arms = {side: self._arm(side, sign) for side, sign in SIDES.items()}

    def back(self) -> bool:
        return self.view.direction == "back"

    def profile(self) -> bool:
        return self.view.direction in ("left", "right")

    def frontal(self) -> bool:
        return self.view.direction == "front"

    def near(self) -> str:
        """The side of the person that is nearer to the camera."""
        return "left" if self.eye.depth(1, 0) > 0 else "right"

    def forward(self, z: float) -> float:
        """Returns y of the body's axis at height `z`: how far the body leans forward there."""
        return self.body.lean * (5.0 * float(max(0.0, z - 0.5) ** 1.4) - 0.25)

    def _leg(self, sign: int) -> Limb:
        phase = 2 * pi * self.view.phase + (0 if sign > 0 else pi)
        thigh = self.body.stride * sin(phase) + 3
        flex = 7 + 38 * max(0.0, cos(phase)) ** 1.5 * (self.body.stride / 24)
        if self.view.hidden != "none":
            flex = min(flex, 18.0)
        top = (sign * 0.047, self.forward(0.5), 0.51)
        knee = _reach(top, 0.24, thigh)
        ankle = _reach(knee, 0.228, thigh - flex)
        spread = 0.62 if self.person.gender == "woman" else 0.9
        return Limb(top, (sign * 0.046 * spread * 1.15, knee[1], knee[2]), (sign * 0.044 * spread * 1.1, ankle[1], ankle[2]))

    def _arm(self, side: str, sign: int) -> Limb:
        phase = 2 * pi * self.view.phase + (pi if sign > 0 else 0)
        swing = self.body.stride * 0.85 * sin(phase)
        upper, bend, out, inward = swing, 14 + 12 * max(0.0, sin(phase)), 7.0, 4.0
        item = self.person.carried
        if item is not None and item.side == side:
            upper, bend, out, inward = self._holding(item, (upper, bend, out, inward))
        elif self._hangs(side, "handbag"):
            upper, bend = swing * 0.3, 10.0
        out += 5.0 if self.person.build == "heavy" else 0.0
        top = (sign * (self.body.shoulder - 0.010), self.forward(0.8), 0.787 + self.rise)
        elbow = _reach(top, 0.162, upper, sign * out)
        return Limb(top, elbow, _reach(elbow, 0.148, upper + bend, sign * (out - inward)))

    def _holding(self, item: Item, free: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
        """Returns angles in degrees: upper arm forward, elbow, arm outward, forearm inward."""
        if item.kind == "umbrella":
            return (20.0, 112.0, 9.0, 12.0) if self.umbrella_open else (18.0 if self.profile() else 6.0, 14.0, 10.0, 2.0)
        return {
            "phone": (18.0, 112.0, 9.0, 40.0),
            "book": (8.0, 92.0, 8.0, 52.0),
            "bottle": (free[0] * 0.4 + 8, 34.0, 11.0, 2.0),
            "trolley": (-20.0, 12.0, 13.0, 2.0),
        }[item.kind]

    def _hangs(self, side: str, kind: str) -> bool:
        return self.person.bag is not None and self.person.bag.kind == kind and self.person.bag.side == side

    def at(self, joint: Joint) -> Point:
        return self.eye.at(*joint)

    def px(self, length: float) -> float:
        """Converts a length in body heights to pixels, along the width."""
        return length * self.eye.wide

    def limb(self, limb: Limb, radii: Sequence[float], ease: float = 0.0) -> Tube:
        """Returns the tube of an arm or leg; `radii` at its joints and in between, in body heights."""
        joints = [self.at(limb.top), self.at(limb.middle), self.at(limb.end)]
        return bent(joints, [self.px(r + ease) for r in radii])

    def ring(self, levels: Sequence[tuple[float, float, float, float]]) -> Tube:
        """Returns an upright tube from levels (z, half width, half depth, y of the axis), top first."""
        eye, left, right, sags = self.eye, [], [], []
        top, bottom = levels[0][0], levels[-1][0]
        for z, half_width, half_depth, y in levels:
            x0, y0 = eye.at(0.0, y, z)
            half = eye.extent(half_width, half_depth) * eye.wide
            left.append((x0 - half, y0))
            right.append((x0 + half, y0))
            sags.append(eye.sag(half_width, half_depth))
        return Tube(left, right, [(top - level[0]) / (top - bottom) for level in levels], sags)

    def torso(self, hem: float, ease: float, tight: float = 1.0) -> Tube:
        """Returns the tube from the base of the neck to a hem at or above the crotch.

        `tight` < 1 widens the waist towards the chest.
        """
        return self.ring(self.torso_levels(hem, ease, tight))

    def torso_levels(self, hem: float, ease: float, tight: float = 1.0) -> list[tuple[float, float, float, float]]:
        b, f, up = self.body, self.forward, self.rise
        straight = (b.chest + b.hip) / 2
        waist = b.waist * tight + max(b.waist, straight) * (1 - tight)
        levels = [
            (0.842, 0.036, 0.036, f(0.84)),
            (0.828, b.shoulder * 0.62 + ease * 0.3, b.depth * 0.7, f(0.82)),
            (0.812, b.shoulder * 0.94 + ease * 0.7, b.depth * 0.86 + ease * 0.5, f(0.8)),
            (0.780, b.shoulder * 1.02 + ease * 0.9, b.depth + ease * 0.7, f(0.77) + b.belly * 0.4),
            (0.72, b.chest + ease, b.depth * 1.06 + ease, f(0.72) + b.belly * 0.7),
            (0.61, waist + ease, b.depth * 0.98 + ease, f(0.61) + b.belly),
            (0.54, b.hip * 0.97 + ease, b.depth * 1.06 + ease, f(0.54) + b.belly * 0.4),
            (0.47, b.hip + ease, b.depth * 1.08 + ease, f(0.5)),
        ]
        kept = [level for level in levels if level[0] > hem + 0.004]
        z, width, depth, y = kept[-1]
        following = levels[len(kept)] if len(kept) < len(levels) else (hem, width + 0.004, depth + 0.004, y)
        share = (z - hem) / max(z - following[0], 1e-6)
        last = (hem, *(a + (c - a) * share for a, c in zip((width, depth, y), following[1:], strict=True)))
        return [(level[0] + up, *level[1:]) for level in (*kept, last)]  # type: ignore[misc]  # mypy loses the length of a tuple here

    def drop(self, waist: float, hem: float, ease: float, flare: float) -> Tube:
        """Returns the tube of a skirt, dress or coat, from a level above the hips to a hem below the crotch.

        The hem is wide enough for both legs.
        """
        upper = [level for level in self.torso_levels(0.47, ease) if level[0] <= waist + self.rise]
        tube = self.ring(upper)
        reach = self._leg_reach(hem)
        x0, y0 = self.eye.at(0.0, self.forward(0.5), hem + self.rise)
        half = (tube.right[-1][0] - tube.left[-1][0]) / 2 * 0.85 + self.px(flare)
        spare = self.px(0.012 + flare * 0.3)
        left = [*tube.left, (min(x0 - half, reach[0] - spare), y0)]
        right = [*tube.right, (max(x0 + half, reach[1] + spare), y0)]
        ys = [point[1] for point in left]
        return Tube(left, right, [(y - ys[0]) / (ys[-1] - ys[0]) for y in ys], [*tube.sags, tube.sags[-1] * 1.3])

    def _leg_reach(self, z: float) -> tuple[float, float]:
        """Returns the left and right edge of both legs at a level, in pixels."""
        xs = []
        for leg in self.legs.values():
            upper, lower = (leg.top, leg.middle) if z + self.rise > leg.middle[2] else (leg.middle, leg.end)
            share = (upper[2] - z - self.rise) / max(upper[2] - lower[2], 1e-6)
            x, y = (a + (b - a) * min(max(share, 0.0), 1.0) for a, b in zip(upper[:2], lower[:2], strict=True))
            xs.append(self.eye.at(x, y, z)[0])
        radius = self.px(0.04 * self.body.leg)
        return min(xs) - radius, max(xs) + radius

    def box(self, centre: Joint, size: Joint) -> Points:
        """Returns the silhouette of an upright box (width, depth, height)."""
        (x, y, z), (w, d, h) = centre, (size[0] / 2, size[1] / 2, size[2] / 2)
        return hull([self.eye.at(x + i * w, y + j * d, z + k * h) for i in (-1, 1) for j in (-1, 1) for k in (-1, 1)])


def _reach(start: Joint, length: float, forward: float, outward: float = 0.0) -> Joint:
    """Returns the end of a bone that hangs down, rotated forward and outward by angles in degrees."""
    a, b = radians(forward), radians(outward)
    return (start[0] + length * sin(b), start[1] + length * sin(a) * cos(b), start[2] - length * cos(a) * cos(b))


def _raised(limb: Limb, rise: float) -> Limb:
    return Limb(*((x, y, z + rise) for x, y, z in (limb.top, limb.middle, limb.end)))


def skin_of(depth: float) -> Rgb:
    """Returns the skin colour between light (0) and dark (1)."""
    place = depth * (len(_SKIN) - 1)
    index = min(int(place), len(_SKIN) - 2)
    red, green, blue = (np.array(_SKIN[index]) * (index + 1 - place) + np.array(_SKIN[index + 1]) * (place - index)).astype(int)
    return int(red), int(green), int(blue)


ARM_RADII = (0.027, 0.031, 0.025, 0.024, 0.016)
LEG_RADII = (0.06, 0.052, 0.038, 0.037, 0.023)


def arm_radii(body: Physique) -> list[float]:
    return [radius * body.arm for radius in ARM_RADII]


def leg_radii(body: Physique) -> list[float]:
    return [radius * body.leg for radius in LEG_RADII]
