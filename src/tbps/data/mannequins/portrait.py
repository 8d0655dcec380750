"""Painting a person on a canvas, reduced to what the viewpoint shows."""

from dataclasses import replace

from tbps.data.mannequins.camera import Eye
from tbps.data.mannequins.canvas import Canvas
from tbps.data.mannequins.colours import COLOURS
from tbps.data.mannequins.cuts import Upper
from tbps.data.mannequins.figure import SIDES, Figure
from tbps.data.mannequins.garments import paint_arm, paint_torso
from tbps.data.mannequins.head import HeadShape, hair_behind, neck, paint_head
from tbps.data.mannequins.headwear import paint_headwear
from tbps.data.mannequins.items import backpack_behind, carried_before, carried_behind, paint_bag
from tbps.data.mannequins.legwear import paint_legs
from tbps.data.mannequins.people import Garment, Mannequin, Viewpoint, visible_attributes
from tbps.data.mannequins.tubes import Point

_PLAIN_SHOES = Garment("dress shoes", "black")


def seen(person: Mannequin, view: Viewpoint) -> Mannequin:
    """Returns the person with everything that the viewpoint does not show set to one fixed value.

    Only this reduced person is drawn, so an attribute outside of `visible_attributes` cannot change any pixel.
    """
    shown = visible_attributes(person, view)
    if "hair.colour" not in shown and person.hair_length != "bald":
        person = replace(person, hair_length="bald", hair_style="loose", hair_colour="black")
    elif "hair.length" not in shown:
        person = replace(person, hair_length="long", hair_style="ponytail")
    elif "hair.style" not in shown:
        person = replace(person, hair_style="loose")
    if person.hair_length == "bald":
        person = replace(person, hair_style="loose", hair_colour="black")
    person = replace(
        person,
        glasses=person.glasses if "glasses" in shown else "none",
        inner=person.inner if "inner.colour" in shown else None,
        shoes=person.shoes if "shoes.kind" in shown else _PLAIN_SHOES,
        bag=person.bag if "bag.kind" in shown else None,
        carried=person.carried if "carried.kind" in shown else None,
    )
    if "upper.pattern" not in shown:
        person = replace(person, upper=replace(person.upper, pattern="plain", second=None))
    if person.lower is not None and "lower.kind" not in shown:
        person = replace(person, lower=replace(person.lower, kind="thighs"))
    return person


def paint_person(canvas: Canvas, person: Mannequin, view: Viewpoint, eye: Eye) -> Figure:
    """Paints the person as seen from the viewpoint, from back to front."""
    person = seen(person, view)
    figure = Figure(person, view, eye)
    upper, head = Upper(figure), HeadShape(figure)
    for centre, radii in _shadows(figure):
        canvas.shadow(centre, radii, -62)
    carried_behind(canvas, figure)
    pack = person.bag if person.bag is not None and person.bag.kind == "backpack" else None
    if pack is not None and not figure.back():
        backpack_behind(canvas, figure, COLOURS[pack.colour].rgb)
    if figure.frontal():
        hair_behind(canvas, head)
    before, behind = _arms(figure)
    for side in behind:
        paint_arm(canvas, upper, side)
    paint_legs(canvas, figure)
    neck(canvas, figure)
    paint_torso(canvas, upper)
    if pack is not None:
        paint_bag(canvas, upper)
    if figure.back():
        paint_head(canvas, head)
        paint_headwear(canvas, head)
    _hands(canvas, upper, before)
    if pack is None:
        paint_bag(canvas, upper)
    if not figure.back():
        paint_head(canvas, head)
        paint_headwear(canvas, head)
    return figure


def _shadows(figure: Figure) -> list[tuple[Point, Point]]:
    """Returns centre and radii of the soft shadow below each foot."""
    spots = []
    for leg in figure.legs.values():
        x, y, z = leg.end
        centre = figure.eye.at(x, y + 0.03, 0.0)
        spots.append((centre, (figure.px(0.085 + z * 0.3), max(2.0, figure.eye.unit * 0.022))))
    return spots


def _hands(canvas: Canvas, upper: Upper, sides: list[str]) -> None:
    figure = upper.figure
    item = figure.person.carried
    for side in sides:
        if item is not None and item.side == side:
            carried_before(canvas, figure)
        paint_arm(canvas, upper, side)
    if item is not None and item.side not in sides:
        carried_before(canvas, figure)


def _arms(figure: Figure) -> tuple[list[str], list[str]]:
    """Returns the sides whose arms are painted over the torso, and those painted behind it."""
    if figure.profile():
        near = figure.near()
        return [near], [side for side in SIDES if side != near]
    depth = {side: figure.eye.depth(arm.end[0] * 0.3, arm.end[1]) for side, arm in figure.arms.items()}
    return [side for side in SIDES if depth[side] > -0.06], [side for side in SIDES if depth[side] <= -0.06]
