"""Details of upper garments: collars, buttons, hoods, pockets, lapels, quilting."""

from math import sin

from tbps.data.mannequins.canvas import Canvas, mixed, shaded
from tbps.data.mannequins.colours import Rgb
from tbps.data.mannequins.cuts import Upper
from tbps.data.mannequins.textures import CLOTH, KNIT, PADDING
from tbps.data.mannequins.tubes import Tube


def paint_collar(canvas: Canvas, upper: Upper, rgb: Rgb) -> None:
    """Paints a shirt collar: two points in front, a band at the back."""
    tube, figure = upper.tube, upper.figure
    pale = shaded(rgb, 1.14 if sum(rgb) < 600 else 0.92)
    if figure.back():
        canvas.shape(upper.band(-0.07, 0.04, -1.0, 1.0), pale, CLOTH, -6)
        return
    for side in (-1, 1):
        outer, inner = upper.s(78 * side), upper.s(6 * side)
        tip = upper.s(34 * side)
        if tip is None and outer is None:
            continue
        outer = outer if outer is not None else (tip or 0.0)
        inner = inner if inner is not None else (tip or 0.0)
        flap = [
            upper.at(-0.07, outer),
            tube.at(0.045, inner * 0.5),
            tube.at(0.1, (tip if tip is not None else outer) * 0.8),
            tube.at(0.015, outer * 0.8),
        ]
        canvas.shape(flap, pale, CLOTH, 4)
        canvas.line([flap[1], flap[2], flap[3]], shaded(rgb, 0.58), upper.line * 0.9)


def _shirt(canvas: Canvas, upper: Upper) -> None:
    paint_collar(canvas, upper, upper.rgb)
    _buttons(canvas, upper, (0.77, 0.715, 0.66, 0.605, 0.55, 0.50), to=1.0)
    if upper.figure.frontal() and (s := upper.s(32)) is not None:
        pocket = upper.tube.patch(upper.t(0.745), upper.t(0.69), s - 0.16, s + 0.16)
        canvas.line([*pocket, pocket[0]], shaded(upper.rgb, 0.74), upper.line * 0.8)


def _polo(canvas: Canvas, upper: Upper) -> None:
    paint_collar(canvas, upper, upper.rgb)
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
    """Paints soft gathers from the neck and a bow of the same cloth."""
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
    canvas.shape(upper.band(-0.05, 0.045, -1.0, 1.0), shaded(upper.rgb, 0.82), KNIT, -8)
    for index in range(5):
        s = sin(-1.2 + 2.4 * index / 4)
        canvas.crease([tube.at(0.1, s * 0.9), tube.at(0.88, s)], -16, KNIT)


def _hoodie(canvas: Canvas, upper: Upper) -> None:
    figure, tube = upper.figure, upper.tube
    canvas.detail(tube.patch(0.92, 1.0, -1.0, 1.0), shaded(upper.rgb, 0.82))
    if figure.back():
        _hood(canvas, upper)
        return
    canvas.shape(upper.band(-0.1, 0.12, -1.25, 1.25), shaded(upper.rgb, 0.88), CLOTH, -4)
    canvas.shape(upper.band(-0.1, 0.055, -0.8, 0.8), shaded(upper.rgb, 0.5), CLOTH, -20)
    if figure.profile():
        side = 1 if figure.eye.angle(180) > 0 else -1
        x, y = tube.at(0.02, side * 0.9)
        a = figure.px(0.04)
        canvas.oval((x, y), (a, a * 0.9), shaded(upper.rgb, 0.86), CLOTH, -8)
        return
    if (span := figure.eye.span(-48, 48)) is not None:
        _belly_pocket(canvas, upper, span)
    for phi in (-9, 9):
        if (s := upper.s(phi)) is not None:
            canvas.line([tube.at(0.1, s), tube.at(0.27, s)], (228, 228, 224) if sum(upper.rgb) < 480 else (60, 60, 64), upper.line)


def _hood(canvas: Canvas, upper: Upper) -> None:
    """Paints a hood that hangs down the back."""
    tube = upper.tube
    hood = [
        upper.at(-0.11, -1.0),
        tube.at(0.05, -0.7),
        tube.at(0.17, -0.55),
        tube.at(0.24, 0.0),
        tube.at(0.17, 0.55),
        tube.at(0.05, 0.7),
        upper.at(-0.11, 1.0),
    ]
    canvas.shape(hood, shaded(upper.rgb, 0.8), CLOTH, -6)
    canvas.tone([*hood[1:6], tube.at(0.1, 0.5), tube.at(0.15, 0.0), tube.at(0.1, -0.5)], -36, CLOTH)
    canvas.line(hood[1:6], shaded(upper.rgb, 0.5), upper.line * 1.5)


