"""Scene around the person: place, passers-by, clutter and obstacles, all drawn from the seed of the viewpoint."""

from dataclasses import dataclass

from PIL import Image

from tbps.data.mannequins.camera import CUT, Camera
from tbps.data.mannequins.canvas import SCALE, Canvas, shaded
from tbps.data.mannequins.colours import Rgb
from tbps.data.mannequins.passers import POOL, passer
from tbps.data.mannequins.people import Viewpoint
from tbps.data.mannequins.places import HEIGHT, HORIZON, PLACES, VARIANTS, WIDTH, place
from tbps.data.mannequins.textures import CLOTH, LEATHER, NOTHING
from tbps.data.mannequins.tubes import Points
from tbps.seeding import generator

_NAMES = tuple(PLACES)
OBSTACLES = ("bench", "car", "railing", "plant", "cart")


@dataclass(frozen=True, slots=True)
class Scene:
    """Background of an image.

    `ground`: place with passers-by at the size of the canvas; `ambient`: brightness; `offset`: offset of the texture tiles in
    pixels; `chances`: random numbers for everything else.
    """

    ground: Image.Image
    ambient: int
    offset: tuple[int, int]
    chances: list[float]


def sample_scene(view: Viewpoint, camera: Camera) -> Scene:
    rng = generator(view.seed, "scene")
    a = rng.random(48).tolist()
    ground = _window(camera, a)
    if a[8] < 0.35:
        _walk_by(ground, camera, a[9:15], far=True)
    if a[15] < 0.22:
        _walk_by(ground, camera, a[16:22], far=False)
    return Scene(ground, round(-36 + 48 * a[6]), (int(a[22] * 200), int(a[23] * 100)), a[24:])


def _window(camera: Camera, a: list[float]) -> Image.Image:
    """Cuts a window out of a place, with the foot of its wall behind the legs, mirrored half of the time."""
    picture = place(_NAMES[int(a[0] * len(_NAMES))], int(a[1] * VARIANTS))
    tall = min(230 + 160 * a[2], (WIDTH - 1) * camera.height / camera.width)
    wide = tall * camera.width / camera.height
    top = min(max(HORIZON - (0.42 + 0.4 * a[3]) * tall, 0.0), HEIGHT - tall)
    left = a[4] * (WIDTH - wide)
    size = (camera.width * SCALE, camera.height * SCALE)
    window = picture.resize(size, Image.Resampling.NEAREST, box=(left, top, left + wide, top + tall))
    return window.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if a[5] < 0.5 else window


def _walk_by(ground: Image.Image, camera: Camera, a: list[float], far: bool) -> None:
    """Paints a passer-by, small in the distance or cut by the left or right edge of the crop."""
    figure = passer(int(a[0] * POOL))
    scale = SCALE * camera.body / figure.height * ((0.28 + 0.3 * a[1]) if far else (0.85 + 0.3 * a[1]))
    figure = figure.resize((max(4, round(figure.width * scale)), max(8, round(figure.height * scale))), Image.Resampling.NEAREST)
    if a[2] < 0.5:
        figure = figure.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if far:
        x, foot = round(a[3] * ground.width - figure.width / 2), round(ground.height * (0.6 + 0.2 * a[4]))
    else:
        inside = round(figure.width * (0.3 + 0.13 * a[4]))
        x, foot = (
            (inside - figure.width if a[3] < 0.5 else ground.width - inside),
            round(SCALE * camera.ground + ground.height * 0.06 * (a[5] - 0.6)),
        )
    ground.paste(figure, (x, foot - figure.height), figure)


def paint_clutter(canvas: Canvas, scene: Scene, camera: Camera) -> None:
    """Paints posts, bins, signs and plants behind the person."""
    a = scene.chances
    for index in range(3):
        if a[index] < 0.32:
            piece = a[3 + 4 * index : 7 + 4 * index]
            (_post, _bin, _plant, _bin, _sign)[int(a[15 + index] * 5)](canvas, camera, piece)


