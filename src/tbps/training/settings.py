"""Everything that decides a run besides data and start weights."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from tbps.config import Settings
from tbps.data.augment.image import ImageAugmentation
from tbps.data.augment.pair import PairAugmentation
from tbps.data.augment.text import TextAugmentation
from tbps.data.augment.views import ViewAugmentation
from tbps.errors import SettingsError
from tbps.model.clip import LockSettings, ModelShape
from tbps.model.folder import FewShotSettings
from tbps.model.lora import LoraSettings
from tbps.model.surgery import PruneSettings
from tbps.preprocess.image import ImageSpec, Resize
from tbps.training.division import DivisionSettings
from tbps.training.objective import LossSettings
from tbps.training.optimizer import OptimizerSettings
from tbps.training.schedule import ScheduleSettings


class InputSettings(Settings):
    """What the image tower sees: size in pixels, and mean and deviation per RGB channel; None: as the start model has it.

    `training_resize`: how training images are resized to that size, before they are augmented. The reference does that bilinearly
    (its `transforms.Resize` without an argument), and all that a trained model sees, in evaluation and search, bicubically.
    """

    earlier: ClassVar[Mapping[str, Any]] = {"training_resize": "bicubic"}

    training_resize: Resize = "bilinear"
    height: int | None = Field(None, ge=1, le=4096)
    width: int | None = Field(None, ge=1, le=4096)
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None

    def of(self, model: ImageSpec) -> ImageSpec:
        """The start model's input with these changes."""
        return model.override({key: value for key, value in self if value is not None and key != "training_resize"})


class TrainSettings(Settings):
    """Settings of a run; the defaults are the simplified TBPS-CLIP.

    `shape` builds a model from random weights (None: a start model is given). `prune` cuts a smaller model out of it, which is the
    one that learns; with `losses.distill` the whole start model teaches it. `batch_size` is the global one, of all processes;
    `micro_batch`: pairs that one process encodes at a time (None: its whole share), which changes memory and speed only. With
    `lora`, only adapters, the temperature and the heads of losses learn; with `few_shot`, only what it adds to the towers, and the
    heads of losses, whatever `lock` says. `precision`: what the towers compute in; weights and losses stay in float32. "float16" is
    the paper's, with loss scaling (`training.optimizer.update_together`); "tf32" is float32 whose products a GPU rounds to 10 bits
    of mantissa. `text_parts`: captions are encoded in so many runs by length, which changes the speed only. `compile_image_tower`
    pays where a run takes many minutes.

    `learn_from`: "train" learns from the train split and keeps the epoch that is best on val. "train+val" learns from both and
    keeps the last epoch, since no identity is left to choose by: for ICFG-PEDES, which has no val split of its own, it is the
    paper's way, all 3,102 training identities.
    """

    earlier: ClassVar[Mapping[str, Any]] = {"learn_from": "train"}

    seed: int = 0
    learn_from: Literal["train", "train+val"] = "train"
    batch_size: int = Field(320, ge=1)
    micro_batch: int | None = Field(None, ge=1)
    shape: ModelShape | None = None
    prune: PruneSettings = PruneSettings()
    image: InputSettings = InputSettings()
    image_augmentation: ImageAugmentation = ImageAugmentation()
    strong_views: ViewAugmentation = ViewAugmentation()
    text_augmentation: TextAugmentation = TextAugmentation()
    pair_augmentation: PairAugmentation = PairAugmentation()
    text_attention_dropout: float = Field(0.05, ge=0, lt=1)
    lock: LockSettings = LockSettings()
    losses: LossSettings = LossSettings()
    division: DivisionSettings = DivisionSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    lora: LoraSettings | None = None
    few_shot: FewShotSettings | None = None
    optimizer: OptimizerSettings = OptimizerSettings()
    ema_decay: float | None = Field(None, ge=0, lt=1)
    precision: Literal["float32", "tf32", "bfloat16", "float16"] = "float32"
    text_parts: int = Field(4, ge=1)
    compile_image_tower: bool = False
    checkpoint_steps: int = Field(200, ge=1)

    @model_validator(mode="after")
    def _one_way_to_add(self) -> "TrainSettings":
        if self.few_shot is not None and self.lora is not None:
            raise SettingsError("lora and few_shot both lock the towers and add what learns; set one of them to null")
        return self

    @model_validator(mode="after")
    def _shards_are_whole(self) -> "TrainSettings":
        if not self.losses.global_gradients and self.batch_size % self.losses.shards:
            raise SettingsError(
                f"losses.shards = {self.losses.shards} does not divide batch_size = {self.batch_size}; change one of them"
            )
        return self

    @model_validator(mode="after")
    def _labels_are_meant(self) -> "TrainSettings":
        """A label of a pair has a meaning in losses that are a mean over pairs, each beside the others."""
        if not self.division.enabled:
            return self
        without = [name for name in ("c_itc", "id", "mlm") if getattr(self.losses, name).weight > 0]
        if without:
            raise SettingsError(
                f"division.enabled does not say what {without[0]} makes of a pair; set losses.{without[0]}.weight=0"
            )
        if self.pair_augmentation.method != "none":
            raise SettingsError('division.enabled judges single pairs; set pair_augmentation.method="none"')
        return self
