"""Painting of cloth on a tube: colour, pattern in the second colour, and light."""

from math import sin

from tbps.data.mannequins.canvas import Canvas, mixed, shaded
from tbps.data.mannequins.colours import COLOURS, Rgb
from tbps.data.mannequins.people import Garment
from tbps.data.mannequins.tubes import Tube


def colour_of(garment: Garment) -> Rgb:
    """Returns the individual shade of a garment: the centre of its colour plus its tint."""
    red, green, blue = (max(0, min(255, c + t)) for c, t in zip(COLOURS[garment.colour].rgb, garment.tint, strict=True))
    return red, green, blue


def dress(canvas: Canvas, tube: Tube, garment: Garment, material: int, unit: float, depth: float = 1.0) -> None:
    """Paints a tube with the cloth of a garment. `unit`: height of the body in pixels, which sets the size of patterns."""
    canvas.shape(tube.outline(), colour_of(garment), material)
    weave(canvas, tube, garment, unit)
    canvas.round(tube, material, depth)


def weave(canvas: Canvas, tube: Tube, garment: Garment, unit: float) -> None:
    """Paints the pattern only."""
    if garment.second is None:
        return
    second = COLOURS[garment.second].rgb
    if garment.pattern == "striped":
        _stripes(canvas, tube, second, unit)
    elif garment.pattern == "checked":
        _checks(canvas, tube, (colour_of(garment), second), unit)
    elif garment.pattern == "dotted":
        _dots(canvas, tube, second, unit)


def _stripes(canvas: Canvas, tube: Tube, second: Rgb, unit: float) -> None:
    count = max(2, round(tube.length() / (0.046 * unit)))
    for index in range(count):
        t = (index + 0.35) / count
        canvas.detail(tube.patch(t, min(t + 0.46 / count, 1.0), -1.0, 1.0), second)


def _checks(canvas: Canvas, tube: Tube, colours: tuple[Rgb, Rgb], unit: float) -> None:
    """Paints a tartan: half-mixed bands along and across, the second colour where they cross."""
    half, second = mixed(*colours, 0.5), colours[1]
    rows = max(2, round(tube.length() / (0.055 * unit)))
    columns = max(2, round(tube.width(0.5) / (0.036 * unit)))
    bands = [((i + 0.3) / rows, (i + 0.7) / rows) for i in range(rows)]
    angles = [-1.45 + 2.9 * (i + 0.25) / columns for i in range(columns)]
    lanes = [(sin(a), sin(a + 1.2 / columns)) for a in angles]
    for t0, t1 in bands:
        canvas.detail(tube.patch(t0, t1, -1.0, 1.0), half)
    for s0, s1 in lanes:
        canvas.detail(tube.strip(s0, s1), half)
    for t0, t1 in bands:
        for s0, s1 in lanes:
            (x0, y0), (x1, y1) = tube.at(t0, s0), tube.at(t1, s1)
            canvas.block((x0, y0), (x1, y1), second)


def _dots(canvas: Canvas, tube: Tube, second: Rgb, unit: float) -> None:
    rows = max(2, round(tube.length() / (0.042 * unit)))
    columns = max(2, round(tube.width(0.5) / (0.045 * unit)))
    radius = max(0.011 * unit, 0.75)
    for row in range(rows):
        for column in range(columns + 1):
            angle = -1.3 + 2.6 * (column + 0.5 * (row % 2)) / columns
            if abs(angle) < 1.35:
                s = sin(angle)
                canvas.dot(tube.at((row + 0.5) / rows, s), (radius * max(0.35, (1 - s * s) ** 0.5), radius), second)


def motif(canvas: Canvas, tube: Tube, garment: Garment, s: tuple[float, float]) -> None:
    """Paints a print on the chest: one of three motifs in the second colour, chosen by the names of both colours."""
    if garment.pattern != "print" or garment.second is None:
        return
    second, first = COLOURS[garment.second].rgb, colour_of(garment)
    kind = (len(garment.colour) + len(garment.second)) % 3
    low, high, middle = s[0], s[1], (s[0] + s[1]) / 2
    top, bottom = 0.2, 0.52
    if kind == 0:
        canvas.detail(tube.patch(top, bottom, low, high), second)
        canvas.detail(tube.patch(top + 0.1, top + 0.15, low * 0.7 + high * 0.3, low * 0.2 + high * 0.8), first)
        canvas.detail(tube.patch(top + 0.19, top + 0.24, low * 0.7 + high * 0.3, low * 0.35 + high * 0.65), first)
    elif kind == 1:
        (x, y), (x0, _), (_, y1) = tube.at((top + bottom) / 2, middle), tube.at(top, low), tube.at(bottom, middle)
        canvas.dot((x, y), (abs(x - x0), abs(y1 - y)), second)
        canvas.dot((x, y), (abs(x - x0) * 0.45, abs(y1 - y) * 0.4), shaded(first, 0.95))
    else:
        for index in range(3):
            t = top + 0.12 * index
            canvas.detail(tube.patch(t, t + 0.075, low - 0.06 + 0.08 * index, high + 0.06 - 0.08 * index), second)