def _plain(a: float, b: float) -> Rgb:
    """Returns the colour of a street object, mostly dull."""
    base = 40 + 150 * a
    warm = 60 * (b - 0.5)
    return round(base + warm), round(base), round(base - warm)


def _rectangle(x0: float, y0: float, x1: float, y1: float) -> Points:
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def _post(canvas: Canvas, camera: Camera, a: list[float]) -> None:
    x, wide = a[0] * camera.width, camera.width * (0.02 + 0.05 * a[1])
    rgb = _plain(a[2], a[3])
    foot = camera.height * (0.75 + 0.2 * a[3])
    canvas.detail(_rectangle(x, 0, x + wide, foot), rgb)
    canvas.detail(_rectangle(x + wide * 0.65, 0, x + wide, foot), shaded(rgb, 0.7))


def _bin(canvas: Canvas, camera: Camera, a: list[float]) -> None:
    x, wide, tall = a[0] * camera.width, camera.width * (0.12 + 0.16 * a[1]), camera.height * (0.12 + 0.14 * a[2])
    y, rgb = camera.height * (0.68 + 0.2 * a[3]), _plain(a[2], a[1])
    canvas.shadow((x + wide / 2, y), (wide * 0.7, camera.height * 0.02), -40)
    canvas.detail(_rectangle(x, y - tall, x + wide, y), rgb)
    canvas.detail(_rectangle(x + wide * 0.7, y - tall, x + wide, y), shaded(rgb, 0.75))
    canvas.detail(_rectangle(x - wide * 0.04, y - tall, x + wide * 1.04, y - tall * 0.86), shaded(rgb, 0.6))


def _sign(canvas: Canvas, camera: Camera, a: list[float]) -> None:
    x, y = a[0] * camera.width, camera.height * (0.05 + 0.3 * a[1])
    wide, tall = camera.width * (0.14 + 0.14 * a[2]), camera.height * (0.05 + 0.08 * a[3])
    rgb: Rgb = (round(60 + 110 * a[1]), round(60 + 110 * a[2]), round(60 + 110 * a[3]))
    canvas.detail(_rectangle(x, y, x + wide, y + tall), rgb)
    canvas.detail(_rectangle(x + wide * 0.15, y + tall * 0.3, x + wide * 0.85, y + tall * 0.5), (226, 226, 220))


def _plant(canvas: Canvas, camera: Camera, a: list[float]) -> None:
    x, y, size = a[0] * camera.width, camera.height * (0.7 + 0.2 * a[1]), camera.height * (0.08 + 0.06 * a[2])
    canvas.detail(_rectangle(x - size * 0.35, y - size * 0.6, x + size * 0.35, y), _plain(a[3], 0.8))
    leaf: Rgb = (round(40 + 50 * a[3]), round(90 + 50 * a[2]), 50)
    for index in range(9):
        b = (index * 0.618 + a[0]) % 1.0
        tip = (x + size * (b - 0.5) * 2, y - size * (0.9 + 0.9 * ((b * 7) % 1.0)))
        canvas.detail([(x - size * 0.1, y - size * 0.55), tip, (x + size * 0.1, y - size * 0.5)], shaded(leaf, 0.7 + 0.5 * b))


def paint_foreground(canvas: Canvas, scene: Scene, camera: Camera, view: Viewpoint) -> None:
    """Paints the foreground: the obstacle that hides feet or legs, or a thin post that hides nothing."""
    a = scene.chances
    if view.hidden != "none" and not camera.cropped:
        low = CUT[view.hidden]
        y = camera.ground - low * (1 + camera.squeeze * (low - 1)) * camera.body
        _obstacle(canvas, camera, y, a[18:])
    elif a[18] < 0.07:
        x = camera.width * ((0.04 + 0.2 * a[19]) if a[20] < 0.5 else (0.76 + 0.2 * a[19]))
        wide = max(1.5, camera.width * 0.022)
        rgb = _plain(a[21], a[22])
        canvas.shape(_rectangle(x, 0, x + wide, camera.height), rgb, NOTHING)
        canvas.detail(_rectangle(x + wide * 0.6, 0, x + wide, camera.height), shaded(rgb, 0.7))