def _belly_pocket(canvas: Canvas, upper: Upper, span: tuple[float, float]) -> None:
    tube, (s0, s1) = upper.tube, span
    inset = 0.22 * (s1 - s0)
    ring = [
        tube.at(0.64, s0 + inset),
        tube.at(0.64, s1 - inset),
        tube.at(0.79, s1),
        tube.at(0.9, s1),
        tube.at(0.9, s0),
        tube.at(0.79, s0),
    ]
    canvas.line([*ring, ring[0]], shaded(upper.rgb, 0.72), upper.line * 1.2)
    canvas.tone([ring[0], ring[1], tube.at(0.68, s1 - inset), tube.at(0.68, s0 + inset)], -26, CLOTH)


def _jacket(canvas: Canvas, upper: Upper) -> None:
    tube, dark = upper.tube, shaded(upper.rgb, 0.6)
    if upper.person.inner is None or upper.figure.back():
        canvas.detail(tube.patch(0.93, 1.0, -1.0, 1.0), shaded(upper.rgb, 0.74))
    canvas.line([tube.at(0.93, s) for s in (-1, -0.4)], dark, upper.line)
    s = upper.s(0)
    if upper.person.inner is None and s is not None and not upper.figure.back():
        canvas.line([tube.at(t, s) for t in (0.0, 0.4, 1.0)], (176, 176, 180), upper.line * 1.3)
    _stand_collar(canvas, upper, 0.055)
    _pockets(canvas, upper, 0.57)
    if upper.figure.back():
        canvas.line([tube.at(0.2, -0.95), tube.at(0.215, 0), tube.at(0.2, 0.95)], dark, upper.line)


def _stand_collar(canvas: Canvas, upper: Upper, tall: float) -> None:
    low = 0.06 * 0.36 / upper.tall
    tall = tall * 0.36 / upper.tall
    opened = upper.person.inner is not None and upper.figure.frontal()
    pieces = ((-1.05, -0.45), (0.45, 1.05)) if opened else ((-1.05, 1.05),)
    for s0, s1 in pieces:
        piece = upper.band(-tall, low, s0, s1)
        canvas.shape(piece, shaded(upper.rgb, 0.86), upper.cut.material, -6)
        canvas.line(piece[4:], shaded(upper.rgb, 0.6), upper.line)


def _pockets(canvas: Canvas, upper: Upper, level: float) -> None:
    for phi in (-52, 52):
        s = upper.s(phi)
        if s is not None and not upper.figure.back():
            canvas.line(
                [upper.tube.at(upper.t(level), s * 0.9), upper.tube.at(upper.t(level - 0.05), s * 1.05)],
                shaded(upper.rgb, 0.5),
                upper.line * 1.3,
            )


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
    """Paints lapels, two long flaps of the collar; at the back, a band."""
    tube, k = upper.tube, 0.36 / upper.tall
    pale = shaded(upper.rgb, 1.12)
    if upper.figure.back():
        canvas.shape(upper.band(-0.07 * k, 0.05 * k, -1.0, 1.0), pale, CLOTH, -6)
        canvas.line([tube.at(0.05 * k, s) for s in (-0.6, 0, 0.6)], shaded(upper.rgb, 0.55), upper.line)
        return
    for side in (-1, 1):
        middle, tip, outer = upper.s(4 * side), upper.s(44 * side), upper.s(70 * side)
        if middle is None or tip is None:
            continue
        outer = outer if outer is not None else tip
        flap = [
            upper.at(-0.08 * k, outer),
            tube.at(0.1 * k, tip * 0.6 + middle * 0.4),
            tube.at(upper.t(down_to), middle),
            tube.at(0.22 * k, tip),
            tube.at(0.05 * k, outer),
        ]
        canvas.shape(flap, pale, CLOTH, 5)
        canvas.line(flap[2:], shaded(upper.rgb, 0.5), upper.line)


def _puffer(canvas: Canvas, upper: Upper) -> None:
    tube = upper.tube
    s = upper.s(0)
    opened = upper.person.inner is not None and upper.figure.frontal()
    if s is not None and not opened and not upper.figure.back():
        canvas.line([tube.at(t, s) for t in (0.0, 0.4, 1.0)], shaded(upper.rgb, 0.4), upper.line * 1.4)
    _stand_collar(canvas, upper, 0.1)


def quilt(canvas: Canvas, tube: Tube, rgb: Rgb, unit: float) -> None:
    """Paints padded bands, each lit above and dark below, with a seam between neighbours."""
    count = max(2, round(tube.length() / (0.052 * unit)))
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


DETAILS = {
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
