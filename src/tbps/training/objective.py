"""The one place where views, losses and weights meet.

What a batch is encoded to (`Features`) and what the losses make of it. Which views a step needs follows from the losses that are
on (`LossSettings.second_image` and its neighbours): nothing is encoded, and nothing computed, for a loss of weight 0.

Global gradients (paper: trick 1): similarities are taken between the local rows and the columns of all processes, with gradients
through the gather, so that the mean of the processes' gradients is the gradient of the loss over the whole global batch.

Without them a device takes the columns of the others as constants. `LossSettings.shards` says of how many devices that is true, so
that one process can stand for several: it takes the loss of every shard of its rows in turn, with the columns of the other shards
detached, and their mean, whose gradient is the one that the devices would average.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from tbps.config import Settings
from tbps.distributed import gather, gather_with_gradient, rank, world_size
from tbps.errors import SettingsError
from tbps.losses import c_itc, distill, id_loss, identity_targets, n_itc, nt_xent, r_itc, sdm, tal
from tbps.losses.contrastive import SoftSource
from tbps.model.heads import Heads, ProjectionHead, label_of

Modalities = Literal["image", "text", "both"]


class NItcSettings(Settings):
    """`labels`: "identity" makes every column of the row's identity right (N-ITC), "pair" only its own (CLIP's ITC).

    `smoothing`: share of the target that is spread over all columns alike.
    `soft_label`: share alpha of the model's own softmax in the targets of this loss and of MVS after its ramp (paper: trick 4).
    `soft_pass`: "reuse" takes that softmax from the step's own embeddings; "separate" runs both towers once more without
    gradients, as the reference does, which differs by the dropout mask of the text tower only. Either way the second view of MVS
    takes its own softmax.
    """

    weight: float = Field(1.0, ge=0)
    labels: Literal["identity", "pair"] = "identity"
    smoothing: float = Field(0.0, ge=0, lt=1)
    soft_label: float = Field(0.5, ge=0, le=1)
    soft_pass: Literal["reuse", "separate"] = "reuse"


class MvsSettings(Settings):
    """Multi-view supervision: N-ITC with a second augmented view of the image, the text or both; the mean of N-ITC and it."""

    views: Literal["off", "image", "text", "both"] = "off"


class SsSettings(Settings):
    """Self-supervision (NT-Xent) between two views of the image, the text or both, through a projection head."""

    weight: float = Field(0.0, ge=0)
    views: Modalities = "image"
    temperature: float = Field(0.1, gt=0)


class RItcSettings(Settings):
    """`labels`: "reference" adds eps to the labels as published; "normalised" makes them a distribution again."""

    weight: float = Field(1.0, ge=0)
    eps: float = Field(1e-2, gt=0)
    labels: Literal["reference", "normalised"] = "reference"


class CItcSettings(Settings):
    """`variant`: "reference" is the mean over pairs with both weights; "paper" the formula as printed, without weights."""

    weight: float = Field(0.0, ge=0)
    in_modal: float = Field(0.25, ge=0)
    cross_modal: float = Field(0.25, ge=0)
    variant: Literal["reference", "paper"] = "reference"


class SdmSettings(Settings):
    """IRRA's similarity-distribution matching."""

    weight: float = Field(0.0, ge=0)
    scale: float = Field(50.0, gt=0)


class TalSettings(Settings):
    """RDE's triplet alignment, robust against wrong captions."""

    weight: float = Field(0.0, ge=0)
    temperature: float = Field(0.015, gt=0)
    margin: float = Field(0.1, ge=0)


class IdSettings(Settings):
    """Identity classification of both embeddings."""

    weight: float = Field(0.0, ge=0)


class MlmSettings(Settings):
    """Masked words predicted from caption and image by the cross-modal encoder.

    `padding`: what the encoder's self-attention makes of the places behind a caption. "masked": nothing looks at them, so that a
    caption's loss does not depend on its company. "context", as IRRA does: every caption is padded to the model's context with
    token 0, and all places look at one another. "batch": they are as many as the longest caption of the batch makes them, and are
    looked at.
    """

    earlier: ClassVar[Mapping[str, Any]] = {"padding": "batch"}

    padding: Literal["masked", "context", "batch"] = "masked"
    weight: float = Field(0.0, ge=0)
    probability: float = Field(0.15, gt=0, lt=1)


class DistillSettings(Settings):
    """The similarities of a teacher, the start model before it is pruned (`TrainSettings.prune`)."""

    weight: float = Field(0.0, ge=0)
    scale: float = Field(50.0, gt=0)


