"""Painting of bags and carried objects, as boxes in space around the body."""

from math import cos, pi, sin

from tbps.data.mannequins.canvas import Canvas, shaded
from tbps.data.mannequins.colours import COLOURS, Rgb
from tbps.data.mannequins.cuts import Upper
from tbps.data.mannequins.figure import SIDES, Figure, Joint
from tbps.data.mannequins.people import Item
from tbps.data.mannequins.textures import CLOTH, LEATHER, SKIN
from tbps.data.mannequins.tubes import Point, Points, Tube, limb


def hand_of(figure: Figure, side: str) -> Joint:
    """Returns the middle of the palm."""
    arm = figure.arms[side]
    (ax, ay, az), (bx, by, bz) = arm.middle, arm.end
    return bx + (bx - ax) * 0.2, by + (by - ay) * 0.2, bz + (bz - az) * 0.2


def rounded(points: Points, share: float = 0.16) -> Points:
    """Returns a polygon with its corners cut off."""
    made: Points = []
    for index, (x, y) in enumerate(points):
        (px, py), (nx, ny) = points[index - 1], points[(index + 1) % len(points)]
        made += [(x + (px - x) * share, y + (py - y) * share), (x + (nx - x) * share, y + (ny - y) * share)]
    return made


def _between(points: Points) -> tuple[Point, Point]:
    xs, ys = [x for x, _ in points], [y for _, y in points]
    return (min(xs), min(ys)), (max(xs), max(ys))


# Backpack


def backpack_behind(canvas: Canvas, figure: Figure, rgb: Rgb) -> None:
    """Paints a backpack behind or beside the body."""
    b, y = figure.body, figure.forward(0.7)
    centre = (0.0, y - b.depth - 0.058, 0.69 + figure.rise)
    outline = rounded(figure.box(centre, (0.2, 0.115, 0.265)), 0.25)
    canvas.shape(outline, shaded(rgb, 0.92), LEATHER, -8)
    if figure.profile():
        pocket = rounded(figure.box((0.0, centre[1] - 0.062, 0.635 + figure.rise), (0.16, 0.045, 0.12)), 0.25)
        canvas.shape(pocket, rgb, LEATHER, -12)
        (x0, y0), (x1, y1) = _between(outline)
        canvas.line([(x0, y0 + (y1 - y0) * 0.3), (x1, y0 + (y1 - y0) * 0.3)], shaded(rgb, 0.6), max(0.5, figure.px(0.005)))
        canvas.tone([(x0, y1 - (y1 - y0) * 0.2), (x1, y1 - (y1 - y0) * 0.2), (x1, y1), (x0, y1)], -30, LEATHER)


def backpack_over(canvas: Canvas, upper: Upper, rgb: Rgb) -> None:
    """Paints a backpack over the body: all of it if seen from behind, else only its straps."""
    figure, tube = upper.figure, upper.tube
    if not figure.back():
        _straps(canvas, upper, rgb)
        return
    turn = figure.eye.depth(0, -1)
    x, _ = figure.eye.at(0.0, figure.forward(0.7) - figure.body.depth - 0.06, 0.7)
    (_, top), (_, bottom) = tube.at(upper.t(0.825), 0.0), tube.at(upper.t(0.555), 0.0)
    half = figure.px(0.098 * abs(turn) + 0.02)
    profile = ((0.0, 0.72), (0.2, 0.97), (0.9, 1.0), (1.0, 0.85))  # length, half width
    left = [(x - half * wide, top + (bottom - top) * t) for t, wide in profile]
    right = [(x + half * wide, top + (bottom - top) * t) for t, wide in profile]
    shell = Tube(left, right, [t for t, _ in profile])
    canvas.shape(shell.outline(), rgb, LEATHER)
    canvas.round(shell, LEATHER, 0.9)
    line = max(0.6, figure.px(0.006))
    canvas.line([shell.at(0.3, -0.95), shell.at(0.24, 0.0), shell.at(0.3, 0.95)], shaded(rgb, 0.55), line)
    pocket = rounded([shell.at(0.5, -0.68), shell.at(0.5, 0.68), shell.at(0.92, 0.68), shell.at(0.92, -0.68)])
    canvas.shape(pocket, shaded(rgb, 1.08), LEATHER, 4)
    canvas.line([*pocket, pocket[0]], shaded(rgb, 0.55), line)
    canvas.line([shell.at(0.58, -0.6), shell.at(0.58, 0.6)], shaded(rgb, 0.5), line)
    for side in (-1, 1):
        canvas.line([tube.at(0.04, 0.8 * side), shell.at(0.05, 0.75 * side)], shaded(rgb, 0.75), figure.px(0.018))


