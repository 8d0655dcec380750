"""Which training pairs to believe: the consensus division of RDE.

Before an epoch every pair is encoded as it is, its loss is taken twice, and a mixture of two Gaussians splits each list of losses
into a low half (the caption fits) and a high one. Where both opinions agree, that is the pair's label for the epoch; where they
do not, it is drawn. A pair of label 0 does not pull its image and its caption together (`objective.Labels.weights`).

Source: Qin et al., "Noisy-Correspondence Learning for Text-to-Image Person Re-identification", CVPR 2024. What differs:

- RDE asks two embeddings, the global one and that of selected tokens. Here there is one embedding, and the opinions are its two
  directions: does the image find this caption among others, and the caption this image? They compare with different columns.
  Two losses of one direction (TAL and N-ITC, say) rise with the same difference of similarities: that is one opinion twice.
- RDE's loss of a pair counts every caption of the identity as right, so that a right one in the batch covers for the wrong one;
  and it ends at 0, where many pairs meet in a peak that is no Gaussian. Here only the pair's own similarity counts, and there is
  no floor. docs/decisions/training.md has the figures.
- RDE encodes augmented images and, where no pair is noisy, calls a hundredth of them so. Neither happens here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int, UInt8
from pydantic import Field
from torch import Tensor

from tbps.config import Settings
from tbps.data.records import PersonDataset
from tbps.distributed import rank, total, world_size
from tbps.errors import SettingsError
from tbps.losses.similarity import directions, unit_sides
from tbps.losses.targets import share_identity
from tbps.model.bundle import PersonModel
from tbps.optional import needed

OnProgress = Callable[[int, int], None]

# Encoded at a time. The rounding of an embedding depends on it, so it must not depend on the number of processes.
_IMAGES, _CAPTIONS = 128, 256


class DivisionSettings(Settings):
    """Every epoch after the first `warmup_epochs` begins with a division; `threshold`: a clean pair's least probability.

    A model must tell people apart before it can judge captions: `warmup_epochs=0` is for a start model that does. A mixture always
    finds two halves, so on data without wrong captions this throws right ones away.
    """

    enabled: bool = False
    warmup_epochs: int = Field(1, ge=0)
    threshold: float = Field(0.5, gt=0, lt=1)


@dataclass(frozen=True, slots=True)
class Division:
    """`believed`: the label of every pair; `clean` and `noisy` count what both opinions call so, `disputed` the rest."""

    believed: Bool[np.ndarray, " pairs"]
    clean: int
    noisy: int
    disputed: int


def pair_losses(
    image: Float[Tensor, "n D"], text: Float[Tensor, "n D"], ids: Int[Tensor, " n"], temperature: float
) -> Float[Tensor, "n 2"]:
    """tau log sum_{other identities j} exp(s_ij / tau) - s_ii of every pair i: image among texts, and text among images.

    TAL (`losses.tal`) of a pair by itself, without margin and floor; -1 in place of the logarithm where there is no other identity.
    """
    same = share_identity(ids, ids)
    opinions = []
    for similarities in directions(unit_sides(image, text, None), 1.0):
        others = (similarities / temperature).masked_fill(same, float("-inf"))
        opinions.append((temperature * others.logsumexp(dim=1)).clamp(min=-1) - similarities.diagonal())
    return torch.stack(opinions, dim=1)


def losses_in_groups(
    image: Float[Tensor, "pairs D"],
    text: Float[Tensor, "pairs D"],
    ids: Int[Tensor, " pairs"],
    temperature: float,
    size: int,
    stream: np.random.Generator,
) -> Float64[np.ndarray, "pairs 2"]:
    """`pair_losses` of all pairs in random groups of `size`, or a few more where that does not divide them evenly."""
    losses = np.empty((len(ids), 2))
    for group in np.array_split(stream.permutation(len(ids)), max(1, len(ids) // size)):
        rows = torch.from_numpy(group).to(image.device)
        losses[group] = pair_losses(image[rows], text[rows], ids[rows], temperature).cpu().numpy()
    return losses


def consensus(losses: Float64[np.ndarray, "pairs 2"], threshold: float, stream: np.random.Generator) -> Division:
    """Believes what both opinions call clean, half of what is in dispute, and nothing that both call noisy."""
    seed = int(stream.integers(2**31))
    one, other = (clean_probability(opinion, seed) > threshold for opinion in losses.T)
    drawn = stream.integers(2, size=len(losses)) == 1
    agreed = one == other
    return Division(
        believed=np.where(agreed, one, drawn),
        clean=int((one & other).sum()),
        noisy=int((agreed & ~one).sum()),
        disputed=int((~agreed).sum()),
    )


def clean_probability(losses: Float64[np.ndarray, " pairs"], seed: int) -> Float64[np.ndarray, " pairs"]:
    """Posterior of the lower of two Gaussians fitted to the losses, scaled to [0, 1]; 1 for all where all losses are equal.

    `seed`: of the k-means that the fit starts from. The fit's settings are RDE's for much noise: its looser ones, for little, keep
    Gaussians at least 2 % of the losses' range wide.
    """
    low, high = losses.min(), losses.max()
    if not np.isfinite([low, high]).all():
        raise SettingsError("the training pairs have embeddings that are not finite; lower schedule.peak_rate")
    if low == high:
        return np.ones(len(losses))
    scaled = ((losses - low) / (high - low))[:, None]
    mixture = gaussian_mixture()(2, max_iter=100, tol=1e-4, reg_covar=1e-6, random_state=seed).fit(scaled)
    found: np.ndarray = mixture.predict_proba(scaled)[:, mixture.means_[:, 0].argmin()]
    return found


def gaussian_mixture() -> Any:
    """scikit-learn's `GaussianMixture`. Raises MissingDependencyError where the package is absent."""
    return needed("sklearn.mixture", "division.enabled", "robust").GaussianMixture


