"""Total loss of a global batch: the weighted sum of all enabled losses, averaged over shards."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor
from torch.profiler import record_function

from tbps.distributed import gather
from tbps.losses import c_itc, distill, id_loss, identity_targets, n_itc, nt_xent, r_itc, sdm, tal
from tbps.losses.contrastive import SoftSource
from tbps.model.heads import Heads, ProjectionHead, label_of
from tbps.training.objective.features import Features, Labels
from tbps.training.objective.settings import LossSettings
from tbps.training.objective.shards import Shard, shards_of


@dataclass(frozen=True, slots=True)
class Losses:
    """Total loss (a scalar with gradient), and every unweighted term, detached, by name."""

    total: Tensor
    terms: Mapping[str, Tensor]


def objective(
    features: Features,
    labels: Labels,
    scale: Float[Tensor, ""],
    alpha: float,
    heads: Heads,
    settings: LossSettings,
) -> Losses:
    """Compute the total loss of the global batch. `alpha`: share of the soft labels at this step. `scale`: 1 / temperature."""
    with record_function("tbps: losses"):
        shards = shards_of(len(features.image), settings)
        parts = [_of_shard(_Given(features, labels, scale, alpha, settings, shard), heads) for shard in shards]
        whole = parts[0] if len(parts) == 1 else _mean(parts)
        if features.mlm is not None:
            whole.add("mlm", settings.mlm.weight, features.mlm)
        return whole.losses(features.image)


class _Sum:
    """Sum of weighted terms. `parts`: weight and term by name."""

    def __init__(self) -> None:
        self.parts: dict[str, tuple[float, Tensor]] = {}

    def add(self, name: str, weight: float, term: Tensor) -> None:
        self.parts[name] = (weight, term)

    def losses(self, like: Tensor) -> Losses:
        zero = like.new_zeros((), dtype=torch.float64 if like.dtype == torch.float64 else torch.float32)
        total = sum((weight * term for weight, term in self.parts.values()), zero)
        return Losses(total, {name: term.detach() for name, (_, term) in self.parts.items()})


@dataclass(frozen=True, slots=True)
class _Given:
    """Arguments of the losses of one shard."""

    features: Features
    labels: Labels
    scale: Tensor
    alpha: float
    settings: LossSettings
    shard: Shard

    def other_pass(self, one: Tensor, two: Tensor) -> SoftSource:
        """Embeddings of another pass or model, in the form expected by the losses."""
        return self.shard.rows(one), self.shard.rows(two), self.shard.columns(one, two)


def _of_shard(given: _Given, heads: Heads) -> _Sum:
    sums = _Sum()
    _add_cross_modal(sums, given)
    _add_ss(sums, given, heads)
    features, labels, settings, shard = given.features, given.labels, given.settings, given.shard
    if settings.id.weight > 0:
        assert heads.classifier is not None and labels.known is not None
        wanted = label_of(shard.rows(labels.people), labels.known)
        logits = [heads.classifier(shard.rows(side)) for side in (features.image, features.text)]
        sums.add("id", settings.id.weight, id_loss(logits[0], logits[1], wanted))
    return sums


def _add_cross_modal(sums: _Sum, given: _Given) -> None:
    """Add the losses between image and text: N-ITC with MVS, R-ITC, C-ITC, TAL, SDM and distillation."""
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
        _add_n_itc(sums, given, partial(n_itc, targets=right, scale=scale, alpha=given.alpha, weights=weights))
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
        teacher = given.other_pass(_present(features.teacher_image), _present(features.teacher_text))
        sums.add("distill", settings.distill.weight, distill(image, text, teacher, settings.distill.scale, gathered=everyone))


def _add_n_itc(sums: _Sum, given: _Given, loss: Callable[..., Tensor]) -> None:
    """Add N-ITC; with MVS, the mean of N-ITC on the first and on the second views, each with the soft labels of its own views."""
    features, settings, shard = given.features, given.settings, given.shard

    def between(image: Tensor, text: Tensor, calm_image: Tensor | None, calm_text: Tensor | None) -> Tensor:
        soft = None if calm_image is None or calm_text is None else given.other_pass(calm_image, calm_text)
        return loss(shard.rows(image), shard.rows(text), gathered=shard.columns(image, text), soft_from=soft)

    first = between(features.image, features.text, features.calm_image, features.calm_text)
    weight = settings.n_itc.weight
    if settings.mvs.views == "off":
        sums.add("n_itc", weight, first)
        return
    image, calm_image, text, calm_text = features.image, features.calm_image, features.text, features.calm_text
    if settings.second_image:
        image, calm_image = _present(features.image_second), features.calm_image_second
    if settings.second_text_in_mvs:
        text, calm_text = _present(features.text_second), features.calm_text_second
    sums.add("n_itc", weight / 2, first)
    sums.add("mvs", weight / 2, between(image, text, calm_image, calm_text))


def _add_ss(sums: _Sum, given: _Given, heads: Heads) -> None:
    """Add NT-Xent between two views of the images, and between two views of the captions."""
    features, settings, shard = given.features, given.settings, given.shard

    def between(head: ProjectionHead | None, one: Tensor | None, two: Tensor | None) -> Tensor:
        assert head is not None
        one, two = head(_present(one)), head(_present(two))
        everyone, start = shard.columns(one, two), shard.start(len(one))
        return nt_xent(shard.rows(one), shard.rows(two), settings.ss.temperature, gathered=everyone, row_start=start)

    if settings.ss_image:
        sums.add("ss_i", settings.ss.weight, between(heads.image_projection, features.strong_one, features.strong_two))
    if settings.ss_text:
        sums.add("ss_t", settings.ss.weight, between(heads.text_projection, features.text, features.text_second))


def _present(view: Tensor | None) -> Tensor:
    """Check that a view exists. The settings require it, so it has been encoded."""
    assert view is not None
    return view


def _own_columns(targets: Tensor, start: int) -> Tensor:
    """Make a matrix (n, N) like `targets`, with 1 at each row's own column and 0 elsewhere; `start`: column of the first row."""
    own = torch.zeros_like(targets)
    here = torch.arange(len(own), device=own.device)
    own[here, start + here] = 1
    return own


def _mean(parts: list[_Sum]) -> _Sum:
    """Average the losses of several shards."""
    whole = _Sum()
    for name, (weight, _) in parts[0].parts.items():
        whole.add(name, weight, torch.stack([sums.parts[name][1] for sums in parts]).mean())
    return whole
