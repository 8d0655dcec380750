"""Losses between the image and the text of a pair: ITC, N-ITC, R-ITC, SDM and TAL.

The losses of the paper (arXiv 2308.10045), of IRRA (SDM) and of RDE (TAL):

    N-ITC  -1/(2N) sum_ij [t_ij log p_ij + t_ji log p_ji],  t = alpha p (without gradient) + (1 - alpha) q^
    ITC    N-ITC with q^_ij = 1 for i = j, else 0, and alpha = 0
    R-ITC  1/2 [KL(p_i2t || q^ + eps) + KL(p_t2i || q^ + eps)]
    SDM    KL(p_i2t || q^ + 1e-8) + KL(p_t2i || q^ + 1e-8)
    TAL    [m - s+_i + tau log sum_{j of other identities} exp(s_ij / tau)]_+, both directions added

KL divergences and TAL are averaged over rows. Symbols of the paper and names in the code:

    N         pairs of the whole batch; n of them are rows of this process (n = N without `gathered`)
    f_I, f_T  `image`, `text` (n, D): embeddings of the pairs, normalised inside
    s_ij      cosine of row i and column j
    tau       temperature; `scale` = 1 / tau multiplies the cosines (TAL takes `temperature` = tau)
    p_ij      softmax_j(f_I_i . f_T_j / tau): row i of the image-to-text direction, p_i2t
    p_ji      softmax_j(f_T_i . f_I_j / tau): row i of the text-to-image direction, p_t2i
    q^_ij     `targets` (n, N): identity-normalised label of row i and column j, see `targets.identity_targets`
    alpha     share of the model's own softmax in the targets (soft labels)
    m         `margin`

A row is the query of its direction, so row i of `targets` belongs to image i and to text i. `weights` (n,) multiply the terms of
row i in both directions; the mean is still over all rows. A pair of weight 0 is not a query, but remains a column of other rows.
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
"""Number that keeps log(q^ + eps) finite for other identities; the value in IRRA's code."""


def itc(
    image: Float[Tensor, "n D"],
    text: Float[Tensor, "n D"],
    scale: Float[Tensor, ""] | float,
    *,
    gathered: tuple[Float[Tensor, "N D"], Float[Tensor, "N D"]] | None = None,
    row_start: int | None = None,
) -> Float[Tensor, ""]:
    """CLIP's contrastive loss: N-ITC with the pair itself as the only positive column.

    row_start: column of the first local row among the gathered ones; None searches for it (`similarity.find_rows`).
    """
    start = find_rows(image, text, gathered, row_start)
    columns = len(image) if gathered is None else len(gathered[0])
    pairs = torch.eye(columns, device=image.device)[start : start + len(image)]
    return n_itc(image, text, pairs, scale, gathered=gathered)


def n_itc(  # noqa: PLR0913 - symbols of the formula, and the gathered columns
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
    """Normalised contrastive loss: -1/(2N) sum_ij [t_ij log p_ij + t_ji log p_ji], t = alpha p (detached) + (1 - alpha) q^.

    soft_from: image, text and gathered embeddings of another pass over the same pairs, whose softmax is p in the targets t.
    """
    loss = image.new_zeros((), dtype=torch.float32)
    own = directions(unit_sides(image, text, gathered), scale)
    soft = own if soft_from is None else directions(unit_sides(*soft_from), scale)
    for logits, softening in zip(own, soft, strict=True):
        _check_targets(targets, logits)
        labels = soften(targets, softening, alpha)
        loss = loss - _mean((labels * logits.log_softmax(dim=1)).sum(dim=1), weights) / 2
    return loss


def r_itc(  # noqa: PLR0913 - symbols of the formula, and the gathered columns
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
    """Reversed contrastive loss: 1/2 [KL(p_i2t || c) + KL(p_t2i || c)], averaged over rows.

    labels: "reference" for c = q^ + eps, whose rows sum to 1 + N eps, so that the minimum of the loss is -log(1 + N eps);
    "normalised" for c = (q^ + eps) / (1 + N eps), a true divergence with minimum 0. The two differ by a constant and have the same
    gradient.

    With both, the optimal p is (q^ + eps) / (1 + N eps), which assigns only (1 + eps) / (1 + N eps) to the positive column (24 %
    for N = 320 and distinct identities). From N = 97 on, uniform p has a lower loss than p with all mass on the pair. A smaller
    eps, well below 1 / N, avoids that; keep N eps constant when the batch grows. Soft labels (alpha of `n_itc`) are not used.
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


def sdm(  # noqa: PLR0913 - symbols of the formula, and the gathered columns
    image: Float[Tensor, "n D"],
    text: Float[Tensor, "n D"],
    ids: Int[Tensor, " N"] | Int[Tensor, "N 2"],
    scale: Float[Tensor, ""] | float = 50.0,
    *,
    gathered: tuple[Float[Tensor, "N D"], Float[Tensor, "N D"]] | None = None,
    row_start: int | None = None,
    weights: Float[Tensor, " n"] | None = None,
) -> Float[Tensor, ""]:
    """Similarity-distribution matching (IRRA): KL(p_i2t || q^ + 1e-8) + KL(p_t2i || q^ + 1e-8), averaged over rows.

    ids: identities of all N columns (gathered, if `gathered` is given); two each for mixed pairs, see `targets.identity_targets`.
    row_start as in `itc`.
    Source: Jiang and Ye, "Cross-Modal Implicit Relation Reasoning and Aligning", CVPR 2023; the sum of both directions.
    """
    start = find_rows(image, text, gathered, row_start)
    i2t, t2i = directions(unit_sides(image, text, gathered), scale)
    ids = torch.as_tensor(ids, device=i2t.device)
    if len(ids) != i2t.shape[1]:
        raise ValueError(f"sdm needs the identities of all {i2t.shape[1]} columns, not {tuple(ids.shape)}")
    wanted = identity_targets(ids[start : start + len(image)], ids).to(i2t.dtype) + SDM_EPS
    return _divergence(i2t, wanted, weights) + _divergence(t2i, wanted, weights)


def tal(  # noqa: PLR0913 - symbols of the formula, and the gathered columns
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
    """Triplet alignment loss: [m - s+ + tau log sum_{other identities j} exp(s_ij / tau)]_+, both directions added, mean over rows.

    s+ is the mean similarity to the columns of the row's identity, weighted by softmax(s / tau) over them without gradient. The
    loss is an upper bound of the triplet loss with the hardest negative, but depends on all negatives. It is 0 for a row without
    other identities. ids: as in `sdm`.

    Source: Qin et al., "Noisy-Correspondence Learning for Text-to-Image Person Re-identification", CVPR 2024.
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
    """1/n sum_i w_i rows_i; the mean is over all rows, not over the sum of the weights."""
    return rows.mean() if weights is None else (weights.to(rows.dtype) * rows).mean()


def _check_targets(targets: Tensor, logits: Tensor) -> None:
    if targets.shape != logits.shape:
        raise ValueError(
            f"targets {tuple(targets.shape)} need one row per local pair and one column per pair: {tuple(logits.shape)}"
        )
