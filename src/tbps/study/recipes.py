"""Recipes: functions that return the settings of a training run. `tbps train NAME` trains with one.

Each docstring states command, cost and expected result.
"""

from collections.abc import Callable, Mapping
from typing import Any

from tbps.errors import SettingsError
from tbps.model.clip import ModelShape, TowerShape
from tbps.preprocess.image import CLIP_MEAN, CLIP_STD
from tbps.training.objective import LossSettings
from tbps.training.settings import InputSettings, TrainSettings

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def clip() -> TrainSettings:
    """Plain fine-tuning of CLIP: ITC without tricks and augmentation. The base of the study's tables.

    Without global gradients, each of the paper's four devices treats the embeddings of the others as constants. One process
    imitates this with four shards of the batch (`losses.shards`).

    Command: tbps train clip --data cuhk-pedes --root CUHK-PEDES --model openai/clip-vit-base-patch32
    Cost: five epochs of 68,126 pairs, about 1,060 updates of 320 pairs at 224x224.
    Result: the paper reports Rank-1 60.67, mAP 54.72 (ViT-B/32) and 65.37, 59.42 (ViT-B/16) on CUHK-PEDES; 53.96, 32.37 and
    55.97, 30.63 on ICFG-PEDES; 50.10, 41.14 and 56.15, 43.26 on RSTPReid.
    """
    plain = {"n_itc.labels": "pair", "n_itc.soft_label": 0, "r_itc.weight": 0, "global_gradients": False, "shards": 4}
    return simplified_tbps_clip().override(
        {
            "image_augmentation.enabled": False,
            "text_augmentation.enabled": False,
            "text_attention_dropout": 0,
            "lock.patch_projection": False,
            "losses": LossSettings().override(plain).model_dump(),
        }
    )


def clip_star() -> TrainSettings:
    """CLIP*: `clip` with the four training tricks (global gradients, dropout, locked patch projection, soft labels).

    Command: tbps train clip_star --data cuhk-pedes --root CUHK-PEDES --model openai/clip-vit-base-patch32
    Cost: as `clip`.
    Result: the paper reports Rank-1 64.34, mAP 57.53 with ViT-B/32 on CUHK-PEDES.
    """
    return clip().override(
        {
            "text_attention_dropout": 0.05,
            "lock.patch_projection": True,
            "losses.global_gradients": True,
            "losses.shards": 1,
            "losses.n_itc.soft_label": 0.5,
        }
    )


def simplified_tbps_clip() -> TrainSettings:
    """Simplified TBPS-CLIP: N-ITC + R-ITC, four tricks, augmentation pool, back translation and random deletion.

    Command: tbps train simplified_tbps_clip --data cuhk-pedes --root CUHK-PEDES --model openai/clip-vit-base-patch16
    Cost: five epochs of 68,126 pairs, about 1,060 updates of 320 pairs at 224x224; --set micro_batch=80 fits smaller GPUs and gives
    the same gradients. Captions need `captions_bt` (the `tbps` layout, or `tbps data backtranslate`); without them add
    --set text_augmentation.paraphrase_probability=0.
    Result: the paper reports Rank-1 72.66, mAP 64.97 with ViT-B/16 on CUHK-PEDES, 64.52, 39.54 on ICFG-PEDES and 62.10, 48.00 on
    RSTPReid; not reproduced here, because the data sets were not available.
    """
    return TrainSettings(image=InputSettings(mean=IMAGENET_MEAN, std=IMAGENET_STD))


def tbps_clip() -> TrainSettings:
    """TBPS-CLIP, the full model: the simplified one with multi-view and self-supervision of the image (MVS-I, SS-I) and C-ITC.

    Command: tbps train tbps_clip --data cuhk-pedes --root CUHK-PEDES --model openai/clip-vit-base-patch16
    Cost: four image views instead of one; the paper needs 1,235 s for five epochs on four A40 GPUs.
    Result: the paper reports Rank-1 69.54, mAP 61.57 (ViT-B/32) and 73.54, 65.38 (ViT-B/16) on CUHK-PEDES; 59.88, 34.96 and
    65.05, 39.83 on ICFG-PEDES; 56.65, 44.00 and 61.95, 48.26 on RSTPReid; not reproduced here, because the data sets were not
    available. docs/benchmarks.md reports a whole run on mannequins from the bundled model.
    """
    losses = {"losses.mvs.views": "image", "losses.ss.weight": 0.4, "losses.c_itc.weight": 0.1}
    return simplified_tbps_clip().override(losses | {"seed": 1})