def _straps(canvas: Canvas, upper: Upper, rgb: Rgb) -> None:
    tube, figure = upper.tube, upper.figure
    wide = max(1.0, figure.px(0.024))
    if figure.profile():
        s = upper.s(90 * SIDES[figure.near()])
        ahead = upper.s(45 * SIDES[figure.near()])
        if s is not None and ahead is not None:
            path = [
                tube.at(0.07, s),
                tube.at(upper.t(0.77), s * 0.35 + ahead * 0.65),
                tube.at(upper.t(0.70), s * 0.5 + ahead * 0.5),
                tube.at(upper.t(0.65), s),
            ]
            canvas.line(path, rgb, wide)
        return
    for phi in (-40, 40):
        s = upper.s(phi)
        if s is not None:
            s = max(-0.68, min(0.68, s))
            path = [tube.at(0.06, s * 0.9), tube.at(upper.t(0.76), s), tube.at(upper.t(0.665), s * 1.2)]
            canvas.line(path, rgb, wide)
            canvas.line(path, shaded(rgb, 0.8), wide * 0.25)


# Bags at the side


def _hip(figure: Figure, side: str, out: float, level: float) -> Joint:
    return (
        SIDES[side] * (figure.body.hip + out),
        figure.forward(0.5) + (0.015 if figure.profile() else 0.03),
        level + figure.rise,
    )


def paint_bag(canvas: Canvas, upper: Upper) -> None:
    """Paints a bag at one side, over the body."""
    bag, figure = upper.person.bag, upper.figure
    if bag is None:
        return
    rgb = COLOURS[bag.colour].rgb
    if bag.kind == "backpack":
        backpack_over(canvas, upper, rgb)
    elif bag.kind == "messenger bag":
        _messenger(canvas, upper, bag, rgb)
    elif bag.kind == "shoulder bag":
        _shoulder_bag(canvas, upper, bag, rgb)
    elif bag.kind == "handbag":
        _handbag(canvas, figure, bag, rgb)


def _messenger(canvas: Canvas, upper: Upper, bag: Item, rgb: Rgb) -> None:
    figure, tube = upper.figure, upper.tube
    sign, back = SIDES[bag.side], 180 if figure.back() else 0
    wide = max(0.9, figure.px(0.019))
    centre = _hip(figure, bag.side, 0.018, 0.505)
    near = upper.s(back + (70 if back == 0 else -70) * sign)
    over = upper.s(back + (-62 if back == 0 else 62) * sign)
    if figure.profile():
        front = 1 if (upper.s(40 * sign) or 0) > 0 else -1
        path = [tube.at(0.05, 0.0), tube.at(0.3, 0.55 * front), figure.eye.at(centre[0], centre[1], centre[2] + 0.05)]
        canvas.line(path, shaded(rgb, 0.8), wide)
    elif near is not None and over is not None:
        path = [
            tube.at(0.05, over * 0.85),
            tube.at(upper.t(0.70), over * 0.1),
            figure.eye.at(centre[0], centre[1], centre[2] + 0.05),
        ]
        canvas.line(path, shaded(rgb, 0.7), wide * 1.3)
        canvas.line(path, rgb, wide)
    body = rounded(figure.box(centre, (0.07, 0.19, 0.135) if figure.profile() else (0.13, 0.06, 0.135)), 0.12)
    _pouch(canvas, figure, body, rgb, flap=0.5)


