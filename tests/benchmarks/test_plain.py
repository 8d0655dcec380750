"""The plain trainer has the same loss, gradients and metrics as `tbps` on the same views, and it learns."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from plain import PlainBatch, PlainTrainer, collate, metrics_by_argsort, train
from plain_augmentation import draw_box, jitter, strong_view, to_pixels, turn_hue, weak_view
from side_by_side import copied, embeddings

from tbps.data.augment.image import ImageAugmentation
from tbps.data.augment.views import ViewAugmentation
from tbps.data.mannequins.writing import SplitSize, write_mannequins
from tbps.data.readers.catalog import read_dataset
from tbps.data.records import PersonDataset
from tbps.errors import SettingsError
from tbps.evaluation import retrieval_metrics
from tbps.model.bundle import PersonModel, load
from tbps.preprocess.image import ImageSpec, normalise
from tbps.study.recipes import mannequin_minute, tbps_clip
from tbps.training.encode import encode
from tbps.training.log import NoLog
from tbps.training.objective import Labels, objective
from tbps.training.observer import Silent
from tbps.training.run import Run
from tbps.training.start import start_model
from tbps.training.views import draw_views

SPEC = ImageSpec(height=32, width=32)


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> PersonDataset:
    folder = tmp_path_factory.mktemp("people")
    write_mannequins(folder, {"train": SplitSize(8, 2), "val": SplitSize(2, 1), "test": SplitSize(4, 2)}, seed=1, workers=1)
    return read_dataset("folder", folder)


@pytest.fixture(scope="module")
def model(tiny_model_folder: Path) -> PersonModel:
    return load(tiny_model_folder)


def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))


def test_the_same_loss_and_gradients_on_the_same_views(people: PersonDataset, model: PersonModel, tmp_path: Path) -> None:
    """Dropout is off: then the second pass for the soft labels equals the first one. Padding to 77 tokens changes nothing."""
    still = {"text_attention_dropout": 0, "text_augmentation.enabled": False}
    settings = tbps_clip().override({"batch_size": 8, "losses.c_itc.weight": 0.3} | still)
    run, plain = Run(settings, copied(model), people, tmp_path, Silent()), PlainTrainer(settings, copied(model), people, workers=0)
    assert plain.head is not None and run.heads.image_projection is not None
    plain.head.load_state_dict(run.heads.image_projection.state_dict())
    batch = next(run.batches.epoch(0))
    views = draw_views(batch, settings, model.spec, model.clip.config.text_config.vocab_size, step=0)
    features = encode(run.model.clip, run.heads, views, settings, calm=True, words=False)
    ours = objective(features, Labels(batch.identities), run.model.clip.logit_scale.exp(), 0.3, run.heads, settings.losses)
    torch.autograd.backward(ours.total)

    captions = next(iter(plain.batches())).captions
    given = PlainBatch(views.image, views.image_second, views.strong_one, views.strong_two, captions, batch.identities)
    assert plain.tokenise(captions).shape == (8, 77)
    theirs = plain.loss(given, 0.3)
    torch.autograd.backward(theirs)

    torch.testing.assert_close(theirs, ours.total, rtol=1e-5, atol=1e-5)
    pairs = zip(run.model.clip.named_parameters(), plain.model.clip.parameters(), strict=True)
    for (name, one), other in pairs:
        if one.grad is None:
            assert other.grad is None, name
        else:
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-5, msg=name)


def test_one_update_equals_that_of_the_trainer(people: PersonDataset, model: PersonModel, tmp_path: Path) -> None:
    """Augmentation is off, so both trainers see the same pixels: the plain one from files, `tbps` from the cache."""
    off = {"image_augmentation.enabled": False, "text_augmentation.enabled": False, "text_attention_dropout": 0}
    changes = {"batch_size": 8, "losses.ss.weight": 0, "schedule.warmup_epochs": 0, "schedule.peak_rate": 1e-3}
    settings = tbps_clip().override(off | changes)
    run, plain = Run(settings, copied(model), people, tmp_path, Silent()), PlainTrainer(settings, copied(model), people, workers=0)
    batches = iter(plain.batches())
    for batch, theirs in zip(run.batches.epoch(0), batches, strict=False):
        torch.testing.assert_close(theirs.image, normalise(batch.images, model.spec))
        assert torch.equal(theirs.identities, batch.identities)
        break
    run.update(NoLog())
    plain.update(theirs)
    for (name, one), other in zip(run.model.clip.named_parameters(), plain.model.clip.parameters(), strict=True):
        if name.endswith("k_proj.bias"):
            continue  # changes all scores of a query equally: its gradient is only rounding noise, whose sign Adam follows
        torch.testing.assert_close(one, other, rtol=1e-3, atol=2e-4, msg=name)  # Adam's first step divides by tiny gradients


def test_metrics_by_sorting_equal_those_by_counting() -> None:
    text, image, text_ids, image_ids = embeddings(90, 60, 20)
    plain = metrics_by_argsort(*(torch.from_numpy(array) for array in (text, image, text_ids, image_ids)))
    ours = retrieval_metrics(text, image, text_ids, image_ids)
    assert (plain.r1, plain.map, plain.minp) == pytest.approx((ours.r1, ours.map, ours.minp), abs=1e-3)


def test_the_plain_trainer_learns(people: PersonDataset) -> None:
    """Rank-1 on the training people; chance is one in eight."""
    train_images = people.split("train").images
    known = replace(people, images=(*train_images, *(replace(image, split="test") for image in train_images)))
    small = {"width": 32, "layers": 1, "heads": 2}
    changes = {"batch_size": 16, "schedule.epochs": 20, "shape.image": small, "shape.text": small, "precision": "float32"}
    settings = mannequin_minute().override(changes | {"text_augmentation.enabled": False})
    assert train(settings, start_model(settings, known, None, "cpu"), known, workers=0).r1 > 50


def test_unknown_losses_are_refused(people: PersonDataset, model: PersonModel) -> None:
    with pytest.raises(SettingsError, match="sdm"):
        PlainTrainer(tbps_clip().override({"losses.sdm.weight": 1}), model, people, workers=0)


def test_pairs_come_with_four_views_of_the_right_size(people: PersonDataset, model: PersonModel) -> None:
    settings = tbps_clip().override({"batch_size": 4})
    trainer = PlainTrainer(settings, copied(model), people, workers=0)
    batch = collate([trainer.pairs[row] for row in range(4)])
    views = (batch.image, batch.image_second, batch.strong_one, batch.strong_two)
    assert all(view.shape == (4, 3, 32, 32) for view in views)
    assert len({float(view.sum()) for view in views}) == 4
    assert len(batch.captions) == 4 and batch.identities.tolist() == [0, 0, 1, 1]  # two captions per image, one image per identity


def test_views_change_the_picture_as_drawn() -> None:
    random.seed(0)
    still = to_pixels(picture(), SPEC)
    assert torch.equal(to_pixels(weak_view(picture(), ImageAugmentation(enabled=False)), SPEC), still)
    changed = [not torch.equal(to_pixels(weak_view(picture(), ImageAugmentation()), SPEC), still) for _ in range(200)]
    # Two draws leave the image unchanged with probability ((0 + 1/2 + 9/10 + 0 + 1/2 + 0) / 6)^2 = 0.10.
    assert 0.8 < sum(changed) / len(changed) < 0.97
    assert all(strong_view(picture(), ViewAugmentation(), (32, 32)).size == (32, 32) for _ in range(20))


def test_boxes_have_the_wanted_area_and_shape() -> None:
    random.seed(1)
    boxes = [box for _ in range(300) if (box := draw_box((200, 200), (0.2, 0.5), (0.5, 2.0)))]
    assert len(boxes) > 290
    for left, top, right, bottom in boxes:
        assert 0 <= left < right <= 200 and 0 <= top < bottom <= 200
        assert 0.19 < (right - left) * (bottom - top) / 200**2 < 0.51
        assert 0.49 < (right - left) / (bottom - top) < 2.05


def test_jitter_and_hue_do_nothing_at_strength_zero() -> None:
    assert np.array_equal(np.array(jitter(picture(), (0, 0, 0))), np.array(picture()))
    turned, before = np.array(turn_hue(picture(), 0.0)).astype(int), np.array(picture()).astype(int)
    assert np.abs(turned - before).max() < 8  # rounding through 8-bit HSV
    red = Image.new("RGB", (4, 4), (250, 0, 0))
    assert np.array(turn_hue(red, 1 / 3))[0, 0].argmax() == 1
