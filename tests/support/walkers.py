"""Short videos of drawn walking people, with their true boxes in every frame."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from PIL import Image

from tbps.data.mannequins.passers import passer
from tbps.data.mannequins.places import place

Box = tuple[float, float, float, float]  # left, top, width, height
WIDTH, HEIGHT, RATE = 480, 320, 10


@dataclass(frozen=True)
class Walker:
    """A walking person.

    `number`: number of the drawn figure; `tall`: height in pixels; centre at x = start + speed * seconds; `foot`: y of the feet;
    `frames`: frames in which the person is visible.
    """

    number: int
    start: float
    speed: float
    tall: int = 160
    foot: int = 280
    frames: range = range(10_000)


def film(
    walkers: Sequence[Walker], count: int, size: tuple[int, int] = (WIDTH, HEIGHT)
) -> tuple[list[np.ndarray], list[dict[int, Box]]]:
    """Draw frames, later walkers over earlier ones. Returns the frames and, per frame, walker index -> box clipped to the image."""
    ground = place("street", 0).resize(size)
    frames, truth = [], []
    for number in range(count):
        picture, boxes = ground.copy(), dict[int, Box]()
        for index, walker in enumerate(walkers):
            if number not in walker.frames:
                continue
            whole = passer(walker.number)
            cutout = whole.crop(whole.getchannel("A").point(lambda a: 255 * (a > 127)).getbbox())
            cutout = cutout.resize((round(cutout.width * walker.tall / cutout.height), walker.tall))
            left, top = round(walker.start + walker.speed * number / RATE - cutout.width / 2), walker.foot - walker.tall
            right, bottom = min(size[0], left + cutout.width), min(size[1], walker.foot)
            if right - max(0, left) > cutout.width / 2:
                picture.paste(cutout, (left, top), cutout)
                boxes[index] = (max(0, left), max(0, top), right - max(0, left), bottom - max(0, top))
        frames.append(np.asarray(picture))
        truth.append(boxes)
    return frames, truth


def write_film(path: Path, frames: Sequence[np.ndarray], turned: int = 0, began: str | None = None) -> Path:
    """Write an MPEG-4 video of RATE frames per second. `turned`: display rotation in degrees; `began`: creation time."""
    with av.open(str(path), "w") as container:
        if began is not None:
            container.metadata["creation_time"] = began
        stream = container.add_stream("mpeg4", rate=RATE)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 4_000_000
        stream.gop_size = 5
        if turned:
            stream.set_display_rotation(turned)
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), "rgb24")))
        container.mux(stream.encode(None))
    return path


def hidden(truth: Sequence[dict[int, Box]], most: float = 0.4) -> list[dict[int, Box]]:
    """The true boxes without those of which a later walker covers more than the share `most`."""
    return [
        {
            index: box
            for index, box in boxes.items()
            if all(_shared(box, other) <= most for front, other in boxes.items() if front > index)
        }
        for boxes in truth
    ]


def write_detections(path: Path, name: str, truth: Sequence[dict[int, Box]]) -> Path:
    """Write the true boxes as ready-made detections in COCO format."""
    images = [{"id": number, "file_name": name, "frame": number} for number in range(len(truth))]
    annotations = [
        {"image_id": number, "bbox": list(box), "category_id": 1} for number, boxes in enumerate(truth) for box in boxes.values()
    ]
    tree = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}
    path.write_text(json.dumps(tree))
    return path


def still(walkers: Sequence[Walker]) -> tuple[Image.Image, dict[int, Box]]:
    """One image of the walkers, and their boxes."""
    frames, truth = film(walkers, 1)
    return Image.fromarray(frames[0]), truth[0]


def _shared(box: Box, other: Box) -> float:
    """Share of the area of `box` that `other` covers."""
    wide = min(box[0] + box[2], other[0] + other[2]) - max(box[0], other[0])
    tall = min(box[1] + box[3], other[1] + other[3]) - max(box[1], other[1])
    return max(0.0, wide) * max(0.0, tall) / (box[2] * box[3])
