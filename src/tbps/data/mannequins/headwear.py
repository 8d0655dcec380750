"""Painting of glasses and hats."""

from math import radians, sin

from tbps.data.mannequins.canvas import Canvas, shaded
from tbps.data.mannequins.colours import Rgb
from tbps.data.mannequins.head import EYES, HeadShape
from tbps.data.mannequins.patterns import colour_of
from tbps.data.mannequins.textures import CLOTH, KNIT
from tbps.data.mannequins.tubes import Point, Tube, hull


def paint_headwear(canvas: Canvas, head: HeadShape) -> None:
    """Paints glasses and hat over the head."""
    _glasses(canvas, head)
    _hat(canvas, head)


def _glasses(canvas: Canvas, head: HeadShape) -> None:
    kind, figure = head.person.glasses, head.figure
    if kind == "none" or figure.back():
        return
    dark = kind == "sunglasses"
    half, tall = figure.px(0.0195 if dark else 0.018), figure.px(0.0155 if dark else 0.0135)
    frame, width = (22, 20, 22), max(0.6, figure.px(0.005))
    inner: list[Point] = []
    for phi in (-27, 27):
        spot = head.on(phi, EYES - 0.001) or (head.on(phi * 0.4, EYES - 0.001) if figure.profile() else None)
        if spot is None:
            continue
        squash = max(0.4, abs(sin(radians(90 - abs(figure.eye.angle(phi))))))
        a = half * squash
        x, y = spot
        ring = [(x - a, y - tall * 0.8), (x + a, y - tall * 0.8), (x + a * 0.85, y + tall), (x - a * 0.85, y + tall)]
        if dark:
            canvas.detail(ring, frame)
        canvas.line([*ring, ring[0]], frame, width)
        inner.append(spot)
        temple = head.on(72 if phi > 0 else -72, EYES + 0.004)
        if temple is not None:
            canvas.line([(x + (a if temple[0] > x else -a), y - tall * 0.5), temple], frame, width)
    if len(inner) == 2 and not dark:
        (ax, ay), (bx, _) = inner
        canvas.line([(ax, ay - tall * 0.3), (bx, ay - tall * 0.3)], frame, width)


def _hat(canvas: Canvas, head: HeadShape) -> None:
    hat = head.person.hat
    if hat is None:
        return
    {"cap": _cap, "beanie": _beanie, "brimmed hat": _brimmed}[hat.kind](canvas, head, colour_of(hat))


def _dome(head: HeadShape, ease: float, rim: float, tall: float) -> Tube:
    scale = head.figure.body.head
    levels = [
        (1.0 + tall, 0.024, 0.03),
        (0.995 + tall * 0.9, 0.042, 0.052),
        (0.975 + tall * 0.5, 0.054, 0.066),
        (rim, 0.056, 0.069),
    ]
    return head.figure.ring([(head.z(z), (w + ease) * scale, (d + ease) * scale, head.y) for z, w, d in levels])


def _cap(canvas: Canvas, head: HeadShape, rgb: Rgb) -> None:
    figure = head.figure
    dome = _dome(head, 0.006, 0.952, 0.016)
    canvas.shape(dome.outline(), rgb, CLOTH)
    canvas.round(dome, CLOTH, 0.8)
    for phi in (-60, 0, 60):
        angle = figure.eye.angle(phi)
        if abs(angle) < 80:
            s = sin(radians(angle))
            canvas.line([dome.at(t, s * t) for t in (0.05, 0.5, 1.0)], shaded(rgb, 0.78), max(0.5, figure.px(0.003)))
    if figure.back():
        canvas.detail(dome.patch(0.72, 1.0, -0.25, 0.25), shaded(rgb, 0.45))
        return
    scale = figure.body.head
    arc = ((0.058, 0.05, 0.957), (0.05, 0.1, 0.951), (0.026, 0.122, 0.948), (0.03, 0.07, 0.962))  # half width, ahead, level
    rim = [(x * side, head.y + ahead * scale, z) for x, ahead, z in arc for side in (-1, 1)]
    canvas.shape(hull([figure.eye.at(x * scale, y, head.z(z)) for x, y, z in rim]), shaded(rgb, 0.84), CLOTH, -8)


def _beanie(canvas: Canvas, head: HeadShape, rgb: Rgb) -> None:
    dome = _dome(head, 0.01, 0.945, 0.034)
    canvas.shape(dome.outline(), rgb, KNIT)
    canvas.round(dome, KNIT, 0.8)
    canvas.shape(dome.patch(0.72, 1.0, -1.03, 1.03), shaded(rgb, 0.86), KNIT, -6)
    for s in (-0.85, -0.6, -0.3, 0.0, 0.3, 0.6, 0.85):
        canvas.line([dome.at(0.1 + abs(s) * 0.25, s * 0.7), dome.at(1.0, s)], shaded(rgb, 0.72), max(0.5, head.figure.px(0.003)))


def _brimmed(canvas: Canvas, head: HeadShape, rgb: Rgb) -> None:
    figure = head.figure
    scale = figure.body.head
    x, y = figure.eye.at(0.0, head.y, head.z(0.966))
    wide, deep = 0.112 * scale, 0.118 * scale
    half, tall = figure.eye.extent(wide, deep) * figure.eye.wide, max(figure.eye.sag(wide, deep), figure.px(0.011))
    canvas.oval((x, y), (half, tall), shaded(rgb, 0.82), CLOTH, -8)
    dome = _dome(head, 0.006, 0.968, 0.04)
    canvas.shape(dome.outline(), rgb, CLOTH)
    canvas.round(dome, CLOTH, 0.8)
    canvas.detail(dome.patch(0.74, 1.0, -1.0, 1.0), shaded(rgb, 0.5))
