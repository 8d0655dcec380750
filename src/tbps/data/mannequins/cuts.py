"""Cuts of upper garments, and their position on a figure."""

from dataclasses import dataclass
from math import radians, sin

from tbps.data.mannequins.figure import Figure
from tbps.data.mannequins.patterns import colour_of
from tbps.data.mannequins.textures import CLOTH, KNIT, LEATHER, PADDING
from tbps.data.mannequins.tubes import Point, Points, Tube


@dataclass(frozen=True, slots=True)
class Cut:
    """Cut of a garment: level of the hem, ease around the body, how much the waist is taken in (1: fully), and the material."""

    hem: float
    ease: float
    tight: float
    material: int = CLOTH
    sleeve_ease: float = 0.006


CUTS = {
    "t-shirt": Cut(0.485, 0.009, 0.6, sleeve_ease=0.011),
    "shirt": Cut(0.472, 0.010, 0.5, sleeve_ease=0.009),
    "blouse": Cut(0.492, 0.012, 0.85, sleeve_ease=0.012),
    "polo shirt": Cut(0.487, 0.009, 0.6, sleeve_ease=0.010),
    "sweater": Cut(0.482, 0.014, 0.35, KNIT, 0.010),
    "hoodie": Cut(0.475, 0.019, 0.2, sleeve_ease=0.014),
    "jacket": Cut(0.487, 0.018, 0.3, LEATHER, 0.013),
    "coat": Cut(0.365, 0.020, 0.5, sleeve_ease=0.014),
    "puffer jacket": Cut(0.475, 0.034, 0.2, PADDING, 0.022),
    "suit jacket": Cut(0.450, 0.014, 0.7, sleeve_ease=0.011),
    "vest": Cut(0.488, 0.016, 0.5),
    "tank top": Cut(0.490, 0.005, 0.8),
    "dress": Cut(0.320, 0.006, 1.0),
}
SHOULDERS = 0.842  # the level where a garment starts
LONG_SKIRTED = ("coat", "dress")
SLEEVE = {"short": 0.44, "long": 0.985}


class Upper:
    """The upper garment of one figure."""

    def __init__(self, figure: Figure) -> None:
        self.figure, self.person = figure, figure.person
        self.garment = figure.person.upper
        self.cut = CUTS[self.garment.kind]
        self.rgb = colour_of(self.garment)
        self.tube = self._tube()
        self.line = max(0.5, figure.px(0.004))
        self.tall = SHOULDERS - self.cut.hem  # length of the garment in bodies
        y, up = figure.forward(0.86), figure.rise
        self.throat = figure.ring([(0.892 + up, 0.036, 0.040, y + 0.004), (0.842 + up, 0.041, 0.042, y)])

    def _tube(self) -> Tube:
        cut = self.cut
        if self.garment.kind in LONG_SKIRTED:
            return self.figure.drop(1.0, cut.hem, cut.ease, 0.02 if self.garment.kind == "coat" else 0.045)
        return self.figure.torso(cut.hem, cut.ease, cut.tight)

    def t(self, level: float) -> float:
        """Converts a height on the body to the position along the tube: 0 at the shoulders, 1 at the hem."""
        return min(1.0, max(0.0, (SHOULDERS - level) / self.tall))

    def at(self, t: float, s: float) -> Point:
        """Returns the pixel of (t, s) on the tube; for t < 0, above its top, on the ring around the throat."""
        return self.tube.at(t, s) if t >= 0 else self.throat.at(max(0.0, 1 + t * self.tall / 0.05), s)

    def band(self, t0: float, t1: float, s0: float, s1: float) -> Points:
        """Returns the outline of a collar from above the shoulders (t0 < 0) to the chest (t1 > 0)."""
        shares = [s0 + (s1 - s0) * f for f in (0.0, 0.3, 0.7, 1.0)]
        high = [self.at(t0, s) for s in shares]
        low = [self.at(t1, s * 0.62) for s in shares]
        return [*high, *reversed(low)]

    def s(self, phi: float) -> float | None:
        """Converts a direction of the body to the position across the tube, -1 .. 1; None if it faces away from the camera."""
        angle = self.figure.eye.angle(phi)
        return sin(radians(angle)) if abs(angle) < 84 else None
