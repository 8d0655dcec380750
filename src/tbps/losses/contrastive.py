"""Losses between the image and the text of a pair: ITC, N-ITC, R-ITC, SDM and TAL.

The symbols of the paper (arXiv 2308.10045) and their names here:

    N         pairs of the whole batch; n of them are rows of this process (n = N without `gathered`)
    f_I, f_T  `image`, `text`, (n, D): embeddings of pair i, normalised inside
    tau       temperature; `scale` = 1 / tau = exp(logit_scale) multiplies the cosines
    p_ij      softmax_j(f_I_i . f_T_j * scale): row i of the image-to-text direction
    p_ji      softmax_j(f_T_i . f_I_j * scale): row i of the text-to-image direction
    q^_ij     `targets`, (n, N): identity-normalised label of row i and column j, see `targets.identity_targets`

A row is the query of its direction, so row i of `targets` belongs to image i and to text i alike. `weights` (n,), where given,
multiply what row i adds in both directions; the mean is still over all rows. 0 takes a pair out that is not to be learned from;
its image and its text stay columns of the others.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tbps.errors import SettingsError
from tbps.losses.similarity import directions, find_rows, unit_sides
from tbps.losses.targets import identity_targets, share_identity, soften

SoftSource = tuple[Tensor, Tensor, tuple[Tensor, Tensor] | None]
SDM_EPS = 1e-8
"""Keeps log(q^ + eps) finite for other identities; the value of IRRA's code."""


def itc(
    image: Float[Tensor, "n D"],
    text: Float[Tensor, "n D"],
    scale: Float[Tensor, ""] | float,
    *,
    gathered: tuple[Float[Tensor, "N D"], Float[Tensor, "N D"]] | None = None,
    row_start: int | None = None,
) -> Float[Tensor, ""]:
    """CLIP's loss: N-ITC whose only right column is the pair itself.

    row_start: column of the first local row among the gathered ones; see `similarity.find_rows` for what None does.
    """
    start = find_rows(image, text, gathered, row_start)
    columns = len(image) if gathered is None else len(gathered[0])
    pairs = torch.eye(columns, device=image.device)[start : start + len(image)]
    return n_itc(image, text, pairs, scale, gathered=gathered)


def n_itc(  # noqa: PLR0913 - what the formula holds, plus the columns
    image: Float[Tensor, "n D"],
    text: Float[Tensor, "n D"],
    targets: Float[Tensor, "n N"],
    scale: Float[Tensor, ""] | float,
    alpha: float = 0.0,
    *,
    gathered: tuple[Float[Tensor, "N D"], Float[Tensor, "N D"]] | None = None,
    soft_from: SoftSource | None = None,
    weights: Float[Tensor, " n"] | None = None,
) -> Float[Tensor, ""]:
    """-(1 / 2N) sum_ij [t_ij log p_ij + t_ji log p_ji], t = alpha * p (detached, of that direction) + (1 - alpha) * q^.

    soft_from: image, text and gathered embeddings of another pass over the same pairs, whose p softens the labels.
    """
    loss = image.new_zeros((), dtype=torch.float32)
    own = directions(unit_sides(image, text, gathered), scale)
    soft = own if soft_from is None else directions(unit_sides(*soft_from), scale)
    for logits, softening in zip(own, soft, strict=True):
        _check_targets(targets, logits)
        labels = soften(targets, softening, alpha)
        loss = loss - _mean((labels * logits.log_softmax(dim=1)).sum(dim=1), weights) / 2
    return loss


def r_itc(  # noqa: PLR0913 - what the formula holds, plus the columns
    image: Float[Tensor, "n D"],
    text: Float[Tensor, "n D"],
    targets: Float[Tensor, "n N"],
    scale: Float[Tensor, ""] | float,
    eps: float = 1e-2,
    *,
    gathered: tuple[Float[Tensor, "N D"], Float[Tensor, "N D"]] | None = None,
    labels: Literal["reference", "normalised"] = "reference",
    weights: Float[Tensor, " n"] | None = None,
) -> Float[Tensor, ""]:
    """1/2 [KL(p_i2t || c) + KL(p_t2i || c)], averaged over rows; c = q^ + eps, or c = (q^ + eps) / (1 + N eps) if "normalised".

    The reference labels sum to 1 + N eps, so that the loss goes down to -log(1 + N eps). "normalised" divides them by that
    sum: a true divergence with minimum 0. The two differ by the constant log(1 + N eps) and have the same gradient.

    Under both, the best p is (q^ + eps) / (1 + N eps), which leaves the right columns only (1 + eps) / (1 + N eps) (24 % for
    N = 320 and distinct identities), and from N = 97 on uniform p scores better than all mass on the pair. Only a smaller eps,
    well below 1 / N, sharpens that; keep N * eps constant when the batch grows. Soft labels (alpha of `n_itc`) play no part.
    """
    if not eps > 0.0:
        raise SettingsError(f"eps keeps log(q^ + eps) finite and must be positive, not {eps}")
    if labels not in ("reference", "normalised"):
        raise SettingsError(f'labels are "reference" or "normalised", not {labels!r}')
    i2t, t2i = directions(unit_sides(image, text, gathered), scale)
    _check_targets(targets, i2t)
    wanted = targets.to(i2t.dtype) + eps
    if labels == "normalised":
        wanted = wanted / wanted.sum(dim=1, keepdim=True)
    return (_divergence(i2t, wanted, weights) + _divergence(t2i, wanted, weights)) / 2


