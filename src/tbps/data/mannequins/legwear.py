"""Painting of lower garments: trousers of all kinds and skirts."""

from dataclasses import dataclass

from tbps.data.mannequins.canvas import Canvas, shaded
from tbps.data.mannequins.colours import Rgb
from tbps.data.mannequins.figure import Figure, Limb, leg_radii
from tbps.data.mannequins.patterns import colour_of, dress
from tbps.data.mannequins.people import Garment
from tbps.data.mannequins.shoes import paint_shaft, paint_shoe
from tbps.data.mannequins.textures import CLOTH, DENIM, SKIN
from tbps.data.mannequins.tubes import Tube

WAIST = 0.615


@dataclass(frozen=True, slots=True)
class LegCut:
    """Cut of trousers. `length`: covered part of the leg (1 to the ankle)."""

    length: float
    ease: tuple[float, ...]  # at hip, thigh, knee, calf, ankle
    material: int


LEGS = {
    "jeans": LegCut(0.985, (0.004, 0.004, 0.008, 0.007, 0.017), DENIM),
    "trousers": LegCut(1.0, (0.008, 0.009, 0.013, 0.014, 0.024), CLOTH),
    "leggings": LegCut(0.93, (0.0, -0.001, -0.001, -0.001, 0.001), CLOTH),
    "shorts": LegCut(0.43, (0.010, 0.014, 0.018, 0.018, 0.018), CLOTH),
}
SKIRTS = {"skirt": (0.325, 0.022), "long skirt": (0.105, 0.045), "thighs": (0.20, 0.0)}  # hem, flare


def paint_legs(canvas: Canvas, figure: Figure) -> None:
    """Paints legs, shoes and lower garment, the farther leg first."""
    lower = figure.person.lower
    order = sorted(figure.legs, key=lambda side: figure.eye.depth(figure.legs[side].middle[0], figure.legs[side].middle[1]))
    for rank, side in enumerate(order):
        _leg(canvas, figure, figure.legs[side], far=rank == 0)
    if lower is None:
        return
    if lower.kind in SKIRTS:
        _skirt(canvas, figure, lower)
    else:
        _seat(canvas, figure, lower)


def _leg(canvas: Canvas, figure: Figure, leg: Limb, far: bool) -> None:
    lower, shoes = figure.person.lower, figure.person.shoes
    radii = leg_radii(figure.body)
    covered = lower is not None and lower.kind in LEGS
    if not covered or (lower is not None and lower.kind in ("shorts", "leggings")):
        bare = figure.limb(leg, radii)
        canvas.shape(bare.outline(), figure.skin, SKIN, -10 if far else 0)
        canvas.round(bare, SKIN, 0.8)
    paint_shoe(canvas, figure, leg, shoes)
    if covered and lower is not None:
        tube = _trouser_leg(figure, leg, lower.kind)
        dress(canvas, tube, lower, LEGS[lower.kind].material, figure.eye.unit, 1.15)
        _leg_folds(canvas, figure, tube, lower)
        if far:
            canvas.tone(tube.patch(0.0, 0.45, -1.0, 1.0), -26, LEGS[lower.kind].material)
    if shoes.kind == "boots":  # over the trousers, so that boots always differ from shoes
        paint_shaft(canvas, figure, leg, colour_of(shoes))


def _trouser_leg(figure: Figure, leg: Limb, kind: str) -> Tube:
    cut = LEGS[kind]
    radii = [radius + ease for radius, ease in zip(leg_radii(figure.body), cut.ease, strict=True)]
    tube = figure.limb(leg, radii)
    return tube.cut(0.0, cut.length) if cut.length < 0.99 else tube


