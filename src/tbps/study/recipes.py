"""Recipes: settings as Python functions that derive from one another. `tbps train NAME` runs one.

Each docstring states the command, the cost and the expected result.
"""

from collections.abc import Callable

from tbps.errors import SettingsError
from tbps.model.clip import ModelShape, TowerShape
from tbps.preprocess.image import ImageSpec
from tbps.training.trainer import TrainSettings

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def simplified_tbps_clip() -> TrainSettings:
    """Simplified TBPS-CLIP: N-ITC + R-ITC, four tricks, augmentation pool, back translation and random deletion.

    Command: tbps train simplified_tbps_clip --data cuhk-pedes --root CUHK-PEDES --model openai/clip-vit-base-patch16
    Cost: five epochs of 68,126 pairs, about 1,060 updates of 320 pairs at 224x224; one large GPU. Captions need `captions_bt`
    (the `tbps` layout); without them add --set text_augmentation.paraphrase_probability=0.
    Result: the paper reports Rank-1 72.66, mAP 64.97 on CUHK-PEDES; not reproduced here, for want of the data set.
    """
    return TrainSettings(image=ImageSpec(height=224, width=224, mean=IMAGENET_MEAN, std=IMAGENET_STD))


def mannequin_tiny() -> TrainSettings:
    """Simplified TBPS-CLIP for a model from random weights, on mannequins: how `models/mannequin-tiny` was trained.

    Command: see models/mannequin-tiny/README.md; `make tiny-model` runs it.
    Differences from the fine-tuning recipe, each because there is no pre-trained start: the patch projection learns, the peak
    rate is ten times as high, and the R-ITC labels are normalised (with the published ones uniform scores are the minimum for
    batches above 100, which a pre-trained start escapes and random weights do not).
    """
    shape = ModelShape(
        image=TowerShape(width=192, layers=6, heads=3),
        text=TowerShape(width=192, layers=3, heads=3),
        image_size=96,
        patch=16,
        vocabulary=1400,
        embedding=192,
    )
    return simplified_tbps_clip().override(
        {
            "shape": shape.model_dump(),
            "image": None,
            "batch_size": 256,
            "lock_patch_projection": False,
            "precision": "bfloat16",
            "compile_image_tower": True,
            "losses.r_itc_labels": "normalised",
            "optimizer.weight_decay": 0.05,
            "optimizer.clip_norm": 1.0,
            "schedule": {"epochs": 24, "warmup_epochs": 1.0, "initial_rate": 1e-5, "peak_rate": 1e-3, "final_rate": 1e-5},
        }
    )


RECIPES: dict[str, Callable[[], TrainSettings]] = {
    "simplified_tbps_clip": simplified_tbps_clip,
    "mannequin_tiny": mannequin_tiny,
}


def recipe(name: str) -> TrainSettings:
    """The settings of a recipe. Raises SettingsError naming the recipes there are."""
    if name not in RECIPES:
        raise SettingsError(f"unknown recipe {name!r}; there are {', '.join(RECIPES)}")
    return RECIPES[name]()
