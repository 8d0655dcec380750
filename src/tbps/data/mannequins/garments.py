"""Painting of upper garments: torso, shirt of an open jacket, neckline, sleeves."""

from tbps.data.mannequins.canvas import Canvas, shaded
from tbps.data.mannequins.cuts import CUTS, SLEEVE, Upper
from tbps.data.mannequins.figure import Figure, arm_radii
from tbps.data.mannequins.legwear import skirt_folds
from tbps.data.mannequins.patterns import colour_of, dress, motif, weave
from tbps.data.mannequins.people import Garment
from tbps.data.mannequins.tailoring import DETAILS, paint_collar, quilt
from tbps.data.mannequins.textures import CLOTH, SKIN
from tbps.data.mannequins.tubes import Points, Tube


def paint_torso(canvas: Canvas, upper: Upper) -> None:
    """Paints the upper garment without sleeves, over the neck and the legs."""
    figure, kind = upper.figure, upper.garment.kind
    if kind == "tank top":
        _tank_top(canvas, upper)
    elif kind == "vest" and upper.person.inner is not None:
        _under(canvas, figure, upper.person.inner)
        _vest(canvas, upper)
    else:
        dress(canvas, upper.tube, upper.garment, upper.cut.material, figure.eye.unit, 1.0)
    _creases(canvas, upper)
    _front(canvas, upper)
    _neckline(canvas, upper)
    if kind in DETAILS:
        DETAILS[kind](canvas, upper)
    hem = upper.tube
    canvas.crease([hem.at(0.985, s) for s in (-0.95, -0.5, 0, 0.5, 0.95)], -34, upper.cut.material)


def _front(canvas: Canvas, upper: Upper) -> None:
    """Paints the details on the cloth: belt and folds of a dress, quilting, the shirt in an open jacket, a print."""
    figure, kind = upper.figure, upper.garment.kind
    if kind == "dress":
        skirt_folds(canvas, figure, upper.tube, upper.rgb, 0.62)
        waist = upper.tube.patch(upper.t(0.625), upper.t(0.60), -1.0, 1.0)
        canvas.detail(waist, shaded(upper.rgb, 0.6))
    elif kind == "puffer jacket":
        quilt(canvas, upper.tube, upper.rgb, figure.eye.unit)
    if upper.person.inner is not None and figure.frontal():
        _opening(canvas, upper, upper.person.inner)
    span = figure.eye.span(-34, 34)
    if span is not None and not figure.back():
        motif(canvas, upper.tube, upper.garment, span)


