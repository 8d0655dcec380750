"""Consensus division (RDE): label the training pairs whose caption fits their image.

Before an epoch every pair is encoded without augmentation and gets two losses. A mixture of two Gaussians splits each list of
losses into a low component (the caption fits) and a high one. If both losses agree on a pair, that is its label for the epoch; if
not, the label is drawn at random. A pair with label 0 is not used as a row of the losses between image and text
(`objective.Labels.weights`).

Source: Qin et al., "Noisy-Correspondence Learning for Text-to-Image Person Re-identification", CVPR 2024. Differences:

- RDE takes the losses of two embeddings, the global one and that of selected tokens. Here there is one embedding, and the two
  losses are those of its two directions, image to text and text to image, which compare with different columns. Two losses of the
  same direction (such as TAL and N-ITC) would depend on the same difference of similarities.
- RDE's loss of a pair counts every caption of the identity as positive, so a correct caption in the batch hides a wrong one. It is
  also bounded below by 0, where many pairs form a peak that is not Gaussian. Here only the pair's own similarity counts, and there
  is no bound. docs/decisions/training.md has the measurements.
- RDE encodes augmented images and, if no pair is noisy, labels a hundredth of them noisy. Neither is done here.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
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

# Items encoded at a time. Rounding depends on these numbers, so they must not depend on the number of processes.
_IMAGES, _CAPTIONS = 128, 256


class DivisionSettings(Settings):
    """Consensus division of the training pairs, for data with wrong captions.

    The mixture always finds two components, so on data without wrong captions it discards correct ones.
    """

    enabled: bool = False
    """Whether each epoch begins with a division."""
    warmup_epochs: int = Field(1, ge=0)
    """Epochs before the first division; 0 if the start model can already tell people apart."""
    threshold: float = Field(0.5, gt=0, lt=1)
    """Least probability of the low component at which a pair counts as clean."""


@dataclass(frozen=True, slots=True)
class Division:
    """Labels of the training pairs.

    `believed`: whether a pair is used as a row of the losses. `clean`, `noisy`: number of pairs on which both losses agree;
    `disputed`: number of all others, whose label is drawn.
    """

    believed: Bool[np.ndarray, " pairs"]
    clean: int
    noisy: int
    disputed: int


def pair_losses(
    image: Float[Tensor, "n D"], text: Float[Tensor, "n D"], ids: Int[Tensor, " n"], temperature: float
) -> Float[Tensor, "n 2"]:
    """Compute tau log sum_{other identities j} exp(s_ij / tau) - s_ii of every pair i, image to text and text to image.

    This is TAL (`losses.tal`) with the pair's own similarity as the only positive, and without margin and bound. The first term is
    at least -1, its value if there is no other identity.
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
    """Compute `pair_losses` of all pairs, in random groups of about `size` pairs."""
    losses = np.empty((len(ids), 2))
    for group in np.array_split(stream.permutation(len(ids)), max(1, len(ids) // size)):
        rows = torch.from_numpy(group).to(image.device)
        losses[group] = pair_losses(image[rows], text[rows], ids[rows], temperature).cpu().numpy()
    return losses


def consensus(losses: Float64[np.ndarray, "pairs 2"], threshold: float, stream: np.random.Generator) -> Division:
    """Label a pair clean or noisy if both losses agree, otherwise at random with probability 1/2.

    A loss calls a pair clean if its `clean_probability` is above `threshold`.
    """
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
    """Posterior of the lower of two Gaussians fitted to the losses, which are scaled to [0, 1]; all 1 if the losses are equal.

    `seed`: seed of the k-means that initialises the fit. The other settings of the fit are RDE's for high noise; RDE's settings for
    low noise keep the Gaussians at least 2 % of the losses' range wide. Raises SettingsError for losses that are not finite.
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
    """Import scikit-learn's `GaussianMixture`. Raises MissingDependencyError if the package is not installed."""
    return needed("sklearn.mixture", "division.enabled", "robust").GaussianMixture


def of_first_process(division: Division, device: torch.device) -> Division:
    """Broadcast the labels of the first process to all processes.

    Without it, a posterior close to the threshold could round to different sides on different machines.
    """
    labels = torch.from_numpy(division.believed).to(device, torch.uint8)
    shared = total(labels if rank() == 0 else torch.zeros_like(labels)).bool().cpu()
    return replace(division, believed=shared.numpy())


@torch.no_grad()
def embed_pairs(
    model: PersonModel, split: PersonDataset, images: UInt8[np.ndarray, "N H W 3"], on_progress: OnProgress
) -> tuple[Float[Tensor, "pairs D"], Float[Tensor, "pairs D"]]:
    """Compute unit embeddings of image and caption of every pair, in the order of `split.pairs()`, without augmentation.

    `images[i]`: pixels of `split.images[i]`. Every process encodes a share and returns all rows. `on_progress`: called with (done,
    total), counting images and captions together.
    """
    model.clip.eval()
    pairs = split.pairs()
    captions = [split.images[pair.image].captions[pair.caption] for pair in pairs]
    by_length = np.argsort([len(caption) for caption in captions], kind="stable")
    first, steps = len(images), len(images) + len(pairs)
    with torch.compiler.set_stance("force_eager"):
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
    """Embed all items; row i of the result belongs to item i.

    Every process encodes a share of the chunks of `order` and leaves the other rows 0; the sum over processes has all rows.
    """
    rows = torch.zeros(len(order), model.dim, device=model.device)
    for number, start in enumerate(range(0, len(order), size)):
        if number % world_size() == rank():
            chunk = order[start : start + size]
            rows[torch.from_numpy(chunk).to(model.device)] = torch.from_numpy(encode(chunk)).to(model.device)
            on_done(start + len(chunk))
    on_done(len(order))
    return total(rows)
