"""Heads: skull, face and hair."""

from math import radians, sin

from tbps.data.mannequins.canvas import Canvas, mixed, shaded
from tbps.data.mannequins.colours import HAIR_COLOURS, Rgb
from tbps.data.mannequins.figure import Figure
from tbps.data.mannequins.textures import HAIR, SKIN
from tbps.data.mannequins.tubes import Point, Tube, limb

TOP, CHIN = 1.0, 0.862
_SKULL = (
    (1.000, 0.016, 0.020, -0.004), (0.994, 0.033, 0.042, -0.003), (0.977, 0.046, 0.058, 0.0), (0.952, 0.0525, 0.066, 0.0),
    (0.926, 0.0525, 0.066, 0.001), (0.905, 0.049, 0.060, 0.005), (0.886, 0.041, 0.050, 0.010), (0.870, 0.027, 0.036, 0.017),
    (0.862, 0.013, 0.020, 0.022),
)  # fmt: skip
HAIRLINE, EYES, MOUTH = 0.968, 0.928, 0.886


class HeadShape:
    """Places the parts of a head on the canvas."""

    def __init__(self, figure: Figure) -> None:
        self.figure, self.person = figure, figure.person
        self.y = figure.forward(0.95) + 0.008
        self.sink = 0.018 if figure.person.age == "elderly" else 0.0
        self.skull = self.shell(0.0, TOP, CHIN)
        self.hair: Rgb = HAIR_COLOURS[figure.person.hair_colour]
        style = figure.person.hair_style
        self.tied = style in ("ponytail", "bun")
        self.curly = style == "curly"

    def z(self, level: float) -> float:
        return 0.85 + (level - 0.85) * self.figure.body.head + self.figure.rise - self.sink

    def shell(self, ease: float, top: float, bottom: float, back: float = 0.0) -> Tube:
        """Returns the surface of the skull, `ease` larger, between two levels; `back` shifts it backwards."""
        scale = self.figure.body.head
        levels = [
            (
                self.z(TOP + ease) if z == TOP else self.z(z + ease * (z - 0.93) * 8),
                (w + ease) * scale,
                (d + ease) * scale,
                self.y + y - back,
            )
            for z, w, d, y in _SKULL
            if bottom <= z <= top
        ]
        return self.figure.ring(levels)

    def on(self, phi: float, level: float) -> Point | None:
        """Returns the pixel of a place on the face, None when it is turned away."""
        angle = self.figure.eye.angle(phi)
        if abs(angle) > 86:
            return None
        return self.skull.at((TOP - level) / (TOP - CHIN), sin(radians(angle)))


def neck(canvas: Canvas, figure: Figure) -> None:
    thick = 0.030 if figure.person.gender == "woman" else 0.037
    low, high = figure.forward(0.82), figure.forward(0.9)
    up = figure.rise
    tube = figure.ring([(0.895 + up, thick, thick, high), (0.85 + up, thick, thick, low), (0.822 + up, thick * 1.5, thick, low)])
    canvas.shape(tube.outline(), figure.skin, SKIN, -26)


def hair_behind(canvas: Canvas, head: HeadShape) -> None:
    """Paints the hair behind the shoulders, as seen from the front; called before the body is painted."""
    person = head.person
    if person.hair_length in ("medium", "long") and not head.tied:
        tube = _fall(head)
        canvas.shape(tube.outline(), shaded(head.hair, 0.8), HAIR, -20)


def _fall(head: HeadShape) -> Tube:
    """Returns the tube of loose hair, from the crown to the chin (medium) or the shoulder blades (long)."""
    figure, scale = head.figure, head.figure.body.head
    full = 0.014 if head.curly else 0.0
    levels = [(1.0, 0.03, 0.035, 0.0), (0.985, 0.05, 0.055, 0.0), (0.955, 0.063, 0.066, 0.008), (0.91, 0.066, 0.06, 0.014)]
    if head.person.hair_length == "medium":
        levels += [(0.875, 0.068, 0.056, 0.02), (0.842, 0.058, 0.048, 0.022)]
    else:
        levels += [
            (0.85, 0.071, 0.05, 0.03),
            (0.79, 0.074, 0.042, 0.036),
            (0.74, 0.068, 0.036, 0.036),
            (0.705, 0.045, 0.026, 0.034),
        ]
    return figure.ring([(head.z(z), (w + full) * scale, (d + full) * scale, head.y - back) for z, w, d, back in levels])


def paint_head(canvas: Canvas, head: HeadShape) -> None:
    """Paints the head over the shoulders."""
    figure, person = head.figure, head.person
    hairy = person.hair_length != "bald"
    fallen = person.hair_length in ("medium", "long") and not head.tied
    if fallen and figure.profile():
        _paint_fall(canvas, head)
    if head.tied and not figure.back() and person.hair_style == "ponytail":
        _ponytail(canvas, head)
    canvas.shape(head.skull.outline(), figure.skin, SKIN, -12 if figure.back() else 0)
    if hairy:
        _crown(canvas, head)
    if fallen and figure.back():
        _paint_fall(canvas, head)
    _face(canvas, head)
    if fallen and not (figure.profile() or figure.back()):
        _locks(canvas, head)
    if head.tied and figure.back() and person.hair_style == "ponytail":
        _ponytail(canvas, head)
    if person.hair_style == "bun" and hairy:
        _bun(canvas, head)
    if not fallen:
        _ears(canvas, head)


