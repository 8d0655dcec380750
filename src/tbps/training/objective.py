"""The one place where views, losses and weights meet.

What a batch is encoded to (`Features`) and what the losses make of it. Which views a step needs follows from the losses that are
on (`LossSettings.second_image` and its neighbours): nothing is encoded, and nothing computed, for a loss of weight 0.

Global gradients (paper: trick 1): similarities are taken between the local rows and the columns of all processes, with gradients
through the gather, so that the mean of the processes' gradients is the gradient of the loss over the whole global batch.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from tbps.config import Settings
from tbps.distributed import gather, gather_with_gradient, rank, world_size
from tbps.losses import c_itc, distill, id_loss, identity_targets, n_itc, nt_xent, r_itc, sdm, tal
from tbps.model.heads import Heads, ProjectionHead, label_of

Modalities = Literal["image", "text", "both"]


class NItcSettings(Settings):
    """`labels`: "identity" makes every column of the row's identity right (N-ITC), "pair" only its own (CLIP's ITC).

    `smoothing`: share of the target that is spread over all columns alike.
    `soft_label`: share alpha of the model's own softmax in the targets of this loss and of MVS after its ramp (paper: trick 4).
    `soft_pass`: "reuse" takes that softmax from the step's own embeddings; "separate" runs both towers once more without
    gradients, as the reference does, which differs by the dropout mask of the text tower only.
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
    """Masked words predicted from caption and image by the cross-modal encoder."""

    weight: float = Field(0.0, ge=0)
    probability: float = Field(0.15, gt=0, lt=1)


class DistillSettings(Settings):
    """The similarities of a teacher, the start model before it is pruned (`TrainSettings.prune`)."""

    weight: float = Field(0.0, ge=0)
    scale: float = Field(50.0, gt=0)


class LossSettings(Settings):
    """Weights and details of the losses; the defaults are the simplified TBPS-CLIP. A loss of weight 0 is not computed.

    `global_gradients` (paper: trick 1): without them the columns of other processes are constants. On one process there are none.
    """

    global_gradients: bool = True
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
    def second_text(self) -> bool:
        """Whether a second augmented view of every caption is encoded."""
        return (self.n_itc.weight > 0 and self.mvs.views in ("text", "both")) or self.ss_text

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
    gradients for "separate" soft labels; `teacher_*`: the teacher's embeddings of the first views. `mlm`: the MLM loss of these
    pairs, which needs tokens, not embeddings.
    """

    image: Float[Tensor, "n D"]
    text: Float[Tensor, "n D"]
    image_second: Float[Tensor, "n D"] | None = None
    text_second: Float[Tensor, "n D"] | None = None
    strong_one: Float[Tensor, "n D"] | None = None
    strong_two: Float[Tensor, "n D"] | None = None
    calm_image: Float[Tensor, "n D"] | None = None
    calm_text: Float[Tensor, "n D"] | None = None
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


def objective(
    features: Features,
    labels: Labels,
    scale: Float[Tensor, ""],
    alpha: float,
    heads: Heads,
    settings: LossSettings,
) -> Losses:
    """The loss of the global batch. `alpha`: the soft labels' share at this step; `scale`: 1 / temperature."""
    sums = _Sum()
    columns = gather(labels.people)
    targets = identity_targets(labels.people, columns)
    image, text, weights = features.image, features.text, labels.weights
    everyone = _everyone(image, text, settings)
    if settings.n_itc.weight > 0:
        right = targets if settings.n_itc.labels == "identity" else _own_columns(targets)
        if settings.n_itc.smoothing > 0:
            right = (1 - settings.n_itc.smoothing) * right + settings.n_itc.smoothing / right.shape[1]
        _add_n_itc(sums, features, partial(n_itc, targets=right, scale=scale, alpha=alpha, weights=weights), settings)
    if settings.r_itc.weight > 0:
        r = settings.r_itc
        divergence = r_itc(image, text, targets, scale, r.eps, labels=r.labels, gathered=everyone, weights=weights)
        sums.add("r_itc", r.weight, divergence)
    if settings.c_itc.weight > 0:
        c = settings.c_itc
        sums.add("c_itc", c.weight, c_itc(image, text, c.in_modal, c.cross_modal, variant=c.variant, gathered=everyone))
    start = None if everyone is None else rank() * len(image)
    if settings.tal.weight > 0:
        t = settings.tal
        alignment = tal(image, text, columns, t.temperature, t.margin, gathered=everyone, row_start=start, weights=weights)
        sums.add("tal", t.weight, alignment)
    if settings.sdm.weight > 0:
        matching = sdm(image, text, columns, settings.sdm.scale, gathered=everyone, row_start=start, weights=weights)
        sums.add("sdm", settings.sdm.weight, matching)
    if settings.distill.weight > 0:
        assert features.teacher_image is not None and features.teacher_text is not None
        seen = (features.teacher_image, features.teacher_text)
        teacher = (*seen, _everyone(*seen, settings))
        sums.add("distill", settings.distill.weight, distill(image, text, teacher, settings.distill.scale, gathered=everyone))
    _add_ss(sums, features, heads, settings)
    if settings.id.weight > 0:
        assert heads.classifier is not None and labels.known is not None
        wanted = label_of(labels.people, labels.known)
        sums.add("id", settings.id.weight, id_loss(heads.classifier(image), heads.classifier(text), wanted))
    if features.mlm is not None:
        sums.add("mlm", settings.mlm.weight, features.mlm)
    return sums.losses(image)


