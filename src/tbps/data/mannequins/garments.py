"""What is worn above the waist: torsos, sleeves, and the details that tell one garment from another."""

from dataclasses import dataclass
from math import radians, sin

from tbps.data.mannequins.canvas import Canvas, mixed, shaded
from tbps.data.mannequins.colours import Rgb
from tbps.data.mannequins.figure import Figure, arm_radii
from tbps.data.mannequins.legwear import skirt_folds
from tbps.data.mannequins.patterns import colour_of, dress, motif, weave
from tbps.data.mannequins.people import Garment
from tbps.data.mannequins.textures import CLOTH, KNIT, LEATHER, PADDING, SKIN
from tbps.data.mannequins.tubes import Tube


@dataclass(frozen=True, slots=True)
class Cut:
    """Level of the hem, ease around the body, how much the waist is taken in (1 all the way), and the cloth."""

    hem: float
    ease: float
    tight: float
    stuff: int = CLOTH
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
LONG_SKIRTED = ("coat", "dress")
SLEEVE = {"short": 0.44, "long": 0.985}


class Upper:
    """The garment above the waist of one figure, and where it lies."""

    def __init__(self, figure: Figure) -> None:
        self.figure, self.person = figure, figure.person
        self.garment = figure.person.upper
        self.cut = CUTS[self.garment.kind]
        self.rgb = colour_of(self.garment)
        self.tube = self._tube()
        self.line = max(0.5, figure.px(0.004))
        top, bottom = 0.842, self.cut.hem
        self._top, self._tall = top, top - bottom

    def _tube(self) -> Tube:
        cut = self.cut
        if self.garment.kind in LONG_SKIRTED:
            return self.figure.drop(1.0, cut.hem, cut.ease, 0.02 if self.garment.kind == "coat" else 0.045)
        return self.figure.torso(cut.hem, cut.ease, cut.tight)

    def t(self, level: float) -> float:
        """Length along the tube at a height of the body."""
        return min(1.0, max(0.0, (self._top - level) / self._tall))

    def s(self, phi: float) -> float | None:
        """Place across the tube of a direction of the body, None when turned away."""
        angle = self.figure.eye.angle(phi)
        return sin(radians(angle)) if abs(angle) < 84 else None


def paint_torso(canvas: Canvas, upper: Upper) -> None:
    """The upper garment without its sleeves, over the neck and the legs."""
    figure, kind = upper.figure, upper.garment.kind
    if kind == "tank top":
        _tank_top(canvas, upper)
    elif kind == "vest" and upper.person.inner is not None:
        _under(canvas, figure, upper.person.inner)
        _vest(canvas, upper)
    else:
        dress(canvas, upper.tube, upper.garment, upper.cut.stuff, figure.eye.unit, 1.0)
    _creases(canvas, upper)
    if kind == "dress":
        skirt_folds(canvas, figure, upper.tube, upper.rgb, 0.62)
        waist = upper.tube.patch(upper.t(0.625), upper.t(0.60), -1.0, 1.0)
        canvas.detail(waist, shaded(upper.rgb, 0.6))
    if upper.person.inner is not None and not figure.back() and not figure.profile():
        _opening(canvas, upper, upper.person.inner)
    span = figure.eye.span(-34, 34)
    if span is not None and not figure.back():
        motif(canvas, upper.tube, upper.garment, span)
    _neckline(canvas, upper)
    if kind in _DETAILS:
        _DETAILS[kind](canvas, upper)
    hem = upper.tube
    canvas.crease([hem.at(0.985, s) for s in (-0.95, -0.5, 0, 0.5, 0.95)], -34, upper.cut.stuff)


