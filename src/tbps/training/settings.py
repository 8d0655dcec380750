"""Settings of a training run. Together with the data set and the start model they determine its result."""

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
    """Input of the image tower. None keeps the value of the start model."""

    earlier: ClassVar[Mapping[str, Any]] = {"training_resize": "bicubic"}

    training_resize: Resize = "bilinear"
    """Interpolation of training images before augmentation; evaluation and search always resize bicubically.

    The reference resizes training images bilinearly, the default of its `transforms.Resize`.
    """
    height: int | None = Field(None, ge=1, le=4096)
    """Height in pixels."""
    width: int | None = Field(None, ge=1, le=4096)
    """Width in pixels."""
    mean: tuple[float, float, float] | None = None
    """Mean of each RGB channel, subtracted from pixels in [0, 1]."""
    std: tuple[float, float, float] | None = None
    """Standard deviation of each RGB channel, by which the difference is divided."""

    def of(self, model: ImageSpec) -> ImageSpec:
        """Apply these settings to the start model's input specification."""
        return model.override({key: value for key, value in self if value is not None and key != "training_resize"})


class TrainSettings(Settings):
    """Settings of a run; the defaults are the simplified TBPS-CLIP."""

    earlier: ClassVar[Mapping[str, Any]] = {"learn_from": "train"}

    seed: int = 0
    """Seed of every random draw."""
    learn_from: Literal["train", "train+val"] = "train"
    """Splits to learn from: "train" keeps the epoch that is best on val; "train+val" keeps the last epoch.

    The paper uses "train+val" for ICFG-PEDES, which has no val split, and so learns from all 3,102 training identities.
    """
    batch_size: int = Field(320, ge=1)
    """Pairs per update, over all processes."""
    micro_batch: int | None = Field(None, ge=1)
    """Pairs that a process encodes at a time, null for all its pairs; changes memory and speed only."""
    shape: ModelShape | None = None
    """Shape of a new model with random weights; null to fine-tune a given start model."""
    prune: PruneSettings = PruneSettings()
    """Parts removed from the start model before training; with `losses.distill` the whole start model is the teacher."""
    image: InputSettings = InputSettings()
    """Input of the image tower."""
    image_augmentation: ImageAugmentation = ImageAugmentation()
    """Augmentation of images."""
    strong_views: ViewAugmentation = ViewAugmentation()
    """Augmentation of the two image views of self-supervision."""
    text_augmentation: TextAugmentation = TextAugmentation()
    """Augmentation of captions."""
    pair_augmentation: PairAugmentation = PairAugmentation()
    """Augmentation that mixes pairs."""
    text_attention_dropout: float = Field(0.05, ge=0, lt=1)
    """Dropout probability of the text tower's self-attention (paper: trick 2)."""
    lock: LockSettings = LockSettings()
    """Parameters of the towers that are not trained (paper: trick 3); ignored with `few_shot`."""
    losses: LossSettings = LossSettings()
    """Losses and their weights."""
    division: DivisionSettings = DivisionSettings()
    """Consensus division of training pairs with wrong captions."""
    schedule: ScheduleSettings = ScheduleSettings()
    """Epochs and learning rate."""
    lora: LoraSettings | None = None
    """Low-rank adapters; then only the adapters, the temperature and the heads of the losses are trained. Null for none."""
    few_shot: FewShotSettings | None = None
    """Few-shot modules; then only these and the heads of the losses are trained. Null for none."""
    optimizer: OptimizerSettings = OptimizerSettings()
    """Optimizer."""
    ema_decay: float | None = Field(None, ge=0, lt=1)
    """Decay of an exponential moving average of the weights, which is validated and saved in their place; null for none."""
    precision: Literal["float32", "tf32", "bfloat16", "float16"] = "float32"
    """Precision of the towers; weights and losses stay in float32.

    "float16", with loss scaling (`training.optimizer.update_together`), is the paper's precision. "tf32" is float32, but a GPU
    rounds the factors of matrix products to 10 bits of mantissa.
    """
    text_parts: int = Field(4, ge=1)
    """Number of groups of similar length in which captions are encoded; changes speed only."""
    compile_image_tower: bool = False
    """Whether to compile the image tower, which pays off in runs of many minutes."""
    checkpoint_steps: int = Field(200, ge=1)
    """Updates between checkpoints; one is also written after every epoch."""

    @model_validator(mode="after")
    def _one_way_to_add(self) -> "TrainSettings":
        if self.few_shot is not None and self.lora is not None:
            raise SettingsError("lora and few_shot both lock the towers and add modules to train; set one of them to null")
        return self

    @model_validator(mode="after")
    def _shards_are_whole(self) -> "TrainSettings":
        if not self.losses.global_gradients and self.batch_size % self.losses.shards:
            raise SettingsError(
                f"losses.shards = {self.losses.shards} does not divide batch_size = {self.batch_size}; change one of them"
            )
        return self

    @model_validator(mode="after")
    def _division_fits_the_losses(self) -> "TrainSettings":
        """Check that all losses are means over rows of pairs, because the labels of the division are weights of those rows."""
        if not self.division.enabled:
            return self
        without = [name for name in ("c_itc", "id", "mlm") if getattr(self.losses, name).weight > 0]
        if without:
            raise SettingsError(
                f"division.enabled cannot be combined with the loss {without[0]}, which ignores the labels of the pairs; "
                f"set losses.{without[0]}.weight=0"
            )
        if self.pair_augmentation.method != "none":
            raise SettingsError('division.enabled cannot label mixed pairs; set pair_augmentation.method="none"')
        return self
