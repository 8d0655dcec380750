"""Images stored with their aspect ratio, and the self-supervised views that are cropped from them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tbps.data import proportions as proportions_module
from tbps.data.augment.apply import apply_rounds, as_unit
from tbps.data.augment.rounds import neutral_round
from tbps.data.augment.views import ViewAugmentation, cut_out, draw_view, simclr_view, simclr_view_of
from tbps.data.cache import cached_files, erase_cache
from tbps.data.proportions import Pictures, in_proportion
from tbps.data.records import PersonDataset, PersonImage
from tbps.errors import DataError, ImageError
from tbps.preprocess.image import ImageSpec, open_image

SPEC = ImageSpec(height=24, width=16)
SHAPES = [(170, 64), (60, 60), (9, 40), (1, 1), (400, 300), (33, 17)]  # the last but one has more than 4 * 24 * 16 pixels


@pytest.fixture
def dataset(tmp_path: Path) -> PersonDataset:
    rng = np.random.default_rng(0)
    images = []
    for number, shape in enumerate(SHAPES):
        path = tmp_path / f"{number}.png"
        Image.fromarray(rng.integers(0, 256, (*shape, 3), dtype=np.uint8)).save(path)
        images.append(PersonImage(path, number, "train", ("a man",)))
    return PersonDataset("made", tmp_path, tuple(images))


@pytest.mark.parametrize("workers", [1, 2])
def test_every_image_is_unchanged_or_shrunk_in_proportion(
    dataset: PersonDataset, tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proportions_module, "_CHUNK", 2)
    told: list[tuple[int, int]] = []
    pictures = Pictures.open(dataset, SPEC, tmp_path / "cache", on_progress=lambda *counts: told.append(counts), workers=workers)
    assert told == [(2, 6), (4, 6), (6, 6)] and len(pictures) == 6
    for row, image in enumerate(dataset.images):
        original = np.asarray(open_image(image.path))
        height, width = pictures[row].shape[:2]
        if original.shape[0] * original.shape[1] <= 4 * 24 * 16:
            assert np.array_equal(pictures[row], original)
        else:
            assert height * width <= 4 * 24 * 16 < (height + 1) * (width + 1)
            assert width / height == pytest.approx(original.shape[1] / original.shape[0], abs=1.5 / min(height, width))
            assert np.array_equal(pictures[row], in_proportion(open_image(image.path), 4 * 24 * 16))
    with pytest.raises(ValueError, match="read-only"):
        pictures[1][:] = 0


def test_the_file_is_built_once_and_rebuilt_when_it_is_damaged(dataset: PersonDataset, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    first = Pictures.open(dataset, SPEC, folder)
    content = first.path.read_bytes()
    Pictures.open(dataset, SPEC, folder, on_progress=lambda *counts: pytest.fail("it was there"))
    first.path.write_bytes(content[:-40])
    again = Pictures.open(dataset, SPEC, folder)
    assert again.path.read_bytes() == content
    assert Pictures.open(dataset, ImageSpec(height=48, width=16), folder).path != first.path, "another size limit has another file"
    assert len(cached_files(folder)) == 2 and erase_cache(folder) > 0 and not cached_files(folder)
    with pytest.raises(DataError, match="no image"):
        Pictures.open(replace(dataset, images=()), SPEC, folder)
    dataset.images[2].path.write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"2\.png"):
        Pictures.open(dataset, SPEC, folder)


def some_pictures(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    made = [rng.integers(0, 256, (1, 6, 4, 3), dtype=np.uint8) for _ in range(count)]
    return [np.asarray(Image.fromarray(small[0]).resize((64, 170), Image.Resampling.BICUBIC)) for small in made]


def test_a_box_is_resized_as_pillow_resizes_a_crop() -> None:
    """As torchvision crops and resizes Pillow images: pixels outside the box have no influence, a large box is antialiased."""
    pictures = some_pictures(3)
    boxes = [[10, 4, 60, 50], [0, 0, 170, 64], [100, 30, 9, 20]]
    cut = cut_out(pictures, boxes, (24, 16))
    for picture, (top, left, height, width), result in zip(pictures, boxes, cut, strict=True):
        part = Image.fromarray(picture).crop((left, top, left + width, top + height))
        assert np.array_equal(result, np.asarray(part.resize((16, 24), Image.Resampling.BILINEAR)))


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_a_view_is_the_resized_box_with_the_other_operations_applied(device: str) -> None:
    """Compares views in uint8 and in float32 with the drawn box resized by Pillow and the other operations of the same draw."""
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    pictures, settings, size = some_pictures(12), ViewAugmentation(), (48, 40)
    view = simclr_view_of(pictures, size, settings, torch.Generator().manual_seed(3), torch.device(device)).cpu()
    drawn = draw_view(12, torch.tensor([[170, 64]] * 12), settings, torch.Generator().manual_seed(3))
    compared = 0
    for row, picture in enumerate(pictures):
        top, left, height, width = drawn.crop[row].int().tolist()
        part = Image.fromarray(picture).crop((left, top, left + width, top + height)).resize((40, 48), Image.Resampling.BILINEAR)
        if bool(drawn.flip[row]):
            part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if drawn.brightness[row] == 1 and not drawn.grayscale[row] and drawn.blur[row] == 0:
            assert np.abs(view[row].permute(1, 2, 0).numpy() - np.asarray(part) / 255).max() < 1e-3
            compared += 1
        rest = replace(drawn, crop=neutral_round(12, size).crop, flip=torch.zeros(12, dtype=torch.bool)).part(slice(row, row + 1))
        cut = torch.from_numpy(np.array(part)).permute(2, 0, 1)[None]
        expected = apply_rounds(as_unit(cut), (rest,))[0]  # in float32; uint8 on a CPU differs by a few levels
        assert (view[row] - expected).abs().mean() < 0.7 / 255
    assert compared > 0
    assert view.shape == (12, 3, *size) and view.min() >= 0 and view.max() <= 1 + 1e-6


def overlap(size: tuple[int, int], settings: ViewAugmentation) -> tuple[float, float, float]:
    """Returns the share of the height and of the area that a view shows, and the share of pairs of views without a common row."""
    count, generator = 40_000, torch.Generator().manual_seed(0)
    one, other = (draw_view(count, size, settings, generator).crop for _ in range(2))
    apart = (one[:, 0] >= other[:, 0] + other[:, 2]) | (other[:, 0] >= one[:, 0] + one[:, 2])
    return (
        float((one[:, 2] / size[0]).mean()),
        float((one[:, 2] * one[:, 3]).mean() / (size[0] * size[1])),
        float(apart.float().mean()),
    )


def test_crops_of_the_unresized_image_show_less_of_its_height_than_crops_of_the_resized_one() -> None:
    """Figures of the reference for a crop of 64 x 170 pixels: 35 % of the height, 31 % of the area, 22 % of pairs disjoint."""
    assert overlap((170, 64), ViewAugmentation()) == pytest.approx((0.35, 0.31, 0.22), abs=0.01)
    height, _, apart = overlap((224, 224), ViewAugmentation(source="squashed"))
    assert height == pytest.approx(0.73, abs=0.015) and apart < 0.005
    wide = overlap((384, 128), ViewAugmentation(source="squashed"))
    assert wide[0] == pytest.approx(height, abs=0.02), "ratios are relative to the input, so 384x128 shows the same share"


@pytest.mark.parametrize("size", [(384, 128), (224, 224), (96, 96), (256, 128), (170, 64), (300, 20)])
@pytest.mark.parametrize("source", ["reference", "squashed"])
def test_no_view_uses_the_central_fallback(size: tuple[int, int], source: str) -> None:
    boxes = draw_view(20_000, size, ViewAugmentation.parse({"source": source}), torch.Generator().manual_seed(1)).crop
    top, left, height, width = boxes.unbind(1)
    assert (top + height <= size[0]).all() and (left + width <= size[1]).all() and (boxes[:, 2:] > 0).all()
    assert float((boxes == boxes.mode(0).values).all(1).float().mean()) < 0.02, "no box is frequent"


def test_images_of_the_input_size_give_equal_views_in_both_ways() -> None:
    """Images of the input size are cropped equally in both ways, except for blending at borders."""
    generator = torch.Generator().manual_seed(2)
    images = torch.nn.functional.interpolate(torch.rand(8, 3, 6, 6, generator=generator), size=(96, 96), mode="bicubic")
    images = (images.clamp(0, 1) * 255).round().to(torch.uint8)
    settings = ViewAugmentation(crop_scale=(0.9, 1.0))
    pictures = [image.permute(1, 2, 0).numpy() for image in images]
    one = simclr_view(images, settings, torch.Generator().manual_seed(5))
    other = simclr_view_of(pictures, (96, 96), settings, torch.Generator().manual_seed(5), torch.device("cpu"))
    assert (one - other)[:, :, 3:-3, 3:-3].abs().mean() < 1.5 / 255