def _creases(canvas: Canvas, upper: Upper) -> None:
    """Folds at the waist and under the arms."""
    tube, folds, stuff = upper.tube, upper.figure.folds, upper.cut.stuff
    for index in range(4):
        side = -1 if index % 2 else 1
        t = upper.t(0.64 - 0.05 * (index // 2) + 0.03 * folds[index])
        canvas.tone([tube.at(t, 0.95 * side), tube.at(t + 0.05, side * (0.2 + 0.4 * folds[index + 4])), tube.at(t + 0.035, 0.95 * side)], -32, stuff)
    t = upper.t(0.76)
    for side in (-1, 1):
        canvas.tone([tube.at(t, 0.8 * side), tube.at(t + 0.28, side * 0.62), tube.at(t + 0.1, side * 0.9)], -30, stuff)
    canvas.tone(tube.patch(0.12, 0.3, -0.5, 0.5), 9, stuff)


def _under(canvas: Canvas, figure: Figure, inner: Garment) -> None:
    tube = figure.torso(0.5, 0.008)
    dress(canvas, tube, inner, CLOTH, figure.eye.unit)


def _vest(canvas: Canvas, upper: Upper) -> None:
    """A waistcoat: its armholes leave the shirt's shoulders free."""
    tube, unit = upper.tube, upper.figure.eye.unit
    t = upper.t(0.735)
    low = tube.cut(t, 1.0)
    dress(canvas, low, upper.garment, upper.cut.stuff, unit)
    chest = [tube.at(0.05, -0.75), tube.at(0.2, -0.72), tube.at(t + 0.01, -1.0), tube.at(t + 0.01, 1.0), tube.at(0.2, 0.72), tube.at(0.05, 0.75)]
    canvas.shape(chest, upper.rgb, upper.cut.stuff)


def _tank_top(canvas: Canvas, upper: Upper) -> None:
    figure, tube = upper.figure, upper.tube
    canvas.shape(tube.outline(), figure.skin, SKIN)
    canvas.round(tube, SKIN, 0.8)
    t = upper.t(0.752)
    low = tube.cut(t, 1.0)
    dress(canvas, low, upper.garment, CLOTH, figure.eye.unit)
    for side in (-1, 1):
        strap = [tube.at(0.05, 0.62 * side), tube.at(0.05, 0.95 * side), tube.at(0.2, 0.62 * side), tube.at(t + 0.01, 0.9 * side), tube.at(t + 0.01, 0.36 * side), tube.at(0.14, 0.4 * side)]
        canvas.shape(strap, upper.rgb, CLOTH)


def _opening(canvas: Canvas, upper: Upper, inner: Garment) -> None:
    """What an open jacket shows from the front: the shirt between its edges."""
    figure, tube, kind = upper.figure, upper.tube, upper.garment.kind
    if kind == "suit jacket":
        top, middle = figure.eye.span(-26, 26), upper.s(0)
        if top is None or middle is None:
            return
        piece = [tube.at(0.0, top[0]), tube.at(0.06, top[0]), tube.at(upper.t(0.62), middle), tube.at(0.06, top[1]), tube.at(0.0, top[1])]
        _insert(canvas, upper, inner, piece)
        return
    wide = {"coat": 24, "vest": 20}.get(kind, 25)
    top, bottom = figure.eye.span(-wide + 4, wide - 4), figure.eye.span(-wide - 4, wide + 2)
    if top is None or bottom is None:
        return
    end = min(1.0, upper.t(0.472))
    piece = [tube.at(0.0, top[0]), tube.at(0.4 * end, (top[0] + bottom[0]) / 2), tube.at(end, bottom[0]), tube.at(end, bottom[1]), tube.at(0.4 * end, (top[1] + bottom[1]) / 2), tube.at(0.0, top[1])]
    if kind == "coat":
        _coat_slit(canvas, upper, bottom, end)
    _insert(canvas, upper, inner, piece)


def _insert(canvas: Canvas, upper: Upper, inner: Garment, piece: list[tuple[float, float]]) -> None:
    rgb = colour_of(inner)
    canvas.shape(piece, rgb, CLOTH, -4)
    xs = [x for x, _ in piece]
    ys = [y for _, y in piece]
    left, right = [(min(xs), min(ys)), (min(xs), max(ys))], [(max(xs), min(ys)), (max(xs), max(ys))]
    if inner.second is not None:
        _striped_insert(canvas, inner, piece, upper.figure.eye.unit)
    half = len(piece) // 2
    del left, right
    for edge in (piece[:half], piece[half:]):
        canvas.line(edge, shaded(upper.rgb, 0.55), upper.line * 1.4)
        canvas.crease(edge, -34, CLOTH, 2)
    middle = upper.s(0)
    if inner.kind == "shirt" and middle is not None:
        for level in (0.77, 0.72, 0.67, 0.62, 0.57):
            if upper.garment.kind != "suit jacket" or level > 0.66:
                canvas.dot(upper.tube.at(upper.t(level), middle), (upper.line * 0.9, upper.line * 0.9), shaded(rgb, 0.55))


def _striped_insert(canvas: Canvas, inner: Garment, piece: list[tuple[float, float]], unit: float) -> None:
    """Stripes within a piece that is nearly symmetrical left and right, edge by edge."""
    half = len(piece) // 2
    left, right = piece[:half], piece[half:][::-1]
    if len(left) != len(right):
        left = [*left, piece[half]] if len(left) < len(right) else left
        left = left[: len(right)]
    stations = [index / (len(left) - 1) for index in range(len(left))]
    weave(canvas, Tube(left, right, stations), inner, unit)


def _coat_slit(canvas: Canvas, upper: Upper, bottom: tuple[float, float], end: float) -> None:
    lower = upper.person.lower
    tube = upper.tube
    piece = [tube.at(end, bottom[0]), tube.at(1.0, bottom[0] * 1.15), tube.at(1.0, bottom[1] * 1.15), tube.at(end, bottom[1])]
    rgb = colour_of(lower) if lower is not None else upper.figure.skin
    canvas.shape(piece, shaded(rgb, 0.9), CLOTH, -22)
    canvas.crease([tube.at(end, sum(bottom) / 2), tube.at(1.0, sum(bottom) / 2)], -50, CLOTH, 2)


def _neckline(canvas: Canvas, upper: Upper) -> None:
    """The opening at the throat: skin, or the collar's ring at the back."""
    figure, kind, tube = upper.figure, upper.garment.kind, upper.tube
    span = figure.eye.span(-52, 52)
    shown = upper.person.inner or upper.garment
    if span is None or figure.back() or kind in ("hoodie", "puffer jacket"):
        return
    s0, s1 = span
    middle = (s0 + s1) / 2
    deep = {"blouse": 0.17, "dress": 0.13, "tank top": 0.19, "shirt": 0.13, "polo shirt": 0.14, "sweater": 0.035}.get(shown.kind, 0.06)
    deep = deep * 0.35 / upper._tall
    if kind in ("jacket", "coat") and upper.person.inner is None:
        return
    piece = [tube.at(-0.02, s0 * 0.9), tube.at(deep * 0.5, s0 * 0.5 + middle * 0.5), tube.at(deep, middle), tube.at(deep * 0.5, s1 * 0.5 + middle * 0.5), tube.at(-0.02, s1 * 0.9)]
    canvas.shape(piece, figure.skin, SKIN, -14)
    canvas.line(piece, shaded(colour_of(shown), 0.66), upper.line)
    if shown.kind == "shirt":
        _collar(canvas, upper, colour_of(shown))


def _collar(canvas: Canvas, upper: Upper, rgb: Rgb) -> None:
    """Two points at the front, a band behind."""
    tube, figure = upper.tube, upper.figure
    pale = shaded(rgb, 1.14 if sum(rgb) < 600 else 0.92)
    if figure.back():
        canvas.shape(tube.patch(-0.045, 0.03, -0.9, 0.9), pale, CLOTH, -6)
        return
    for side in (-1, 1):
        outer, inner = upper.s(78 * side), upper.s(6 * side)
        tip = upper.s(34 * side)
        if tip is None and outer is None:
            continue
        outer = outer if outer is not None else (tip or 0.0)
        inner = inner if inner is not None else (tip or 0.0)
        flap = [tube.at(-0.05, outer), tube.at(0.03, inner), tube.at(0.085, tip if tip is not None else outer), tube.at(0.015, outer)]
        canvas.shape(flap, pale, CLOTH, 4)
        canvas.line([flap[1], flap[2], flap[3]], shaded(rgb, 0.58), upper.line * 0.9)


def _shirt(canvas: Canvas, upper: Upper) -> None:
    _collar(canvas, upper, upper.rgb)
    _buttons(canvas, upper, (0.77, 0.715, 0.66, 0.605, 0.55, 0.50), to=1.0)
    if not upper.figure.back() and not upper.figure.profile() and (s := upper.s(32)) is not None:
        pocket = upper.tube.patch(upper.t(0.745), upper.t(0.69), s - 0.16, s + 0.16)
        canvas.line([*pocket, pocket[0]], shaded(upper.rgb, 0.74), upper.line * 0.8)


def _polo(canvas: Canvas, upper: Upper) -> None:
    _collar(canvas, upper, upper.rgb)
    _buttons(canvas, upper, (0.775, 0.745), to=upper.t(0.725))


def _buttons(canvas: Canvas, upper: Upper, levels: tuple[float, ...], to: float) -> None:
    s = upper.s(0)
    if s is None or upper.figure.back():
        return
    dark = shaded(upper.rgb, 0.7)
    for side in (-0.05, 0.05):
        canvas.line([upper.tube.at(t, s + side) for t in (0.09, (0.09 + to) / 2, to)], dark, upper.line * 0.8)
    knob = (236, 236, 232) if sum(upper.rgb) < 330 else shaded(upper.rgb, 0.42)
    for level in levels:
        canvas.dot(upper.tube.at(upper.t(level), s), (upper.line * 1.05, upper.line * 1.05), knob)


def _blouse(canvas: Canvas, upper: Upper) -> None:
    """Soft gathers from the neck and a bow of the same cloth."""
    tube, s = upper.tube, upper.s(0)
    for phi in (-40, -20, 20, 40):
        place = upper.s(phi)
        if place is not None:
            canvas.crease([tube.at(0.1, place * 0.7), tube.at(0.42, place)], -34, CLOTH)
    if s is not None and not upper.figure.back():
        x, y = tube.at(0.1, s)
        a = upper.figure.px(0.022)
        pale = shaded(upper.rgb, 0.84)
        canvas.shape([(x, y), (x - a, y - a * 0.6), (x - a, y + a * 0.5)], pale, CLOTH)
        canvas.shape([(x, y), (x + a, y - a * 0.6), (x + a, y + a * 0.5)], pale, CLOTH)
        canvas.shape([(x - a * 0.2, y), (x + a * 0.2, y), (x + a * 0.5, y + 2.4 * a), (x + a * 0.1, y + 2.2 * a)], pale, CLOTH)


def _sweater(canvas: Canvas, upper: Upper) -> None:
    tube, dark = upper.tube, shaded(upper.rgb, 0.78)
    canvas.detail(tube.patch(0.91, 1.0, -1.0, 1.0), shaded(upper.rgb, 0.9))
    for index in range(13):
        s = sin(-1.4 + 2.8 * index / 12)
        canvas.line([tube.at(0.915, s), tube.at(1.0, s)], dark, upper.line)
    canvas.line([tube.at(0.91, s) for s in (-1, 0, 1)], dark, upper.line)
    canvas.shape(tube.patch(-0.05, 0.03, -0.95, 0.95), shaded(upper.rgb, 0.86), KNIT, -8)
    for index in range(5):
        s = sin(-1.2 + 2.4 * index / 4)
        canvas.crease([tube.at(0.1, s * 0.9), tube.at(0.88, s)], -16, KNIT)


def _hoodie(canvas: Canvas, upper: Upper) -> None:
    figure, tube, dark = upper.figure, upper.tube, shaded(upper.rgb, 0.72)
    canvas.detail(tube.patch(0.92, 1.0, -1.0, 1.0), shaded(upper.rgb, 0.82))
    if figure.back():
        hood = [tube.at(-0.06, -1.0), tube.at(0.06, -0.95), tube.at(0.17, -0.55), tube.at(0.22, 0.0), tube.at(0.17, 0.55), tube.at(0.06, 0.95), tube.at(-0.06, 1.0)]
        canvas.shape(hood, shaded(upper.rgb, 0.9), CLOTH, -10)
        canvas.tone([hood[1], hood[2], hood[3], hood[4], hood[5], tube.at(0.1, 0.5), tube.at(0.15, 0.0), tube.at(0.1, -0.5)], -36, CLOTH)
        canvas.line(hood[1:6], dark, upper.line)
        return
    for index, (t0, t1) in enumerate(((-0.07, 0.11), (-0.07, 0.05))):
        ring = [tube.at(t0, -1.15), tube.at((t0 + t1) / 2, -0.9), tube.at(t1, 0.0), tube.at((t0 + t1) / 2, 0.9), tube.at(t0, 1.15)]
        canvas.shape(ring, shaded(upper.rgb, 0.92) if index == 0 else shaded(upper.rgb, 0.5), CLOTH, -4 - 16 * index)
    if figure.profile():
        side = 1 if figure.eye.angle(180) > 0 else -1
        x, y = tube.at(0.02, side * 0.9)
        a = figure.px(0.04)
        canvas.oval((x, y), (a, a * 0.9), shaded(upper.rgb, 0.86), CLOTH, -8)
        return
    pocket = figure.eye.span(-48, 48)
    if pocket is not None:
        s0, s1 = pocket
        inset = 0.22 * (s1 - s0)
        ring = [tube.at(0.64, s0 + inset), tube.at(0.64, s1 - inset), tube.at(0.79, s1), tube.at(0.9, s1), tube.at(0.9, s0), tube.at(0.79, s0)]
        canvas.line([*ring, ring[0]], dark, upper.line * 1.2)
        canvas.tone([ring[0], ring[1], tube.at(0.68, s1 - inset), tube.at(0.68, s0 + inset)], -26, CLOTH)
    for phi in (-9, 9):
        if (s := upper.s(phi)) is not None:
            canvas.line([tube.at(0.1, s), tube.at(0.27, s)], (228, 228, 224) if sum(upper.rgb) < 480 else (60, 60, 64), upper.line)


def _jacket(canvas: Canvas, upper: Upper) -> None:
    tube, dark = upper.tube, shaded(upper.rgb, 0.6)
    canvas.detail(tube.patch(0.93, 1.0, -1.0, 1.0), shaded(upper.rgb, 0.74)) if upper.person.inner is None or upper.figure.back() else None
    canvas.line([tube.at(0.93, s) for s in (-1, -0.4)], dark, upper.line)
    s = upper.s(0)
    if upper.person.inner is None and s is not None and not upper.figure.back():
        canvas.line([tube.at(t, s) for t in (-0.02, 0.4, 1.0)], (176, 176, 180), upper.line * 1.3)
    _stand_collar(canvas, upper, 0.055)
    _pockets(canvas, upper, 0.57)
    if upper.figure.back():
        canvas.line([tube.at(0.2, -0.95), tube.at(0.215, 0), tube.at(0.2, 0.95)], dark, upper.line)


def _stand_collar(canvas: Canvas, upper: Upper, tall: float) -> None:
    tube, tall = upper.tube, tall * 0.36 / upper._tall
    opened = upper.person.inner is not None and not upper.figure.back() and not upper.figure.profile()
    pieces = ((-1.05, -0.45), (0.45, 1.05)) if opened else ((-1.05, 1.05),)
    for s0, s1 in pieces:
        canvas.shape(tube.patch(-tall, 0.05 * 0.36 / upper._tall, s0, s1), shaded(upper.rgb, 0.86), upper.cut.stuff, -6)
        canvas.line([tube.at(0.05 * 0.36 / upper._tall, s) for s in (s0, (s0 + s1) / 2, s1)], shaded(upper.rgb, 0.6), upper.line)


def _pockets(canvas: Canvas, upper: Upper, level: float) -> None:
    for phi in (-52, 52):
        s = upper.s(phi)
        if s is not None and not upper.figure.back():
            canvas.line([upper.tube.at(upper.t(level), s * 0.9), upper.tube.at(upper.t(level - 0.05), s * 1.05)], shaded(upper.rgb, 0.5), upper.line * 1.3)


def _coat(canvas: Canvas, upper: Upper) -> None:
    tube, s = upper.tube, upper.s(0)
    if upper.figure.back():
        canvas.line([tube.at(0.72, 0.0), tube.at(1.0, 0.0)], shaded(upper.rgb, 0.45), upper.line * 1.2)
        canvas.detail(tube.patch(upper.t(0.625), upper.t(0.603), -0.75, 0.75), shaded(upper.rgb, 0.72))
    elif s is not None and upper.person.inner is None:
        canvas.line([tube.at(t, s + 0.12) for t in (0.12, 0.5, 1.0)], shaded(upper.rgb, 0.5), upper.line * 1.2)
        for level in (0.73, 0.66, 0.59, 0.52):
            for side in (-0.1, 0.26):
                canvas.dot(tube.at(upper.t(level), s + side), (upper.line * 1.4, upper.line * 1.4), shaded(upper.rgb, 0.4))
    _lapels(canvas, upper, 0.69)
    _pockets(canvas, upper, 0.55)


def _lapels(canvas: Canvas, upper: Upper, down_to: float) -> None:
    """The collar's two long flaps; a band from behind."""
    tube, k = upper.tube, 0.36 / upper._tall
    pale = shaded(upper.rgb, 1.12)
    if upper.figure.back():
        canvas.shape(tube.patch(-0.05 * k, 0.05 * k, -0.95, 0.95), pale, CLOTH, -6)
        canvas.line([tube.at(0.05 * k, s) for s in (-0.95, 0, 0.95)], shaded(upper.rgb, 0.55), upper.line)
        return
    for side in (-1, 1):
        middle, tip, outer = upper.s(4 * side), upper.s(44 * side), upper.s(70 * side)
        if middle is None or tip is None:
            continue
        outer = outer if outer is not None else tip
        flap = [tube.at(-0.05 * k, outer), tube.at(0.1 * k, tip * 0.6 + middle * 0.4), tube.at(upper.t(down_to), middle), tube.at(0.22 * k, tip), tube.at(0.05 * k, outer)]
        canvas.shape(flap, pale, CLOTH, 5)
        canvas.line(flap[2:], shaded(upper.rgb, 0.5), upper.line)


def _puffer(canvas: Canvas, upper: Upper) -> None:
    tube = upper.tube
    _quilt(canvas, tube, upper.rgb, upper.figure.eye.unit, opened=None)
    s = upper.s(0)
    if upper.person.inner is not None and not upper.figure.back() and not upper.figure.profile():
        _opening(canvas, upper, upper.person.inner)
    elif s is not None and not upper.figure.back():
        canvas.line([tube.at(t, s) for t in (-0.02, 0.4, 1.0)], shaded(upper.rgb, 0.4), upper.line * 1.4)
    _stand_collar(canvas, upper, 0.1)


def _quilt(canvas: Canvas, tube: Tube, rgb: Rgb, unit: float, opened: None) -> None:
    count = max(2, round(tube.length() / (0.052 * unit)))
    del opened
    for index in range(count):
        t = (index + 1) / count
        canvas.tone(tube.patch(t - 0.9 / count, t - 0.55 / count, -0.9, 0.9), 16, PADDING)
        canvas.tone(tube.patch(t - 0.3 / count, t, -1.0, 1.0), -34, PADDING)
        if t < 0.99:
            canvas.line([tube.at(t, s) for s in (-1, -0.4, 0.4, 1)], shaded(rgb, 0.62), max(0.5, 0.004 * unit))


def _suit(canvas: Canvas, upper: Upper) -> None:
    tube, s = upper.tube, upper.s(0)
    _lapels(canvas, upper, 0.62)
    if upper.figure.back():
        canvas.line([tube.at(0.1, 0.0), tube.at(1.0, 0.0)], shaded(upper.rgb, 0.62), upper.line)
    elif s is not None:
        canvas.line([tube.at(upper.t(0.62), s), tube.at(1.0, s + 0.08)], shaded(upper.rgb, 0.45), upper.line)
        for level in (0.605, 0.56):
            canvas.dot(tube.at(upper.t(level), s), (upper.line * 1.2, upper.line * 1.2), mixed(upper.rgb, (128, 128, 128), 0.5))
    _pockets(canvas, upper, 0.56)


_DETAILS = {
    "shirt": _shirt,
    "polo shirt": _polo,
    "blouse": _blouse,
    "sweater": _sweater,
    "hoodie": _hoodie,
    "jacket": _jacket,
    "coat": _coat,
    "puffer jacket": _puffer,
    "suit jacket": _suit,
}


def paint_arm(canvas: Canvas, upper: Upper, side: str) -> None:
    """An arm in its sleeve, with the hand."""
    figure, arm = upper.figure, upper.figure.arms[side]
    radii = arm_radii(figure.body)
    bare = figure.limb(arm, radii)
    worn = upper.person.inner if upper.garment.kind == "vest" and upper.person.inner is not None else upper.garment
    far = figure.profile() and side != figure.near()
    if upper.person.sleeve != "long":
        canvas.shape(bare.outline(), figure.skin, SKIN, -16 if far else 0)
        canvas.round(bare, SKIN, 0.9)
    _hand(canvas, figure, side)
    if upper.person.sleeve == "sleeveless":
        _shoulder(canvas, upper, side)
        return
    cut = CUTS[worn.kind]
    tube = figure.limb(arm, [r + cut.sleeve_ease * f for r, f in zip(radii, (0.7, 1, 1, 1, 0.75), strict=True)])
    sleeve = tube.cut(0.0, SLEEVE[upper.person.sleeve])
    rgb = colour_of(worn)
    x, y = figure.at(arm.top)
    radius = figure.px(radii[0] + cut.sleeve_ease * 0.7)
    canvas.oval((x, y), (radius, radius), rgb, cut.stuff)
    dress(canvas, sleeve, worn, cut.stuff, figure.eye.unit, 1.15)
    if far:
        canvas.tone(sleeve.strip(-1.0, 1.0), -30, cut.stuff)
    _sleeve_details(canvas, upper, sleeve, worn)


def _shoulder(canvas: Canvas, upper: Upper, side: str) -> None:
    figure = upper.figure
    if upper.garment.kind == "tank top":
        return
    x, y = figure.at(figure.arms[side].top)
    canvas.crease([(x - figure.px(0.02), y), (x + figure.px(0.02), y)], -20, SKIN)


def _sleeve_details(canvas: Canvas, upper: Upper, sleeve: Tube, worn: Garment) -> None:
    rgb, line, cut = colour_of(worn), upper.line, CUTS[worn.kind]
    if upper.person.sleeve == "long":
        folds = upper.figure.folds
        for index in range(3):
            t = 0.42 + 0.09 * index
            canvas.crease([sleeve.at(t, -0.9 + folds[index] * 0.5), sleeve.at(t + 0.04, 0.4 + folds[index + 3] * 0.5)], -34, cut.stuff)
    if worn.kind == "puffer jacket":
        _quilt(canvas, sleeve, rgb, upper.figure.eye.unit, opened=None)
    elif worn.kind in ("sweater", "hoodie", "jacket"):
        canvas.detail(sleeve.patch(0.92, 1.0, -1.0, 1.0), shaded(rgb, 0.74))
    else:
        canvas.line([sleeve.at(0.95, s) for s in (-1, 0, 1)], shaded(rgb, 0.66), line)


def _hand(canvas: Canvas, figure: Figure, side: str) -> None:
    arm = figure.arms[side]
    (ax, ay), (bx, by) = figure.at(arm.middle), figure.at(arm.end)
    length = max(((bx - ax) ** 2 + (by - ay) ** 2) ** 0.5, 1e-6)
    reach = figure.px(0.026)
    x, y = bx + (bx - ax) / length * reach, by + (by - ay) / length * reach
    wide = figure.px(0.0185 * figure.body.arm**0.5)
    canvas.oval((x, y), (wide, wide * 1.35), figure.skin, SKIN, -4)
