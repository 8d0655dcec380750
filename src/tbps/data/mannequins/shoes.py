"""Painting of shoes."""

from dataclasses import dataclass

from tbps.data.mannequins.canvas import Canvas, shaded
from tbps.data.mannequins.colours import Rgb
from tbps.data.mannequins.figure import Figure, Joint, Limb, leg_radii
from tbps.data.mannequins.patterns import colour_of
from tbps.data.mannequins.people import Garment
from tbps.data.mannequins.textures import LEATHER, SKIN
from tbps.data.mannequins.tubes import Point, Points, hull

_TALL = {"boots": 0.085, "sneakers": 0.052, "dress shoes": 0.045, "high heels": 0.035, "sandals": 0.02}
_BOTH = (-1, 1)


@dataclass(frozen=True, slots=True)
class Foot:
    """A foot in space: position of the ankle, levels of heel and toes above the ground, half the width, corners of the sole."""

    figure: Figure
    x: float
    y: float
    low: float
    toes: float
    half: float
    sole: list[Joint]

    def at(self, dx: float, dy: float, z: float) -> Point:
        return self.figure.eye.at(self.x + dx, self.y + dy, z)

    def rim(self, tall: float) -> Points:
        """Returns the silhouette of the sole's edge."""
        at = self.figure.eye.at
        return hull([at(a, b, c) for a, b, c in self.sole] + [at(a, b, c + tall) for a, b, c in self.sole])


def paint_shoe(canvas: Canvas, figure: Figure, leg: Limb, shoes: Garment) -> None:
    """Paints a shoe below the ankle; when the heel is lifted, the toes are lower."""
    x, y, z = leg.end
    rgb, kind = colour_of(shoes), shoes.kind
    low = max(0.0, z - 0.044)
    toes = max(0.0, low - 0.55 * low)
    heel, w = (0.03 if kind == "high heels" else 0.0), (0.031 if kind == "boots" else 0.027)
    back, front, tall = y - 0.026, y + 0.098, _TALL[kind]
    sole = [(x + w * 0.8 * i, back, low + heel) for i in _BOTH] + [(x + w * i, y + 0.055, toes) for i in _BOTH]
    sole += [(x + w * 0.55 * i, front, toes) for i in _BOTH]
    top = [(x + w * 0.85 * i, back, low + heel + tall) for i in _BOTH]
    top += [(x + w * 0.85 * i, y + 0.03, low + heel * 0.6 + tall) for i in _BOTH]
    top += [(x + w * 0.6 * i, front - 0.012, toes + 0.026) for i in _BOTH]
    body = hull([figure.eye.at(*p) for p in (*sole, *top)])
    foot = Foot(figure, x, y, low, toes, w, sole)
    if kind == "sandals":
        _sandal(canvas, foot, body, rgb)
        return
    canvas.shape(body, rgb, LEATHER, -4)
    if kind == "sneakers":
        white = (232, 232, 228) if sum(rgb) < 620 else (150, 150, 150)
        canvas.detail(foot.rim(0.013), white)
        lace = [foot.at(w * 0.6 * i, 0.045, toes + 0.04) for i in _BOTH]
        canvas.line(lace, white, max(0.5, figure.px(0.005)))
    elif kind == "high heels":
        spike = [figure.eye.at(x + 0.006 * i, back + 0.004, c) for i in _BOTH for c in (low, low + 0.045)]
        canvas.shape(hull(spike), rgb, LEATHER)
        canvas.detail(hull([foot.at(w * 0.5 * i, b, toes + 0.034) for i in _BOTH for b in (0.02, 0.05)]), figure.skin)
    else:
        canvas.detail(foot.rim(0.008), shaded(rgb, 0.45))


def _sandal(canvas: Canvas, foot: Foot, body: Points, rgb: Rgb) -> None:
    """Paints a bare foot on a sole, with a strap over the toes and one round the ankle."""
    figure, low = foot.figure, foot.low
    ankle = [foot.at(0.018 * i, d, low + 0.05) for i in _BOTH for d in (-0.02, 0.02)]
    canvas.shape(hull([*body, *ankle]), figure.skin, SKIN)
    canvas.detail(foot.rim(0.012), rgb)
    width = max(0.9, figure.px(0.012))
    toes = [foot.at(dx, 0.06, low * 0.5 + up) for dx, up in ((-0.026, 0.02), (0.0, 0.034), (0.026, 0.02))]
    canvas.line(toes, rgb, width)
    canvas.line([foot.at(-0.024, 0.0, low + 0.045), foot.at(0.0, 0.02, low + 0.05), foot.at(0.024, 0.0, low + 0.045)], rgb, width)


def paint_shaft(canvas: Canvas, figure: Figure, leg: Limb, rgb: Rgb) -> None:
    """Paints the shaft of a boot."""
    radii = [radius + 0.006 for radius in leg_radii(figure.body)]
    tube = figure.limb(leg, radii).cut(0.76, 0.99)
    canvas.shape(tube.outline(), rgb, LEATHER)
    canvas.round(tube, LEATHER)
    canvas.line([tube.at(0.04, s) for s in (-1, 0, 1)], shaded(rgb, 0.6), max(0.5, figure.px(0.005)))
