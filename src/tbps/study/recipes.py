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


def mannequin_start() -> TrainSettings:
    """A small model from random weights, on mannequins: plain identity-normalised contrastive learning (N-ITC alone).

    Command: tbps train mannequin_start --data folder --root mannequins
    Cost and result: the first half of `mannequin_tiny`; figures in models/mannequin-tiny/README.md.

    It stands in for CLIP's pretraining, so it takes what learns fastest from nothing: Muon for the layers' matrices, and neither
    R-ITC, soft labels nor image augmentation, which all hold the beginning back (docs/decisions.md has the figures).
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
            "image_augmentation.enabled": False,
            "batch_size": 256,
            "lock_patch_projection": False,
            "precision": "bfloat16",
            "losses.r_itc": 0,
            "losses.soft_label": 0,
            "optimizer": {"clip_norm": 1.0, "matrices": "muon", "muon_rate_factor": 3.0},
            "schedule": {"epochs": 3, "warmup_epochs": 0.1, "initial_rate": 1e-5, "peak_rate": 1.2e-3, "final_rate": 1.2e-4},
        }
    )


def mannequin_minute() -> TrainSettings:
    """A still smaller model from random weights, to see training work. Part of `make demo`.

    Command: tbps train mannequin_minute --data folder --root mannequins
    Cost: about a minute for 1,000 identities of four images on two cores.
    Result: Rank-1 30 % on 50 identities that it has not seen (chance 2 %).
    """
    small = mannequin_start()
    shape = ModelShape(
        image=TowerShape(width=128, layers=3, heads=2),
        text=TowerShape(width=128, layers=2, heads=2),
        image_size=64,
        patch=16,
        vocabulary=1000,
        embedding=128,
    )
    return small.override(
        {"shape": shape.model_dump(), "batch_size": 128, "schedule.epochs": 5, "schedule.peak_rate": 2e-3, "schedule.final_rate": 0}
    )


def mannequin_tiny() -> TrainSettings:
    """Simplified TBPS-CLIP fine-tuned from `mannequin_start`: the second half of how `models/mannequin-tiny` was made.

    Command: tbps train mannequin_tiny --data folder --root mannequins --model runs/start/best
    Cost and result: see models/mannequin-tiny/README.md; `make tiny-model` runs both halves.

    All parts of the simplified method, at batch 256. The R-ITC labels are normalised and their eps is a quarter of the published
    one: with that, uniform scores are the minimum for batches above 100 (see `losses.r_itc`).
    """
    return simplified_tbps_clip().override(
        {
            "image": None,
            "batch_size": 256,
            "precision": "bfloat16",
            "losses.r_itc_labels": "normalised",
            "losses.r_itc_eps": 2.5e-3,
            "optimizer": {"clip_norm": 1.0, "matrices": "muon", "muon_rate_factor": 3.0},
            "schedule": {"epochs": 1, "warmup_epochs": 0.1, "initial_rate": 1e-5, "peak_rate": 6e-4, "final_rate": 5e-6},
        }
    )


RECIPES: dict[str, Callable[[], TrainSettings]] = {
    "simplified_tbps_clip": simplified_tbps_clip,
    "mannequin_start": mannequin_start,
    "mannequin_tiny": mannequin_tiny,
    "mannequin_minute": mannequin_minute,
}


def recipe(name: str) -> TrainSettings:
    """The settings of a recipe. Raises SettingsError naming the recipes there are."""
    if name not in RECIPES:
        raise SettingsError(f"unknown recipe {name!r}; there are {', '.join(RECIPES)}")
    return RECIPES[name]()
