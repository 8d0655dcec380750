"""Weights and details of every loss. A loss of weight 0 is not computed, and its views are not encoded."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from tbps.config import Settings

Modalities = Literal["image", "text", "both"]


class NItcSettings(Settings):
    """N-ITC, the contrastive loss of the paper, and its soft labels (paper: trick 4)."""

    weight: float = Field(1.0, ge=0)
    """Weight of N-ITC and MVS together."""
    labels: Literal["identity", "pair"] = "identity"
    """Positive columns of a row: "identity", all of the row's identity (N-ITC); "pair", only its own (CLIP's ITC)."""
    smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of the target that is spread evenly over all columns (label smoothing)."""
    soft_label: float = Field(0.5, ge=0, le=1)
    """Share alpha of the model's own softmax in the targets of N-ITC and MVS, reached after the first epoch."""
    soft_pass: Literal["reuse", "separate"] = "reuse"
    """Embeddings for this softmax: "reuse", those of the step; "separate", those of a second pass without gradients.

    The reference makes the second pass, which differs by the text tower's dropout mask only. In both cases the second view of MVS
    uses the softmax of its own embeddings.
    """


class MvsSettings(Settings):
    """Multi-view supervision: N-ITC is also computed on second augmented views; the loss is the mean of both."""

    views: Literal["off", "image", "text", "both"] = "off"
    """Modalities that get a second augmented view."""


class SsSettings(Settings):
    """Self-supervision: NT-Xent between two views of one modality, after a projection head."""

    weight: float = Field(0.0, ge=0)
    """Weight of the loss, per modality."""
    views: Modalities = "image"
    """Modalities whose views are compared."""
    temperature: float = Field(0.1, gt=0)
    """Temperature of the softmax over the other views."""


class RItcSettings(Settings):
    """R-ITC, the reversed Kullback-Leibler divergence."""

    weight: float = Field(1.0, ge=0)
    """Weight of the loss."""
    eps: float = Field(1e-2, gt=0)
    """Number added to every label, which keeps its logarithm finite."""
    labels: Literal["reference", "normalised"] = "reference"
    """Labels after adding eps: "reference" leaves them as published, "normalised" divides them by their sum."""


class CItcSettings(Settings):
    """C-ITC, cyclic consistency of similarities."""

    weight: float = Field(0.0, ge=0)
    """Weight of the loss."""
    in_modal: float = Field(0.25, ge=0)
    """Weight of image-to-image against text-to-text similarities."""
    cross_modal: float = Field(0.25, ge=0)
    """Weight of image-to-text against text-to-image similarities."""
    variant: Literal["reference", "paper"] = "reference"
    """Form of the loss: "reference", the mean over pairs with both weights; "paper", the printed formula without weights."""


class SdmSettings(Settings):
    """SDM, IRRA's similarity-distribution matching."""

    weight: float = Field(0.0, ge=0)
    """Weight of the loss."""
    scale: float = Field(50.0, gt=0)
    """Factor of the cosines in the softmax, 1 / temperature."""


class TalSettings(Settings):
    """TAL, RDE's triplet alignment loss, which is robust to wrong captions."""

    weight: float = Field(0.0, ge=0)
    """Weight of the loss."""
    temperature: float = Field(0.015, gt=0)
    """Temperature of the log-sum-exp over the negatives; the consensus division uses it too."""
    margin: float = Field(0.1, ge=0)
    """Distance in cosine that the positive must keep from the negatives."""


class IdSettings(Settings):
    """Identity classification of both embeddings."""

    weight: float = Field(0.0, ge=0)
    """Weight of the loss."""


class MlmSettings(Settings):
    """Masked language modelling: the cross-modal encoder predicts masked words from caption and image."""

    earlier: ClassVar[Mapping[str, Any]] = {"padding": "batch"}

    padding: Literal["masked", "context", "batch"] = "masked"
    """Padding of captions in the encoder: "masked", attention ignores it; "context", as in IRRA; "batch", as in version 0.1.

    With "masked" a caption's loss does not depend on the other captions of its batch. With "context" every caption is padded with
    token 0 to the model's context length. With "batch" captions are padded to the longest one of the batch, and attention includes
    the padding.
    """
    weight: float = Field(0.0, ge=0)
    """Weight of the loss."""
    probability: float = Field(0.15, gt=0, lt=1)
    """Probability that a word is masked."""


class DistillSettings(Settings):
    """Distillation: the pruned model (`prune`) learns the similarities of the whole start model."""

    weight: float = Field(0.0, ge=0)
    """Weight of the loss."""
    scale: float = Field(50.0, gt=0)
    """Factor of the cosines of both models in the softmax, 1 / temperature."""


class LossSettings(Settings):
    """Weights and details of the losses; the defaults are the simplified TBPS-CLIP."""

    earlier: ClassVar[Mapping[str, Any]] = {"shards": 1}

    global_gradients: bool = True
    """Whether gradients flow into the embeddings of other devices (paper: trick 1); if not, those are constants."""
    shards: int = Field(1, ge=1)
    """Without global gradients: number of devices to imitate; each process computes the losses of an equal part of them."""
    n_itc: NItcSettings = NItcSettings()
    """Normalised image-text contrastive loss."""
    mvs: MvsSettings = MvsSettings()
    """Multi-view supervision."""
    ss: SsSettings = SsSettings()
    """Self-supervision."""
    r_itc: RItcSettings = RItcSettings()
    """Reversed image-text contrastive loss."""
    c_itc: CItcSettings = CItcSettings()
    """Cyclic image-text contrastive loss."""
    sdm: SdmSettings = SdmSettings()
    """Similarity-distribution matching."""
    tal: TalSettings = TalSettings()
    """Triplet alignment loss."""
    id: IdSettings = IdSettings()
    """Identity classification."""
    mlm: MlmSettings = MlmSettings()
    """Masked language modelling."""
    distill: DistillSettings = DistillSettings()
    """Distillation."""

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