def _shoulder_bag(canvas: Canvas, upper: Upper, bag: Item, rgb: Rgb) -> None:
    figure, tube = upper.figure, upper.tube
    sign = SIDES[bag.side]
    centre = _hip(figure, bag.side, 0.045, 0.575)
    top = upper.s((118 if figure.back() else 62) * sign)
    start = tube.at(0.09, top * 0.95) if top is not None else tube.at(0.09, 0.0)
    wide = max(0.7, figure.px(0.012))
    half = 0.05
    for shift in (-half, half):
        to = figure.eye.at(centre[0], centre[1] + shift, centre[2] + 0.06)
        x = start[0] + (to[0] - start[0]) * 0.25
        canvas.line([start, (x, start[1] + (to[1] - start[1]) * 0.45), to], shaded(rgb, 0.78), wide)
    body = rounded(figure.box(centre, (0.075, 0.17, 0.14) if figure.profile() else (0.12, 0.10, 0.14)), 0.2)
    _pouch(canvas, figure, body, rgb, flap=0.22)


def _handbag(canvas: Canvas, figure: Figure, bag: Item, rgb: Rgb) -> None:
    arm = figure.arms[bag.side]
    busy = figure.person.carried is not None and figure.person.carried.side == bag.side
    hold = arm.middle if busy else hand_of(figure, bag.side)
    hold = (hold[0] + 0.012 * SIDES[bag.side], hold[1], hold[2] - (0.03 if busy else 0.005))
    centre = (hold[0], hold[1], hold[2] - 0.098)
    x, y = figure.eye.at(*hold)
    body = rounded(figure.box(centre, (0.05, 0.15, 0.115) if figure.profile() else (0.12, 0.07, 0.115)), 0.14)
    (x0, y0), (x1, _) = _between(body)
    wide = max(0.7, figure.px(0.009))
    grip = [(x0 + (x1 - x0) * 0.22, y0), (x - (x1 - x0) * 0.15, y), (x + (x1 - x0) * 0.15, y), (x1 - (x1 - x0) * 0.22, y0)]
    canvas.line(grip, shaded(rgb, 0.66), wide)
    _pouch(canvas, figure, body, rgb, flap=0.3)


def _pouch(canvas: Canvas, figure: Figure, body: Points, rgb: Rgb, flap: float) -> None:
    canvas.shape(body, rgb, LEATHER)
    (x0, y0), (x1, y1) = _between(body)
    low = y0 + (y1 - y0) * flap
    line = max(0.5, figure.px(0.005))
    canvas.tone([(x0, y1 - (y1 - y0) * 0.2), (x1, y1 - (y1 - y0) * 0.2), (x1, y1), (x0, y1)], -24, LEATHER)
    canvas.tone([(x0, y0), (x1, y0), (x1, y0 + (y1 - y0) * 0.2), (x0, y0 + (y1 - y0) * 0.2)], 12, LEATHER)
    canvas.line([(x0 + line, low), (x1 - line, low)], shaded(rgb, 0.55), line * 1.3)
    canvas.dot(((x0 + x1) / 2, low), (line * 1.4, line * 1.4), (206, 186, 120))
    canvas.line([*body, body[0]], shaded(rgb, 0.62), line * 0.8)


# Carried things


def carried_behind(canvas: Canvas, figure: Figure) -> None:
    """Paints objects behind the body: an open umbrella, a trolley."""
    item = figure.person.carried
    if item is None:
        return
    if item.kind == "umbrella" and figure.umbrella_open:
        _canopy(canvas, figure, item)
    elif item.kind == "trolley" and not (figure.back() or (figure.profile() and item.side == figure.near())):
        _trolley(canvas, figure, item)


