"""Consensus division: which training pairs have a caption that fits their image (RDE).

Before an epoch every pair is encoded without augmentation and gets two losses. A mixture of two Gaussians splits each list of
losses into a low component (the caption fits) and a high one. If both opinions agree, that is the pair's label for the epoch; if
not, the label is drawn. A pair with label 0 is no row of the losses between image and text (`objective.Labels.weights`).

Source: Qin et al., "Noisy-Correspondence Learning for Text-to-Image Person Re-identification", CVPR 2024. Differences:

- RDE's opinions are losses of two embeddings, the global one and that of selected tokens. Here there is one embedding, and the
  opinions are its two directions, image to text and text to image, which compare with different columns. Two losses of one
  direction (such as TAL and N-ITC) would depend on the same difference of similarities.
- RDE's loss of a pair counts every caption of the identity as right, so that a right caption in the batch hides a wrong one. It is
  also bounded by 0, where many pairs form a peak that is not Gaussian. Here only the pair's own similarity counts, and there is no
  bound. docs/decisions/training.md has the figures.
- RDE encodes augmented images and, if no pair is noisy, labels a hundredth of them noisy. Neither happens here.
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

# Encoded at a time. Rounding depends on these numbers, so they must not depend on the number of processes.
_IMAGES, _CAPTIONS = 128, 256


class DivisionSettings(Settings):
    """Consensus division of the training pairs, for data with wrong captions.

    A mixture always finds two components, so without wrong captions it discards right ones.
    """

    enabled: bool = False
    """Whether epochs begin with a division."""
    warmup_epochs: int = Field(1, ge=0)
    """Epochs before the first division; 0 if the start model can already tell people apart."""
    threshold: float = Field(0.5, gt=0, lt=1)
    """Least probability of the low component at which a pair counts as clean."""


@dataclass(frozen=True, slots=True)
class Division:
    """Labels of the training pairs. `clean`, `noisy`: how many pairs both opinions call so; `disputed`: all others."""

    believed: Bool[np.ndarray, " pairs"]
    clean: int
    noisy: int
    disputed: int


def pair_losses(
    image: Float[Tensor, "n D"], text: Float[Tensor, "n D"], ids: Int[Tensor, " n"], temperature: float
) -> Float[Tensor, "n 2"]:
    """tau log sum_{other identities j} exp(s_ij / tau) - s_ii of every pair i, image to text and text to image.

    This is TAL (`losses.tal`) with the pair's own similarity alone, without margin and bound. The first term is -1 if there is no
    other identity.
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
    """`pair_losses` of all pairs in random groups of about `size` pairs."""
    losses = np.empty((len(ids), 2))
    for group in np.array_split(stream.permutation(len(ids)), max(1, len(ids) // size)):
        rows = torch.from_numpy(group).to(image.device)
        losses[group] = pair_losses(image[rows], text[rows], ids[rows], temperature).cpu().numpy()
    return losses


def consensus(losses: Float64[np.ndarray, "pairs 2"], threshold: float, stream: np.random.Generator) -> Division:
    """Label pairs clean that both opinions call clean, noisy that both call noisy, and half of the others at random."""
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

    `seed`: seed of the k-means that initialises the fit. The other settings of the fit are RDE's for much noise; those for little
    noise keep Gaussians at least 2 % of the losses' range wide. Raises SettingsError for losses that are not finite.
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
    """scikit-learn's `GaussianMixture`. Raises MissingDependencyError if the package is not installed."""
    return needed("sklearn.mixture", "division.enabled", "robust").GaussianMixture


def of_first_process(division: Division, device: torch.device) -> Division:
    """The division with the labels of the first process, for all processes.

    On another machine a posterior next to the threshold could round to the other side.
    """
    labels = torch.from_numpy(division.believed).to(device, torch.uint8)
    shared = total(labels if rank() == 0 else torch.zeros_like(labels)).bool().cpu()
    return replace(division, believed=shared.numpy())


@torch.no_grad()
def embed_pairs(
    model: PersonModel, split: PersonDataset, images: UInt8[np.ndarray, "N H W 3"], on_progress: OnProgress
) -> tuple[Float[Tensor, "pairs D"], Float[Tensor, "pairs D"]]:
    """Unit embeddings of the image and the caption of every pair, in the order of `split.pairs()`, without augmentation.

    `images[i]`: pixels of `split.images[i]`. Every process encodes a share and returns all rows. `on_progress`: called with (done,
    total) images and captions.
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
    """Row i is the embedding of item i. Every process encodes a share of the chunks of `order`; the sum over processes has all."""
    rows = torch.zeros(len(order), model.dim, device=model.device)
    for number, start in enumerate(range(0, len(order), size)):
        if number % world_size() == rank():
            chunk = order[start : start + size]
            rows[torch.from_numpy(chunk).to(model.device)] = torch.from_numpy(encode(chunk)).to(model.device)
            on_done(start + len(chunk))
    on_done(len(order))
    return total(rows)