def distilled() -> TrainSettings:
    """Distillation: half the layers of a trained TBPS-CLIP, with the whole model as teacher. `prune.width` makes it narrower too.

    Command: tbps train distilled --data cuhk-pedes --root CUHK-PEDES --model runs/simplified/best
    Cost: as `simplified_tbps_clip`, with half the layers trained and one additional forward pass of the whole model.
    Result: not known on the published data sets; docs/study/README.md reports the gain on mannequins. There a weight of 10 helped,
    and 1, as in other work, did not (docs/decisions/study.md). The paper drops layers without a teacher.
    """
    return simplified_tbps_clip().override({"prune.depth": 0.5, "losses.distill.weight": 10})


def irra() -> TrainSettings:
    """IRRA: SDM, identity classification and masked words predicted by the cross-modal encoder, at 384x128.

    Command: tbps train irra --data cuhk-pedes --root CUHK-PEDES --model openai/clip-vit-base-patch16
    Cost: 60 epochs of 68,126 pairs in batches of 64, about 63,800 updates; 194.5 M parameters with ViT-B/16.
    Result: started from CLIP the paper reports Rank-1 73.38, mAP 66.13 on CUHK-PEDES; not reproduced here, because the data sets
    were not available. To start from a TBPS-CLIP, give the `best` folder of its run as the model.

    The settings are those of IRRA's code: Adam with eps 1e-3 and coupled weight decay for everything but biases; learning rate
    1e-5, five times that for parameters that start from random weights and twice for biases; 5 epochs of warm-up, then a cosine; a
    fixed temperature of 1/50; images flipped, padded by 10 pixels and cropped back; in half of the images a box of 2 to 40 % of the
    area erased, with the colour whose normalised value is CLIP's mean; captions padded to the context length for MLM.

    Differences from IRRA's code: captions are cleaned as for every model here, since a model folder has one way to read text;
    images are resized bicubically in evaluation and search; the rate changes with every update, not every epoch; a caption in which
    MLM draws no word has no masked word; the last partial batch is dropped; the precision is float32, not float16.
    """
    fill = tuple(mean + std * mean for mean, std in zip(CLIP_MEAN, CLIP_STD, strict=True))  # its code erases after normalising
    return _irra_with(
        {"mlm.padding": "context"},
        {
            "image_augmentation": {"method": "irra", "erase_area": (0.02, 0.4), "erase_fill": fill},
            "optimizer": {
                "algorithm": "adam",
                "groups": "irra",
                "weight_decay": 4e-5,
                "betas": (0.9, 0.999),
                "eps": 1e-3,
                "bias_rate_factor": 2,
            },
        },
    )


def _irra_of_0_1() -> TrainSettings:
    """`irra` as in version 0.1: AdamW, and crops that never fit into 384x128 pixels, so that every crop was the middle 171 rows."""
    crop_flip_erase = {"method": "stacking", "grayscale_probability": 0, "rotation_degrees": 0} | dict.fromkeys(
        ("brightness", "contrast", "saturation"), 0
    )
    changes = {f"image_augmentation.{key}": value for key, value in crop_flip_erase.items()}
    return _irra_with({}, changes | {"optimizer": {"weight_decay": 4e-5, "betas": (0.9, 0.999)}})


def _irra_with(losses: Mapping[str, Any], changes: Mapping[str, Any]) -> TrainSettings:
    """Return the settings that both versions of `irra` share, with changes of the losses and of other settings."""
    weights = {"n_itc.weight": 0, "r_itc.weight": 0, "sdm.weight": 1, "id.weight": 1, "mlm.weight": 1}
    return TrainSettings(image=InputSettings(height=384, width=128)).override(
        {
            "batch_size": 64,
            "text_augmentation.enabled": False,
            "text_attention_dropout": 0,
            "lock.patch_projection": False,
            "losses": LossSettings().override({**weights, **losses}).model_dump(),
            "schedule": {"epochs": 60, "warmup_epochs": 5, "initial_rate": 1e-6, "peak_rate": 1e-5, "final_rate": 0},
            **changes,
        }
    )


def coop() -> TrainSettings:
    """CoOp: a locked CLIP learns prompt vectors before every caption, initialised with "a pedestrian photo of" (few shot).

    Command: tbps train coop --data cuhk-pedes --root CUHK-PEDES --model openai/clip-vit-base-patch16
    Cost: 2,048 parameters are trained (the prompt has four tokens in OpenAI's vocabulary); the image tower needs no gradients.
    Result: the paper reports Rank-1 10.98, 11.37 and 12.10 with 1, 5 and 10 % of CUHK-PEDES (`tbps study run few-shot`); not
    reproduced here, because the data set was not available.

    Losses, input and epochs of `clip`, at CoOp's own rate, with AdamW in place of SGD (not tuned, see docs/decisions/study.md).
    """
    return clip().override({"few_shot": {"prompt": "a pedestrian photo of"}, "schedule.peak_rate": 2e-3})