def _creases(canvas: Canvas, upper: Upper) -> None:
    """Paints folds at the waist and under the arms."""
    tube, folds, material = upper.tube, upper.figure.folds, upper.cut.material
    for index in range(4):
        side = -1 if index % 2 else 1
        t = upper.t(0.64 - 0.05 * (index // 2) + 0.03 * folds[index])
        canvas.tone(
            [
                tube.at(t, 0.95 * side),
                tube.at(t + 0.05, side * (0.2 + 0.4 * folds[index + 4])),
                tube.at(t + 0.035, 0.95 * side),
            ],
            -32,
            material,
        )
    t = upper.t(0.76)
    for side in (-1, 1):
        canvas.tone([tube.at(t, 0.8 * side), tube.at(t + 0.28, side * 0.62), tube.at(t + 0.1, side * 0.9)], -30, material)
    canvas.tone(tube.patch(0.12, 0.3, -0.5, 0.5), 9, material)


def _under(canvas: Canvas, figure: Figure, inner: Garment) -> None:
    tube = figure.torso(0.5, 0.008)
    dress(canvas, tube, inner, CLOTH, figure.eye.unit)


def _vest(canvas: Canvas, upper: Upper) -> None:
    """Paints a waistcoat; its armholes leave the shoulders of the shirt free."""
    tube, unit = upper.tube, upper.figure.eye.unit
    t = upper.t(0.735)
    low = tube.cut(t, 1.0)
    dress(canvas, low, upper.garment, upper.cut.material, unit)
    chest = [
        tube.at(0.05, -0.75),
        tube.at(0.2, -0.72),
        tube.at(t + 0.01, -1.0),
        tube.at(t + 0.01, 1.0),
        tube.at(0.2, 0.72),
        tube.at(0.05, 0.75),
    ]
    canvas.shape(chest, upper.rgb, upper.cut.material)


def _tank_top(canvas: Canvas, upper: Upper) -> None:
    figure, tube = upper.figure, upper.tube
    canvas.shape(tube.outline(), figure.skin, SKIN)
    canvas.round(tube, SKIN, 0.8)
    t = upper.t(0.752)
    low = tube.cut(t, 1.0)
    dress(canvas, low, upper.garment, CLOTH, figure.eye.unit)
    for side in (-1, 1):
        strap = [
            tube.at(0.05, 0.62 * side),
            tube.at(0.05, 0.95 * side),
            tube.at(0.2, 0.62 * side),
            tube.at(t + 0.01, 0.9 * side),
            tube.at(t + 0.01, 0.36 * side),
            tube.at(0.14, 0.4 * side),
        ]
        canvas.shape(strap, upper.rgb, CLOTH)


def _opening(canvas: Canvas, upper: Upper, inner: Garment) -> None:
    """Paints the shirt between the edges of an open jacket, as seen from the front."""
    figure, tube, kind = upper.figure, upper.tube, upper.garment.kind
    if kind == "suit jacket":
        top, middle = figure.eye.span(-26, 26), upper.s(0)
        if top is None or middle is None:
            return
        piece = [
            tube.at(0.0, top[0]),
            tube.at(0.06, top[0]),
            tube.at(upper.t(0.62), middle),
            tube.at(0.06, top[1]),
            tube.at(0.0, top[1]),
        ]
        _insert(canvas, upper, inner, piece)
        return
    wide = {"coat": 24, "vest": 20}.get(kind, 25)
    top, bottom = figure.eye.span(-wide + 4, wide - 4), figure.eye.span(-wide - 4, wide + 2)
    if top is None or bottom is None:
        return
    end = min(1.0, upper.t(0.472))
    piece = [
        tube.at(0.0, top[0]),
        tube.at(0.4 * end, (top[0] + bottom[0]) / 2),
        tube.at(end, bottom[0]),
        tube.at(end, bottom[1]),
        tube.at(0.4 * end, (top[1] + bottom[1]) / 2),
        tube.at(0.0, top[1]),
    ]
    if kind == "coat":
        _coat_slit(canvas, upper, bottom, end)
    _insert(canvas, upper, inner, piece)


def _insert(canvas: Canvas, upper: Upper, inner: Garment, piece: Points) -> None:
    rgb = colour_of(inner)
    canvas.shape(piece, rgb, CLOTH, -4)
    if inner.second is not None:
        _striped_insert(canvas, inner, piece, upper.figure.eye.unit)
    half = len(piece) // 2
    for edge in (piece[:half], piece[half:]):
        canvas.line(edge, shaded(upper.rgb, 0.55), upper.line * 1.4)
        canvas.crease(edge, -34, CLOTH, 2)
    middle = upper.s(0)
    if inner.kind == "shirt" and middle is not None:
        for level in (0.77, 0.72, 0.67, 0.62, 0.57):
            if upper.garment.kind != "suit jacket" or level > 0.66:
                canvas.dot(upper.tube.at(upper.t(level), middle), (upper.line * 0.9, upper.line * 0.9), shaded(rgb, 0.55))


def _striped_insert(canvas: Canvas, inner: Garment, piece: Points, unit: float) -> None:
    """Paints stripes on a piece whose outline is nearly symmetrical left and right."""
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
    """Paints the opening at the throat: skin, or the ring of the collar from behind."""
    figure, kind, tube = upper.figure, upper.garment.kind, upper.tube
    span = figure.eye.span(-52, 52)
    shown = upper.person.inner or upper.garment
    if span is None or figure.back() or kind in ("hoodie", "puffer jacket"):
        return
    s0, s1 = span
    middle = (s0 + s1) / 2
    deep = {"blouse": 0.17, "dress": 0.13, "tank top": 0.19, "shirt": 0.13, "polo shirt": 0.14, "sweater": 0.035}.get(
        shown.kind, 0.06
    )
    deep = deep * 0.35 / upper.tall
    if kind in ("jacket", "coat") and upper.person.inner is None:
        return
    piece = [
        upper.at(-0.06, s0),
        upper.at(0.0, s0),
        tube.at(deep * 0.6, s0 * 0.3 + middle * 0.7),
        tube.at(deep, middle),
        tube.at(deep * 0.6, s1 * 0.3 + middle * 0.7),
        upper.at(0.0, s1),
        upper.at(-0.06, s1),
    ]
    canvas.shape(piece, figure.skin, SKIN, -14)
    canvas.line(piece[1:-1], shaded(colour_of(shown), 0.66), upper.line)
    if shown.kind == "shirt":
        paint_collar(canvas, upper, colour_of(shown))


def paint_arm(canvas: Canvas, upper: Upper, side: str) -> None:
    """Paints an arm with sleeve and hand."""
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
    tube = figure.limb(arm, [r + cut.sleeve_ease * f for r, f in zip(radii, (0.45, 1, 1, 1, 0.75), strict=True)])
    sleeve = tube.cut(0.0, SLEEVE[upper.person.sleeve])
    rgb = colour_of(worn)
    x, y = figure.at(arm.top)
    radius = figure.px(radii[0] + cut.sleeve_ease * 0.45)
    canvas.oval((x, y), (radius, radius), rgb, cut.material)
    dress(canvas, sleeve, worn, cut.material, figure.eye.unit, 1.15)
    if far:
        canvas.tone(sleeve.strip(-1.0, 1.0), -30, cut.material)
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
            canvas.crease(
                [sleeve.at(t, -0.9 + folds[index] * 0.5), sleeve.at(t + 0.04, 0.4 + folds[index + 3] * 0.5)], -34, cut.material
            )
    if worn.kind == "puffer jacket":
        quilt(canvas, sleeve, rgb, upper.figure.eye.unit)
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