def _leg_folds(canvas: Canvas, figure: Figure, tube: Tube, lower: Garment) -> None:
    rgb, material = colour_of(lower), LEGS[lower.kind].material
    width = max(0.5, figure.px(0.004))
    if lower.kind == "jeans":
        for s in (-0.86, 0.86):
            canvas.line([tube.at(t, s) for t in (0.12, 0.4, 0.7, 0.97)], shaded(rgb, 0.68), width)
        canvas.tone(tube.patch(0.1, 0.42, -0.45, 0.15), 20, material)
        canvas.tone(tube.patch(0.5, 0.6, -0.4, 0.3), 14, material)
        canvas.line([tube.at(0.965, s) for s in (-1, 0, 1)], shaded(rgb, 1.28), width)
    elif lower.kind == "trousers":
        canvas.line([tube.at(t, 0.05) for t in (0.2, 0.5, 0.97)], shaded(rgb, 0.82), width * 0.8)
    if lower.kind in ("jeans", "trousers"):
        for index in range(4):
            t = (0.47, 0.55, 0.86, 0.93)[index]
            s = -0.7 + figure.folds[index] * 0.6
            canvas.crease([tube.at(t, s), tube.at(t + 0.03, s + 0.7)], -30, material)
    canvas.crease([tube.at(0.985, s) for s in (-0.9, 0, 0.9)], -26, material)


def _seat(canvas: Canvas, figure: Figure, lower: Garment) -> None:
    """Paints trousers from the waistband to the crotch."""
    cut = LEGS[lower.kind]
    levels = [level for level in figure.torso_levels(0.47, cut.ease[0]) if level[0] <= 0.62 + figure.rise]
    _, width, depth, y = levels[-1]
    levels.append((0.445 + figure.rise, width * 0.8, depth * 0.8, y))
    tube = figure.ring(levels)
    dress(canvas, tube, lower, cut.material, figure.eye.unit, 0.7)
    rgb, width_px = colour_of(lower), max(0.5, figure.px(0.004))
    middle = figure.eye.span(-4, 4) or figure.eye.span(176, 184)
    if middle is not None and not figure.profile():
        s = sum(middle) / 2
        canvas.line([tube.at(0.35, s), tube.at(1.0, s)], shaded(rgb, 0.66), width_px)
        for side in (-1, 1):
            canvas.crease([tube.at(1.0, s), tube.at(0.62, s + 0.5 * side)], -26, cut.material)
    if lower.kind == "jeans" and figure.back():
        for s0 in (-0.68, 0.2):
            pocket = tube.patch(0.42, 0.74, s0, s0 + 0.46)
            canvas.line([*pocket, pocket[0]], shaded(rgb, 1.3), width_px)
    elif lower.kind in ("jeans", "trousers", "shorts") and not figure.profile():
        for side in (-1, 1):
            canvas.line([tube.at(0.32, side * 0.55), tube.at(0.52, side * 0.92)], shaded(rgb, 0.62), width_px)


def _skirt(canvas: Canvas, figure: Figure, lower: Garment) -> None:
    hem, flare = SKIRTS[lower.kind]
    tube = figure.drop(WAIST, hem, 0.004, flare)
    dress(canvas, tube, lower, CLOTH, figure.eye.unit, 0.9)
    skirt_folds(canvas, figure, tube, colour_of(lower), 0.45)
    if lower.kind == "thighs":
        canvas.crease([tube.at(0.5, 0.0), tube.at(1.0, 0.05)], -34, CLOTH, 2)


def skirt_folds(canvas: Canvas, figure: Figure, tube: Tube, rgb: Rgb, top: float) -> None:
    """Paints the folds of a skirt, which widen downwards, and its hem."""
    for index in range(5):
        s = -0.8 + 0.38 * index + 0.2 * (figure.folds[index] - 0.5)
        start = top + 0.2 * figure.folds[index + 5]
        piece = [tube.at(start, s * 0.9), tube.at(1.0, s - 0.07), tube.at(1.0, s + 0.09)]
        canvas.tone(piece, -30 if index % 2 else 16, CLOTH)
    canvas.line([tube.at(0.965, s) for s in (-1, -0.5, 0, 0.5, 1)], shaded(rgb, 0.74), max(0.5, figure.px(0.003)))