def clip_adapter() -> TrainSettings:
    """CLIP-Adapter: a locked CLIP learns a bottleneck after the image embedding, mixed in with share 0.4 (few shot).

    Command: tbps train clip_adapter --data cuhk-pedes --root CUHK-PEDES --model openai/clip-vit-base-patch16
    Cost: 131,072 parameters are trained; neither tower needs gradients.
    Result: the paper reports Rank-1 11.22, 11.96 and 12.61 with 1, 5 and 10 % of CUHK-PEDES (`tbps study run few-shot`); not
    reproduced here, because the data set was not available.

    Losses, input and epochs of `clip`, at ten times its rate, since the bottleneck starts from random weights.
    """
    return clip().override({"few_shot": {"adapter_ratio": 0.4}, "schedule.peak_rate": 1e-3})


def mannequin_start() -> TrainSettings:
    """A small model from random weights, on mannequins: plain identity-normalised contrastive learning (N-ITC alone).

    Command: tbps train mannequin_start --data folder --root mannequins
    Cost and result: the first half of `mannequin_tiny`; figures in models/mannequin-tiny/README.md.

    It replaces CLIP's pretraining, so its settings are those that learn fastest from random weights: Muon for the matrices inside
    the layers, and no R-ITC, soft labels or image augmentation, which slow down early training (docs/decisions/model.md).
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
            "image": InputSettings().model_dump(),
            "image_augmentation.enabled": False,
            "batch_size": 256,
            "lock.patch_projection": False,
            "precision": "bfloat16",
            **_BUNDLED,
            "losses.r_itc.weight": 0,
            "losses.n_itc.soft_label": 0,
            "optimizer": {"clip_norm": 1.0, "matrices": "muon", "muon_rate_factor": 3.0},
            "schedule": {"epochs": 3, "warmup_epochs": 0.1, "initial_rate": 1e-5, "peak_rate": 1.2e-3, "final_rate": 1.2e-4},
        }
    )


def mannequin_minute() -> TrainSettings:
    """A very small model from random weights, to try out training. Part of `make demo`.

    Command: tbps train mannequin_minute --data folder --root mannequins
    Cost: about a minute for 1,000 identities of four images on two cores.
    Result: Rank-1 31 % on the 50 identities of validation, 25 % on 50 others (chance 2 %; one run).
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
    """Simplified TBPS-CLIP fine-tuned from `mannequin_start`: the second half of the training of `models/mannequin-tiny`.

    Command: tbps train mannequin_tiny --data folder --root mannequins --model runs/start/best
    Cost and result: see models/mannequin-tiny/README.md; `make tiny-model` runs both halves.

    All parts of the simplified method, at batch size 256. The R-ITC labels are normalised, and their eps is a quarter of the
    published one: with that, for batches of 97 pairs and more, uniform scores have a lower loss than all weight on the pair (see
    `losses.r_itc`).
    """
    return simplified_tbps_clip().override(
        {
            "image": InputSettings().model_dump(),
            "batch_size": 256,
            "precision": "bfloat16",
            **_BUNDLED,
            "losses.r_itc.labels": "normalised",
            "losses.r_itc.eps": 2.5e-3,
            "optimizer": {"clip_norm": 1.0, "matrices": "muon", "muon_rate_factor": 3.0},
            "schedule": {"epochs": 1, "warmup_epochs": 0.1, "initial_rate": 1e-5, "peak_rate": 6e-4, "final_rate": 5e-6},
        }
    )


RECIPES: dict[str, Callable[[], TrainSettings]] = {
    "clip": clip,
    "clip_star": clip_star,
    "tbps_clip": tbps_clip,
    "simplified_tbps_clip": simplified_tbps_clip,
    "distilled": distilled,
    "irra": irra,
    "coop": coop,
    "clip_adapter": clip_adapter,
    "mannequin_start": mannequin_start,
    "mannequin_tiny": mannequin_tiny,
    "mannequin_minute": mannequin_minute,
}


FORMER: dict[str, Callable[[], TrainSettings]] = {"irra": _irra_of_0_1}
"""Recipes of an earlier version, for resuming runs that were started with them."""

_BUNDLED = {
    "image.training_resize": "bicubic",
    "image_augmentation.boxes": "torchvision",
    "image_augmentation.order": "fixed",
}
"""Resizing and augmentation with which the bundled model was trained and the results of the mannequin recipes were obtained."""


def recipe(name: str) -> TrainSettings:
    """Find a recipe by name and return its settings. Raises SettingsError with the known names."""
    if name not in RECIPES:
        raise SettingsError(f"unknown recipe {name!r}; there are {', '.join(RECIPES)}")
    return RECIPES[name]()