def _paint_fall(canvas: Canvas, head: HeadShape) -> None:
    tube = _fall(head)
    canvas.shape(tube.outline(), head.hair, HAIR)
    canvas.round(tube, HAIR, 0.8)
    _strands(canvas, head, tube)
    if head.curly:
        _curls(canvas, head, tube)


def _strands(canvas: Canvas, head: HeadShape, tube: Tube) -> None:
    for s, factor in ((-0.7, 0.7), (-0.35, 1.14), (0.0, 0.72), (0.3, 1.12), (0.65, 0.7)):
        points = [tube.at(t, s * (1 + 0.1 * sin(9 * t + s))) for t in (0.15, 0.45, 0.75, 0.97)]
        canvas.line(points, shaded(head.hair, factor), max(0.5, 0.004 * head.figure.eye.unit))


def _curls(canvas: Canvas, head: HeadShape, tube: Tube) -> None:
    radius = head.figure.px(0.017)
    for index in range(14):
        t = 0.1 + 0.88 * (index // 2) / 6
        side = -1.0 if index % 2 else 1.0
        x, y = tube.at(min(t, 1.0), side * 0.92)
        canvas.oval((x, y), (radius, radius), shaded(head.hair, 0.92 + 0.16 * (index % 3) / 2), HAIR, -8 + 8 * (index % 3))


def _crown(canvas: Canvas, head: HeadShape) -> None:
    """Paints hair on the skull, except over the face."""
    figure, person = head.figure, head.person
    ease = 0.003 if head.tied else 0.016 if head.curly else 0.008
    low = {"short": 0.905, "medium": 0.886, "long": 0.886}[person.hair_length]
    low = 0.88 if figure.back() else 0.905 if head.tied else low
    tube = head.shell(ease, TOP, low)
    canvas.shape(tube.outline(), head.hair, HAIR)
    canvas.round(tube, HAIR, 0.8)
    canvas.line([tube.at(0.2, -0.5), tube.at(0.13, 0.0), tube.at(0.2, 0.5)], shaded(head.hair, 1.16), max(0.5, figure.px(0.005)))
    if head.curly:
        radius = figure.px(0.014)
        for index in range(11):
            x, y = tube.at(0.02 + 0.9 * abs(index - 5) / 5, -1.0 if index < 5 else 1.0 if index > 5 else 0.0)
            canvas.oval((x, y), (radius, radius), shaded(head.hair, 0.9 + 0.1 * (index % 3)), HAIR, -6 + 6 * (index % 3))
        for index in range(6):
            spot = tube.at(0.25 + 0.1 * (index % 3), -0.75 + 0.3 * index)
            canvas.line([spot, (spot[0] + radius, spot[1] + radius * 0.6)], shaded(head.hair, 1.25), max(0.5, radius * 0.3))


def _face(canvas: Canvas, head: HeadShape) -> None:
    figure, person, skin = head.figure, head.person, head.figure.skin
    wide = 74 if person.hair_length in ("bald", "short") else 66 if head.tied and person.hat is None else 58
    span = figure.eye.span(-wide, wide)
    if span is None or figure.back():
        return
    fringe = HAIRLINE - (0.014 if person.hair_style == "loose" and person.gender == "woman" else 0.0)
    if person.hair_length == "bald":
        fringe = 0.99
    t0 = (TOP - fringe) / (TOP - CHIN)
    s0, s1 = span
    skull = head.skull
    arc = [skull.at(t0 + 0.13 * abs(2 * f - 1) ** 2, s0 + (s1 - s0) * f) for f in (1.0, 0.8, 0.5, 0.2, 0.0)]
    canvas.shape([*(skull.at(t, s0) for t in (0.35, 0.55, 0.7)), *_jaw(skull, s0, s1), *arc], skin, SKIN, 4)
    side = 1 if canvas.sun <= 0 else -1
    edge = (0.45 * side, 1.0 * side)
    low, high = max(min(edge), s0), min(max(edge), s1)
    if high - low > 0.1:
        canvas.tone(skull.patch(0.25, 0.95, low, high), -18, SKIN)
    _nose(canvas, head)
    _features(canvas, head)


def _jaw(skull: Tube, s0: float, s1: float) -> list[Point]:
    return [skull.at(0.85, s0), skull.at(0.95, s0), skull.at(1.0, -0.6), skull.at(1.0, 0.6), skull.at(0.95, s1), *(
        skull.at(t, s1) for t in (0.85, 0.7, 0.55, 0.35)
    )]  # fmt: skip


def _nose(canvas: Canvas, head: HeadShape) -> None:
    figure = head.figure
    out = head.y + 0.064 * figure.body.head
    tip = figure.eye.at(0.0, out + 0.016, head.z(0.908))
    if figure.profile():
        canvas.shape(
            [figure.eye.at(0, out - 0.006, head.z(0.928)), tip, figure.eye.at(0, out - 0.008, head.z(0.902))], figure.skin, SKIN
        )
    else:
        low = head.on(0, 0.904)
        if low is not None:
            half = figure.px(0.009)
            canvas.line([(low[0] - half, low[1]), (low[0] + half, low[1])], shaded(figure.skin, 0.72), max(0.5, figure.px(0.004)))


def _features(canvas: Canvas, head: HeadShape) -> None:
    figure, skin = head.figure, head.figure.skin
    width = max(0.5, figure.px(0.0045))
    brow = mixed(shaded(skin, 0.45), head.hair, 0.5) if head.person.hair_length != "bald" else shaded(skin, 0.5)
    for phi in (-25, 25):
        eye = head.on(phi, EYES)
        if eye is None:
            continue
        half = figure.px(0.0085)
        canvas.dot(eye, (half, max(0.5, half * 0.55)), shaded(skin, 0.28))
        canvas.line(
            [(eye[0] - half * 1.4, eye[1] - figure.px(0.015)), (eye[0] + half * 1.4, eye[1] - figure.px(0.015))], brow, width
        )
        if head.person.age == "elderly":
            canvas.line(
                [(eye[0] - half, eye[1] + figure.px(0.013)), (eye[0] + half, eye[1] + figure.px(0.014))],
                shaded(skin, 0.74),
                width,
            )
    mouth = [spot for phi in (-17, 0, 17) if (spot := head.on(phi, MOUTH)) is not None]
    lips = mixed(skin, (170, 40, 60), 0.55) if head.person.gender == "woman" else shaded(skin, 0.66)
    if len(mouth) > 1:
        canvas.line(mouth, lips, width * (1.5 if head.person.gender == "woman" else 1.1))
    if head.person.age == "elderly":
        for phi in (-24, 24):
            fold = [spot for f, level in ((0.7, 0.906), (1.0, 0.884)) if (spot := head.on(phi * f, level)) is not None]
            if len(fold) == 2:
                canvas.line(fold, shaded(skin, 0.72), width)


def _ears(canvas: Canvas, head: HeadShape) -> None:
    figure = head.figure
    for phi in (-90, 90):
        angle = figure.eye.angle(phi - (8 if phi > 0 else -8))
        if abs(angle) > 106:
            continue
        s = sin(radians(max(-90.0, min(90.0, angle))))
        centre = head.skull.at((TOP - 0.917) / (TOP - CHIN), s * 1.02)
        canvas.oval(centre, (figure.px(0.0085), figure.px(0.016)), shaded(figure.skin, 0.9), SKIN, -10)


def _locks(canvas: Canvas, head: HeadShape) -> None:
    """Paints the hair that frames the face, as seen from the front."""
    tube = _fall(head)
    tail = 0.9 if head.person.hair_length == "long" else 1.0
    for s0, s1 in ((-1.0, -0.60), (0.60, 1.0)):
        piece = tube.patch(0.12, tail, s0, s1)
        canvas.shape(piece, head.hair, HAIR)
        canvas.tone(tube.patch(0.3, tail, s0, s0 + 0.14), -22, HAIR)
        middle = (s0 + s1) / 2
        canvas.line([tube.at(t, middle) for t in (0.2, 0.5, 0.85)], shaded(head.hair, 1.15), max(0.5, head.figure.px(0.004)))
    if head.curly:
        _curls(canvas, head, tube)


def _ponytail(canvas: Canvas, head: HeadShape) -> None:
    figure = head.figure
    if not (figure.profile() or figure.back()):
        return
    drops = ((0.965, 0.06, 0.015), (0.95, 0.10, 0.024), (0.88, 0.115, 0.027), (0.80, 0.10, 0.022), (0.735, 0.085, 0.008))
    points = [figure.eye.at(0.012 * sin(30 * z), head.y - back, head.z(z)) for z, back, _ in drops]
    tube = limb(points, [figure.px(radius) for *_, radius in drops])
    canvas.shape(tube.outline(), head.hair, HAIR)
    canvas.round(tube, HAIR)
    tie = tube.patch(0.1, 0.2, -1.0, 1.0)
    canvas.shape(tie, shaded(head.hair, 0.5), HAIR, -20)


def _bun(canvas: Canvas, head: HeadShape) -> None:
    figure = head.figure
    if not (figure.profile() or figure.back()):
        return
    centre = figure.eye.at(0.0, head.y - 0.06, head.z(1.008))
    radius = figure.px(0.035)
    canvas.oval(centre, (radius, radius), head.hair, HAIR, -14)
    canvas.oval(centre, (radius * 0.78, radius * 0.78), shaded(head.hair, 1.12), HAIR, 8)
    tie = (centre[0], centre[1] + radius * 0.9)
    canvas.dot(tie, (radius * 0.6, max(0.7, radius * 0.18)), shaded(head.hair, 0.45))
    x, y = centre
    coil = [(x - radius * 0.6, y), (x, y + radius * 0.4), (x + radius * 0.6, y)]
    canvas.line(coil, shaded(head.hair, 0.6), max(0.5, radius * 0.12))