def _add_n_itc(sums: "_Sum", features: Features, loss: Callable[..., Tensor], settings: LossSettings) -> None:
    """N-ITC, and with MVS its mean with N-ITC of the second view(s)."""
    calm = None if features.calm_image is None or features.calm_text is None else (features.calm_image, features.calm_text)

    def between(image: Tensor, text: Tensor) -> Tensor:
        soft = None if calm is None else (*calm, _everyone(*calm, settings))
        return loss(image, text, gathered=_everyone(image, text, settings), soft_from=soft)

    first = between(features.image, features.text)
    weight = settings.n_itc.weight
    if settings.mvs.views == "off":
        sums.add("n_itc", weight, first)
        return
    second_image = features.image_second if settings.second_image else features.image
    second_text = features.text_second if settings.mvs.views in ("text", "both") else features.text
    assert second_image is not None and second_text is not None
    sums.add("n_itc", weight / 2, first)
    sums.add("mvs", weight / 2, between(second_image, second_text))


def _add_ss(sums: "_Sum", features: Features, heads: Heads, settings: LossSettings) -> None:
    ss = settings.ss

    def between(head: ProjectionHead | None, one: Tensor | None, two: Tensor | None) -> Tensor:
        assert head is not None and one is not None and two is not None
        one, two = head(one), head(two)
        everyone = _everyone(one, two, settings)
        return nt_xent(one, two, ss.temperature, gathered=everyone, row_start=rank() * len(one) if everyone else None)

    if settings.ss_image:
        sums.add("ss_i", ss.weight, between(heads.image_projection, features.strong_one, features.strong_two))
    if settings.ss_text:
        sums.add("ss_t", ss.weight, between(heads.text_projection, features.text, features.text_second))


def _own_columns(targets: Tensor) -> Tensor:
    """(n, N) like `targets`, with 1 at each local pair's own column."""
    own = torch.zeros_like(targets)
    here = torch.arange(len(own), device=own.device)
    own[here, rank() * len(own) + here] = 1
    return own


def _everyone(one: Tensor, two: Tensor, settings: LossSettings) -> tuple[Tensor, Tensor] | None:
    """Both gathered from all processes; None where this process is alone."""
    if world_size() == 1:
        return None
    if settings.global_gradients:
        return gather_with_gradient(one), gather_with_gradient(two)
    return _with_own_gradient(one), _with_own_gradient(two)


def _with_own_gradient(local: Tensor) -> Tensor:
    before, after = rank() * len(local), (rank() + 1) * len(local)
    everyone = gather(local.detach())
    return torch.cat([everyone[:before], local, everyone[after:]])


class _Sum:
    """Weighted terms added up."""

    def __init__(self) -> None:
        self._parts: list[Tensor] = []
        self._terms: dict[str, Tensor] = {}

    def add(self, name: str, weight: float, term: Tensor) -> None:
        self._parts.append(weight * term)
        self._terms[name] = term.detach()

    def losses(self, like: Tensor) -> Losses:
        zero = like.new_zeros((), dtype=torch.float64 if like.dtype == torch.float64 else torch.float32)
        return Losses(sum(self._parts, zero), self._terms)