class LossSettings(Settings):
    """Weights and details of the losses; the defaults are the simplified TBPS-CLIP. A loss of weight 0 is not computed.

    `global_gradients` (paper: trick 1): without them the columns of other devices are constants. `shards`: of how many devices,
    where the processes are fewer; each process then stands for an equal part of them.
    """

    earlier: ClassVar[Mapping[str, Any]] = {"shards": 1}

    global_gradients: bool = True
    shards: int = Field(1, ge=1)
    n_itc: NItcSettings = NItcSettings()
    mvs: MvsSettings = MvsSettings()
    ss: SsSettings = SsSettings()
    r_itc: RItcSettings = RItcSettings()
    c_itc: CItcSettings = CItcSettings()
    sdm: SdmSettings = SdmSettings()
    tal: TalSettings = TalSettings()
    id: IdSettings = IdSettings()
    mlm: MlmSettings = MlmSettings()
    distill: DistillSettings = DistillSettings()

    @property
    def second_image(self) -> bool:
        """Whether a second augmented view of every image is encoded."""
        return self.n_itc.weight > 0 and self.mvs.views in ("image", "both")

    @property
    def second_text_in_mvs(self) -> bool:
        """Whether MVS compares a second augmented view of every caption."""
        return self.n_itc.weight > 0 and self.mvs.views in ("text", "both")

    @property
    def second_text(self) -> bool:
        """Whether a second augmented view of every caption is encoded."""
        return self.second_text_in_mvs or self.ss_text

    @property
    def ss_image(self) -> bool:
        """Whether two strongly augmented views of every image are encoded."""
        return self.ss.weight > 0 and self.ss.views in ("image", "both")

    @property
    def ss_text(self) -> bool:
        """Whether two views of every caption are compared."""
        return self.ss.weight > 0 and self.ss.views in ("text", "both")

    @property
    def separate_pass(self) -> bool:
        """Whether both towers run once more, without gradients, for the soft labels."""
        return self.n_itc.weight > 0 and self.n_itc.soft_label > 0 and self.n_itc.soft_pass == "separate"


@dataclass(frozen=True, slots=True)
class Losses:
    """The weighted total (scalar tensor with gradient) and every unweighted term, detached."""

    total: Tensor
    terms: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Features:
    """Un-normalised embeddings (n, D) of the views of a batch; those that no loss needs are None.

    `image`, `text`: first views; `*_second`: second views; `strong_*`: the two views of SS-I. `calm_*`: the pass without
    gradients for "separate" soft labels, of the second views too where MVS compares those; `teacher_*`: the teacher's embeddings
    of the first views. `mlm`: the MLM loss of these pairs, which needs tokens, not embeddings.
    """

    image: Float[Tensor, "n D"]
    text: Float[Tensor, "n D"]
    image_second: Float[Tensor, "n D"] | None = None
    text_second: Float[Tensor, "n D"] | None = None
    strong_one: Float[Tensor, "n D"] | None = None
    strong_two: Float[Tensor, "n D"] | None = None
    calm_image: Float[Tensor, "n D"] | None = None
    calm_text: Float[Tensor, "n D"] | None = None
    calm_image_second: Float[Tensor, "n D"] | None = None
    calm_text_second: Float[Tensor, "n D"] | None = None
    teacher_image: Float[Tensor, "n D"] | None = None
    teacher_text: Float[Tensor, "n D"] | None = None
    mlm: Float[Tensor, ""] | None = None


@dataclass(frozen=True, slots=True)
class Labels:
    """What is true of a batch: the identities of its pairs, and the training identities `known`, sorted, to classify.

    `mixed_with`: second identities of pairs that are two in one (`data.augment_pair`); every loss over identities counts both.
    `weights`: how much each pair teaches about image and caption together (`training.division`): the rows of N-ITC, MVS, R-ITC,
    SDM and TAL are multiplied by it, and averaged over all rows. The losses of one modality (SS) take every pair as it is.
    """

    identities: Int[Tensor, " n"]
    known: Int[Tensor, " C"] | None = None
    mixed_with: Int[Tensor, " n"] | None = None
    weights: Float[Tensor, " n"] | None = None

    @property
    def people(self) -> Int[Tensor, " n"] | Int[Tensor, "n 2"]:
        """The identities of every pair, one or two."""
        return self.identities if self.mixed_with is None else torch.stack([self.identities, self.mixed_with], 1)