def carried_before(canvas: Canvas, figure: Figure) -> None:
    """Paints the object in the hand, over the body and below the hand."""
    item = figure.person.carried
    if item is None:
        return
    rgb = COLOURS[item.colour].rgb
    x, y, z = hand_of(figure, item.side)
    if item.kind == "umbrella":
        if figure.umbrella_open:
            _shaft(canvas, figure, (x, y, z))
        else:
            _furled(canvas, figure, (x, y, z), rgb)
    elif item.kind == "phone":
        body = rounded(figure.box((x, y + 0.012, z + 0.03), (0.042, 0.014, 0.082)), 0.12)
        canvas.shape(body, rgb, LEATHER)
        canvas.line([*body, body[0]], shaded(rgb, 0.5) if sum(rgb) > 300 else (120, 120, 124), max(0.6, figure.px(0.007)))
    elif item.kind == "book":
        body = figure.box((x * 0.85, y + 0.02, z + 0.012), (0.115, 0.03, 0.15))
        canvas.shape(body, rgb, LEATHER)
        (x0, y0), (x1, y1) = _between(body)
        canvas.line([(x0, y1), (x1, y1)], (236, 232, 220), max(0.6, figure.px(0.008)))
        canvas.detail(
            [(x0 + (x1 - x0) * a, y0 + (y1 - y0) * b) for a, b in ((0.25, 0.2), (0.75, 0.2), (0.75, 0.34), (0.25, 0.34))],
            shaded(rgb, 1.5 if sum(rgb) < 400 else 0.6),
        )
    elif item.kind == "bottle":
        _bottle(canvas, figure, (x, y, z), rgb)
    elif item.kind == "trolley" and (figure.back() or (figure.profile() and item.side == figure.near())):
        _trolley(canvas, figure, item)


def _canopy(canvas: Canvas, figure: Figure, item: Item) -> None:
    """Paints an open umbrella, tilted away from the camera so that the head stays visible."""
    rgb, sign = COLOURS[item.colour].rgb, SIDES[item.side]
    x, y, _ = hand_of(figure, item.side)
    cx, low = figure.eye.at(x * 0.5 + sign * 0.01, y, 0.955 + figure.rise)
    wide, tall = figure.px(0.27), figure.eye.unit * 0.185
    dome = [(cx + wide * cos(pi * i / 14), low - tall * sin(pi * i / 14)) for i in range(15)]
    ribs = 6
    scallops: Points = []
    for index in range(ribs):
        a, b = cx - wide + 2 * wide * index / ribs, cx - wide + 2 * wide * (index + 1) / ribs
        scallops += [(a, low + tall * 0.02), ((a + b) / 2, low - tall * 0.09)]
    scallops.append((cx + wide, low + tall * 0.02))
    canvas.shape([*dome, *scallops], rgb, CLOTH)
    for index in range(1, ribs):
        x = cx - wide + 2 * wide * index / ribs
        canvas.line(
            [(cx, low - tall), ((x + cx) / 2 + (x - cx) * 0.28, low - tall * 0.6), (x, low)],
            shaded(rgb, 0.66),
            max(0.5, figure.px(0.004)),
        )
    for index in range(0, ribs, 2):
        a, b = cx - wide + 2 * wide * index / ribs, cx - wide + 2 * wide * (index + 1) / ribs
        canvas.tone([(cx, low - tall), (a, low), (b, low)], -22, CLOTH)


def _shaft(canvas: Canvas, figure: Figure, hand: Joint) -> None:
    x, y, z = hand
    top = figure.eye.at(x * 0.72, y, 1.03 + figure.rise)
    line = max(0.7, figure.px(0.008))
    start = figure.eye.at(x * 0.9, y, 0.83) if figure.back() else figure.eye.at(x, y, z - 0.05)
    canvas.line([start, top], (70, 70, 74), line)


