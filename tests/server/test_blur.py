"""Blurring of faces that are found, and of the head of upright crops."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tbps.preprocess.image import open_image
from tbps.server.blur import HEAD, FaceBlur, head
from tests.support.served import make_gallery, serving

PEOPLE = Path(__file__).parents[1] / "people"


def jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def detail(image: Image.Image) -> float:
    """Variance of the Laplacian: near 0 where nothing can be recognised."""
    grey = np.asarray(image.convert("L"), float)
    return float((4 * grey[1:-1, 1:-1] - grey[2:, 1:-1] - grey[:-2, 1:-1] - grey[1:-1, 2:] - grey[1:-1, :-2]).var())


@pytest.fixture(scope="module")
def blur() -> FaceBlur:
    return FaceBlur()


def test_a_face_that_is_found_is_blurred_and_the_rest_is_not(blur: FaceBlur) -> None:
    """The photograph is wider than tall, so that only faces found by the cascades are blurred."""
    found = []
    for file in sorted(PEOPLE.glob("*.jpg")):
        image = open_image(file)
        wide = image.crop((0, 0, image.width, min(image.height, image.width)))
        wide.thumbnail((224, 256))
        assert not head(wide)
        for box in blur.faces(wide):
            after = Image.open(io.BytesIO(blur(jpeg(wide))))
            before, blurred = detail(wide.crop(box)), detail(after.crop(box))
            found.append(blurred / before)
            below = (0, int(wide.height * 0.9), wide.width, wide.height)
            if all(face[3] < below[1] for face in blur.faces(wide)):
                assert detail(after.crop(below)) > 0.3 * detail(wide.crop(below))
    assert found, "no face is found in any of the photographs"
    assert max(found) < 0.1


def test_the_head_of_an_upright_crop_is_blurred_though_no_face_is_found(blur: FaceBlur) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (128, 48, 3), np.uint8)
    crop = Image.fromarray(noise)
    assert not blur.faces(crop)
    after = Image.open(io.BytesIO(blur(jpeg(crop))))
    top = round(HEAD * crop.height)
    assert detail(after.crop((0, 0, 48, top - 2))) < 0.01 * detail(crop.crop((0, 0, 48, top - 2)))
    assert detail(after.crop((0, top + 8, 48, 128))) > 0.3 * detail(crop.crop((0, top + 8, 48, 128)))


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (3, 4), (224, 20), (16, 32)])
def test_images_of_any_size_are_blurred(blur: FaceBlur, size: tuple[int, int]) -> None:
    after = Image.open(io.BytesIO(blur(jpeg(Image.new("RGB", size, "red")))))
    assert after.size == size


def test_everything_that_the_service_shows_is_blurred(tmp_path: Path) -> None:
    gallery = make_gallery(tmp_path, range(4))
    shown = {}
    for blur_faces in (False, True):
        with serving(gallery, blur_faces=blur_faces) as client:
            hits = client.post("/v1/search", json={"texts": [{"text": "red"}], "k": 4}).json()["hits"]
            shown[blur_faces] = [client.get(hit["image"]).content for hit in hits]
            assert client.get("/v1/gallery").json()["blurred"] is blur_faces
    for plain, blurred in zip(shown[False], shown[True], strict=True):
        before, after = Image.open(io.BytesIO(plain)), Image.open(io.BytesIO(blurred))
        top = (0, 0, before.width, round(HEAD * before.height) - 1)
        assert before.size == after.size and plain != blurred
        assert detail(after.crop(top)) < 0.3 * detail(before.crop(top))