@dataclass(frozen=True, slots=True)
class _Shard:
    """The rows of one device: shard `number` of `count` among the n rows of this process; `constant`: other columns are
    detached.
    """

    number: int
    count: int
    constant: bool

    def rows(self, whole: Tensor) -> Tensor:
        """Its part of the rows of this process."""
        return whole if self.count == 1 else whole[self._range(whole)]

    def columns(self, one: Tensor, two: Tensor) -> tuple[Tensor, Tensor] | None:
        """Both of all devices; None where there is one device. With `constant` only its own rows have a gradient."""
        if world_size() == self.count == 1:
            return None
        if self.constant:
            return self._with_own_gradient(one), self._with_own_gradient(two)
        return gather_with_gradient(one), gather_with_gradient(two)

    def start(self, process_rows: int) -> int | None:
        """Column of its first row, of `process_rows` rows a process; None where there is one device."""
        if world_size() == self.count == 1:
            return None
        return rank() * process_rows + self.number * (process_rows // self.count)

    def _range(self, whole: Tensor) -> slice:
        size = len(whole) // self.count
        return slice(self.number * size, (self.number + 1) * size)

    def _with_own_gradient(self, whole: Tensor) -> Tensor:
        own, offset = self._range(whole), rank() * len(whole)
        everyone = gather(whole.detach())
        return torch.cat([everyone[: offset + own.start], whole[own], everyone[offset + own.stop :]])


def _shards(pairs: int, settings: LossSettings) -> list[_Shard]:
    """The devices that this process stands for."""
    if settings.global_gradients:
        return [_Shard(0, 1, constant=False)]
    if settings.shards <= world_size():  # one shard, or every process is one of the devices
        return [_Shard(0, 1, constant=True)]
    count = settings.shards // world_size()
    if settings.shards % world_size() or pairs % count:
        raise SettingsError(
            f"losses.shards = {settings.shards} does not divide {pairs * world_size()} pairs on {world_size()} processes: "
            "change batch_size, or set losses.shards=1"
        )
    return [_Shard(number, count, constant=True) for number in range(count)]


def objective(
    features: Features,
    labels: Labels,
    scale: Float[Tensor, ""],
    alpha: float,
    heads: Heads,
    settings: LossSettings,
) -> Losses:
    """The loss of the global batch. `alpha`: the soft labels' share at this step; `scale`: 1 / temperature."""
    shards = _shards(len(features.image), settings)
    parts = []
    for shard in shards:
        sums = _Sum()
        _add_contrastive(sums, _Given(features, labels, scale, alpha, settings, shard))
        _add_ss(sums, features, heads, settings, shard)
        if settings.id.weight > 0:
            assert heads.classifier is not None and labels.known is not None
            wanted = label_of(shard.rows(labels.people), labels.known)
            logits = [heads.classifier(shard.rows(side)) for side in (features.image, features.text)]
            sums.add("id", settings.id.weight, id_loss(logits[0], logits[1], wanted))
        parts.append(sums)
    whole = parts[0] if len(parts) == 1 else _mean(parts)
    if features.mlm is not None:
        whole.add("mlm", settings.mlm.weight, features.mlm)
    return whole.losses(features.image)


@dataclass(frozen=True, slots=True)
class _Given:
    """What the losses between image and text take."""

    features: Features
    labels: Labels
    scale: Tensor
    alpha: float
    settings: LossSettings
    shard: _Shard


def _add_contrastive(sums: "_Sum", given: _Given) -> None:
    """The losses between the two modalities: N-ITC with MVS, R-ITC, C-ITC, TAL, SDM and distillation."""
    features, labels, settings, shard, scale = given.features, given.labels, given.settings, given.shard, given.scale
    columns = gather(labels.people)
    targets = identity_targets(shard.rows(labels.people), columns)
    image, text = shard.rows(features.image), shard.rows(features.text)
    weights = None if labels.weights is None else shard.rows(labels.weights)
    everyone = shard.columns(features.image, features.text)
    start = shard.start(len(features.image))
    if settings.n_itc.weight > 0:
        right = targets if settings.n_itc.labels == "identity" else _own_columns(targets, start or 0)
        if settings.n_itc.smoothing > 0:
            right = (1 - settings.n_itc.smoothing) * right + settings.n_itc.smoothing / right.shape[1]
        loss = partial(n_itc, targets=right, scale=scale, alpha=given.alpha, weights=weights)
        _add_n_itc(sums, features, loss, settings, shard)
    if settings.r_itc.weight > 0:
        r = settings.r_itc
        divergence = r_itc(image, text, targets, scale, r.eps, labels=r.labels, gathered=everyone, weights=weights)
        sums.add("r_itc", r.weight, divergence)
    if settings.c_itc.weight > 0:
        c = settings.c_itc
        sums.add("c_itc", c.weight, c_itc(image, text, c.in_modal, c.cross_modal, variant=c.variant, gathered=everyone))
    if settings.tal.weight > 0:
        t = settings.tal
        alignment = tal(image, text, columns, t.temperature, t.margin, gathered=everyone, row_start=start, weights=weights)
        sums.add("tal", t.weight, alignment)
    if settings.sdm.weight > 0:
        matching = sdm(image, text, columns, settings.sdm.scale, gathered=everyone, row_start=start, weights=weights)
        sums.add("sdm", settings.sdm.weight, matching)
    if settings.distill.weight > 0:
        assert features.teacher_image is not None and features.teacher_text is not None
        teacher = _source(features.teacher_image, features.teacher_text, shard)
        sums.add("distill", settings.distill.weight, distill(image, text, teacher, settings.distill.scale, gathered=everyone))


def _source(one: Tensor, two: Tensor, shard: _Shard) -> SoftSource:
    """Embeddings of another pass, as the losses take them."""
    return shard.rows(one), shard.rows(two), shard.columns(one, two)


def _add_n_itc(sums: "_Sum", features: Features, loss: Callable[..., Tensor], settings: LossSettings, shard: _Shard) -> None:
    """N-ITC, and with MVS its mean with N-ITC of the second view(s), each softened by its own views."""

    def between(image: Tensor, text: Tensor, calm_image: Tensor | None, calm_text: Tensor | None) -> Tensor:
        soft = None if calm_image is None or calm_text is None else _source(calm_image, calm_text, shard)
        return loss(shard.rows(image), shard.rows(text), gathered=shard.columns(image, text), soft_from=soft)

    first = between(features.image, features.text, features.calm_image, features.calm_text)
    weight = settings.n_itc.weight
    if settings.mvs.views == "off":
        sums.add("n_itc", weight, first)
        return
    image, calm_image, text, calm_text = features.image, features.calm_image, features.text, features.calm_text
    if settings.second_image:
        image, calm_image = _second(features.image_second), features.calm_image_second
    if settings.second_text_in_mvs:
        text, calm_text = _second(features.text_second), features.calm_text_second
    sums.add("n_itc", weight / 2, first)
    sums.add("mvs", weight / 2, between(image, text, calm_image, calm_text))


def _second(view: Tensor | None) -> Tensor:
    assert view is not None
    return view


def _add_ss(sums: "_Sum", features: Features, heads: Heads, settings: LossSettings, shard: _Shard) -> None:
    ss = settings.ss

    def between(head: ProjectionHead | None, one: Tensor | None, two: Tensor | None) -> Tensor:
        assert head is not None and one is not None and two is not None
        one, two = head(one), head(two)
        everyone, start = shard.columns(one, two), shard.start(len(one))
        return nt_xent(shard.rows(one), shard.rows(two), ss.temperature, gathered=everyone, row_start=start)

    if settings.ss_image:
        sums.add("ss_i", ss.weight, between(heads.image_projection, features.strong_one, features.strong_two))
    if settings.ss_text:
        sums.add("ss_t", ss.weight, between(heads.text_projection, features.text, features.text_second))


def _own_columns(targets: Tensor, start: int) -> Tensor:
    """(n, N) like `targets`, with 1 at each row's own column; that of the first is `start`."""
    own = torch.zeros_like(targets)
    here = torch.arange(len(own), device=own.device)
    own[here, start + here] = 1
    return own


def _mean(parts: "list[_Sum]") -> "_Sum":
    """Of the losses of several shards."""
    whole = _Sum()
    for name, (weight, _) in parts[0].parts.items():
        whole.add(name, weight, torch.stack([sums.parts[name][1] for sums in parts]).mean())
    return whole


class _Sum:
    """Weighted terms added up. `parts`: weight and term by name."""

    def __init__(self) -> None:
        self.parts: dict[str, tuple[float, Tensor]] = {}

    def add(self, name: str, weight: float, term: Tensor) -> None:
        self.parts[name] = (weight, term)

    def losses(self, like: Tensor) -> Losses:
        zero = like.new_zeros((), dtype=torch.float64 if like.dtype == torch.float64 else torch.float32)
        total = sum((weight * term for weight, term in self.parts.values()), zero)
        return Losses(total, {name: term.detach() for name, (_, term) in self.parts.items()})