def _obstacle(canvas: Canvas, camera: Camera, y: float, a: list[float]) -> None:
    """Paints an obstacle that fills the crop from row `y` down."""
    width, height, rgb = camera.width, camera.height, _plain(a[1], a[2])
    kind = OBSTACLES[int(a[0] * len(OBSTACLES))]
    tall = height - y
    if kind == "car":
        rgb = (round(50 + 170 * a[1]), round(50 + 170 * a[2]), round(50 + 170 * a[3]))
    if kind == "plant":
        rgb = (round(44 + 40 * a[1]), round(86 + 40 * a[2]), round(40 + 20 * a[3]))
    canvas.shape(_rectangle(-1, y, width + 1, height + 1), rgb, CLOTH if kind == "plant" else LEATHER)
    _OBSTACLE_DETAILS[kind](canvas, (width, y, tall), rgb, a)


Area = tuple[float, float, float]


def _bench(canvas: Canvas, area: Area, rgb: Rgb, a: list[float]) -> None:
    width, y, tall = area
    for index in range(4):
        canvas.detail(
            _rectangle(-1, y + tall * (0.22 + 0.22 * index), width + 1, y + tall * (0.26 + 0.22 * index)), shaded(rgb, 0.45)
        )
    canvas.detail(_rectangle(width * a[3], y, width * a[3] + width * 0.05, y + tall), shaded(rgb, 0.6))


def _car_details(canvas: Canvas, area: Area, rgb: Rgb, a: list[float]) -> None:
    width, y, tall = area
    canvas.detail(_rectangle(-1, y, width + 1, y + tall * 0.1), shaded(rgb, 1.3))
    canvas.detail(_rectangle(-1, y + tall * 0.45, width + 1, y + tall * 0.5), shaded(rgb, 0.6))
    x, r = width * a[3], tall * 0.45
    canvas.dot((x, y + tall), (r, r), (24, 24, 26))
    canvas.dot((x, y + tall), (r * 0.5, r * 0.5), (150, 150, 152))


def _railing(canvas: Canvas, area: Area, rgb: Rgb, a: list[float]) -> None:
    width, y, tall = area
    canvas.detail(_rectangle(-1, y, width + 1, y + tall * 0.12), shaded(rgb, 1.35))
    step = width * (0.08 + 0.08 * a[3])
    for index in range(int(width / step) + 1):
        canvas.detail(_rectangle(index * step, y + tall * 0.12, index * step + step * 0.3, y + tall), shaded(rgb, 0.6))


def _leaves(canvas: Canvas, area: Area, rgb: Rgb, a: list[float]) -> None:
    width, y, tall = area
    for index in range(36):
        b, c = (index * 0.618 + a[3]) % 1.0, (index * 0.414 + a[1]) % 1.0
        x, low = width * b, y + tall * c
        size = tall * 0.16
        canvas.shape(
            [(x - size * 0.4, low + size * 0.5), (x + size * (b - 0.5), low - size * 0.7), (x + size * 0.4, low + size * 0.5)],
            shaded(rgb, 0.65 + 0.6 * c),
            CLOTH,
        )


def _cart(canvas: Canvas, area: Area, rgb: Rgb, a: list[float]) -> None:
    width, y, tall = area
    canvas.detail(_rectangle(-1, y, width + 1, y + tall * 0.08), (200, 60, 50) if a[3] < 0.5 else (60, 90, 170))
    for index in range(9):
        canvas.line([(width * index / 8, y + tall * 0.08), (width * (index / 8 - 0.02), y + tall)], shaded(rgb, 1.4), 0.7)
    for index in range(4):
        canvas.line([(0, y + tall * (0.25 + 0.2 * index)), (width, y + tall * (0.25 + 0.2 * index))], shaded(rgb, 1.4), 0.7)


_OBSTACLE_DETAILS = {"bench": _bench, "car": _car_details, "railing": _railing, "plant": _leaves, "cart": _cart}