@torch.no_grad()
def embed_pairs(
    model: PersonModel, split: PersonDataset, images: UInt8[np.ndarray, "N H W 3"], on_progress: OnProgress
) -> tuple[Float[Tensor, "pairs D"], Float[Tensor, "pairs D"]]:
    """Unit rows of image and caption of every pair, in the order of `split.pairs()`; nothing is augmented.

    `images[i]` shows `split.images[i]`. The processes share the work, and each gets all. `on_progress` counts images and captions.
    """
    pairs = split.pairs()
    captions = [split.images[pair.image].captions[pair.caption] for pair in pairs]
    by_length = np.argsort([len(caption) for caption in captions], kind="stable")
    first, steps = len(images), len(images) + len(pairs)
    image = _encoded(
        np.arange(first), _IMAGES, model, lambda rows: model.encode_arrays(images[rows]), lambda done: on_progress(done, steps)
    )
    text = _encoded(
        by_length,
        _CAPTIONS,
        model,
        lambda rows: model.encode_texts([captions[row] for row in rows], _CAPTIONS),
        lambda done: on_progress(first + done, steps),
    )
    return image[torch.tensor([pair.image for pair in pairs], device=model.device)], text


def _encoded(
    order: np.ndarray,
    size: int,
    model: PersonModel,
    encode: Callable[[np.ndarray], np.ndarray],
    on_done: Callable[[int], None],
) -> Tensor:
    """Row i is what `encode` makes of i; every process encodes its share of the chunks of `order`, and zeros are added up."""
    rows = torch.zeros(len(order), model.dim, device=model.device)
    for number, start in enumerate(range(0, len(order), size)):
        if number % world_size() == rank():
            chunk = order[start : start + size]
            rows[torch.from_numpy(chunk).to(model.device)] = torch.from_numpy(encode(chunk)).to(model.device)
            on_done(start + len(chunk))
    on_done(len(order))
    return total(rows)