def _furled(canvas: Canvas, figure: Figure, hand: Joint, rgb: Rgb) -> None:
    x, y, z = hand
    ahead = 0.07 if figure.profile() else 0.02
    out = 0.03 * (1 if x > 0 else -1)
    levels = ((z - 0.03, 0.2, 0.012), (z - 0.08, 0.3, 0.021), (z - 0.22, 0.7, 0.023), (max(0.06, z - 0.36), 1.0, 0.009))
    points = [figure.eye.at(x + out * f, y + ahead * f, level) for level, f, _ in levels]
    tube = limb(points, [figure.px(radius) for *_, radius in levels])
    line = max(0.7, figure.px(0.008))
    canvas.line([points[0], figure.eye.at(x, y, z + 0.03)], (60, 50, 44), line * 1.4)
    canvas.shape(tube.outline(), rgb, CLOTH)
    canvas.round(tube, CLOTH)
    for t in (0.3, 0.55):
        canvas.line([tube.at(t, -1.0), tube.at(t + 0.12, 1.0)], shaded(rgb, 0.6), line * 0.6)
    canvas.line([points[-1], figure.eye.at(x + out * 1.1, y + ahead * 1.1, max(0.03, z - 0.4))], (60, 50, 44), line)


def _bottle(canvas: Canvas, figure: Figure, hand: Joint, rgb: Rgb) -> None:
    x, y, z = hand
    points = [figure.eye.at(x, y + 0.02, z + c) for c in (0.075, 0.045, 0.03, -0.085)]
    tube = limb(points, [figure.px(radius) for radius in (0.011, 0.013, 0.026, 0.026)])
    canvas.shape(tube.outline(), rgb, LEATHER)
    canvas.round(tube, LEATHER)
    canvas.detail(tube.patch(0.0, 0.16, -1.0, 1.0), shaded(rgb, 0.45))
    canvas.detail(tube.patch(0.62, 0.72, -1.0, 1.0), (236, 236, 232) if sum(rgb) < 560 else (120, 150, 190))


def _trolley(canvas: Canvas, figure: Figure, item: Item) -> None:
    sign, rgb = SIDES[item.side], COLOURS[item.colour].rgb
    hand = hand_of(figure, item.side)
    x = sign * (figure.body.hip + 0.085)
    y = hand[1] - 0.04 if figure.profile() else hand[1] - 0.02
    centre = (x, y, 0.165)
    size = (0.09, 0.115, 0.25) if figure.profile() else (0.135, 0.08, 0.25)
    grip, line = figure.eye.at(*hand), max(0.8, figure.px(0.008))
    for shift in (-0.03, 0.03):
        a, b = (0.0, shift) if figure.profile() else (shift, 0.0)
        canvas.line([figure.eye.at(x + a, y + b, 0.28), (grip[0] + shift * figure.eye.wide * 0.5, grip[1])], (90, 90, 94), line)
    body = rounded(figure.box(centre, size), 0.12)
    canvas.shape(body, rgb, LEATHER)
    (x0, y0), (x1, y1) = _between(body)
    for f in (0.25, 0.5, 0.75):
        canvas.line(
            [(x0 + (x1 - x0) * f, y0 + (y1 - y0) * 0.1), (x0 + (x1 - x0) * f, y1 - (y1 - y0) * 0.08)],
            shaded(rgb, 0.66),
            max(0.5, line * 0.6),
        )
    canvas.tone([(x0, y1 - (y1 - y0) * 0.2), (x1, y1 - (y1 - y0) * 0.2), (x1, y1), (x0, y1)], -30, LEATHER)
    for shift in (-1, 1):
        a, b = (0.0, shift * 0.04) if figure.profile() else (shift * 0.045, 0.0)
        canvas.oval(figure.eye.at(x + a, y + b, 0.02), (figure.px(0.013), figure.px(0.02)), (34, 34, 36), LEATHER)
    canvas.oval(grip, (figure.px(0.014), figure.px(0.014)), figure.skin, SKIN)