def sdm(  # noqa: PLR0913 - what the formula holds, plus the columns
    image: Float[Tensor, "n D"],
    text: Float[Tensor, "n D"],
    ids: Int[Tensor, " N"] | Int[Tensor, "N 2"],
    scale: Float[Tensor, ""] | float = 50.0,
    *,
    gathered: tuple[Float[Tensor, "N D"], Float[Tensor, "N D"]] | None = None,
    row_start: int | None = None,
    weights: Float[Tensor, " n"] | None = None,
) -> Float[Tensor, ""]:
    """IRRA's similarity-distribution matching: KL(p_i2t || q^ + 1e-8) + KL(p_t2i || q^ + 1e-8), averaged over rows.

    ids: identities of all N columns, so gathered too when `gathered` is given; two each where pairs are two in one, see
    `targets.identity_targets`. row_start as in `itc`.
    Source: Jiang and Ye, "Cross-Modal Implicit Relation Reasoning and Aligning", CVPR 2023; the sum of both directions.
    """
    start = find_rows(image, text, gathered, row_start)
    i2t, t2i = directions(unit_sides(image, text, gathered), scale)
    ids = torch.as_tensor(ids, device=i2t.device)
    if len(ids) != i2t.shape[1]:
        raise ValueError(f"sdm needs the identities of all {i2t.shape[1]} columns, not {tuple(ids.shape)}")
    wanted = identity_targets(ids[start : start + len(image)], ids).to(i2t.dtype) + SDM_EPS
    return _divergence(i2t, wanted, weights) + _divergence(t2i, wanted, weights)


def tal(  # noqa: PLR0913 - what the formula holds, plus the columns
    image: Float[Tensor, "n D"],
    text: Float[Tensor, "n D"],
    ids: Int[Tensor, " N"] | Int[Tensor, "N 2"],
    temperature: float = 0.015,
    margin: float = 0.1,
    *,
    gathered: tuple[Float[Tensor, "N D"], Float[Tensor, "N D"]] | None = None,
    row_start: int | None = None,
    weights: Float[Tensor, " n"] | None = None,
) -> Float[Tensor, ""]:
    """Triplet alignment: [margin - s+ + tau log sum_{other identities j} exp(s_ij / tau)]_+, both directions added, mean over rows.

    s+ is the mean similarity to the row's own identity, weighted by softmax(s / tau) over it without gradient. An upper bound of
    the triplet loss with the hardest negative that does not depend on that one alone. 0 for a row without other identities.
    ids: as in `sdm`. Source: Qin et al., "Noisy-Correspondence Learning for Text-to-Image Person Re-identification", CVPR 2024.
    """
    if not temperature > 0.0:
        raise SettingsError(f"temperature must be positive, not {temperature}")
    start = find_rows(image, text, gathered, row_start)
    loss = image.new_zeros((), dtype=torch.float32)
    for similarities in directions(unit_sides(image, text, gathered), 1.0):
        columns = torch.as_tensor(ids, device=similarities.device)
        same = share_identity(columns[start : start + len(image)], columns)
        scaled = similarities / temperature
        shares = scaled.detach().masked_fill(~same, float("-inf")).softmax(dim=1)
        right = (shares * similarities).sum(dim=1)
        wrong = temperature * scaled.masked_fill(same, float("-inf")).logsumexp(dim=1)
        loss = loss + _mean((margin - right + wrong).clamp(min=0), weights)
    return loss


def _divergence(logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
    """Mean over rows of sum_j p_ij log(p_ij / labels_ij), p = softmax(logits)."""
    log_p = logits.log_softmax(dim=1)
    return _mean((log_p.exp() * (log_p - labels.log())).sum(dim=1), weights)


def _mean(rows: Tensor, weights: Tensor | None) -> Tensor:
    """1/n sum_i w_i rows_i: over all rows, whatever the weights."""
    return rows.mean() if weights is None else (weights.to(rows.dtype) * rows).mean()


def _check_targets(targets: Tensor, logits: Tensor) -> None:
    if targets.shape != logits.shape:
        raise ValueError(
            f"targets {tuple(targets.shape)} are not one row a local pair and one column a pair: {tuple(logits.shape)}"
        )
