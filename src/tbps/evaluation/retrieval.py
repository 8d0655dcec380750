"""The protocol: every caption of a split is a query against every image of it, its own included (no camera filter)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from tbps.data.mannequins.ceiling import attribute_scores, has_mentions
from tbps.data.records import PersonDataset
from tbps.evaluation.embed import Embeddings, identities
from tbps.evaluation.metrics import Report, chance, metrics_from_scores, retrieval_metrics


@dataclass(frozen=True, slots=True)
class Standing:
    """A model's metrics between what guessing and what knowing reach. `ceiling` is None where no attributes are known."""

    model: Report
    chance: Report
    ceiling: Report | None

    @property
    def share_of_ceiling(self) -> float | None:
        """The model's Rank-1 divided by the ceiling's."""
        return None if self.ceiling is None else self.model.r1 / self.ceiling.r1


def score(embeddings: Embeddings, split: PersonDataset | None = None) -> Standing:
    """Metrics of embeddings beside chance and, for a split with mentioned attributes, the ceiling."""
    report = retrieval_metrics(embeddings.text, embeddings.image, embeddings.text_ids, embeddings.image_ids)
    guessing = chance(embeddings.text_ids, embeddings.image_ids)
    return Standing(report, guessing, ceiling(split) if split is not None else None)


def ceiling(split: PersonDataset) -> Report | None:
    """Ranking by the attributes that a caption mentions, ties broken at random; None for data without such attributes."""
    if not has_mentions(split):
        return None
    text_ids, image_ids = identities(split)
    return metrics_from_scores(attribute_scores(split), text_ids, image_ids, ties="random")


def embeddings_of(
    split: PersonDataset, rows: tuple[Float32[np.ndarray, "Q D"], Float32[np.ndarray, "G D"]], model: str, source: str
) -> Embeddings:
    """(text, image) rows of `embed_split` with the identities of the split."""
    text_ids, image_ids = identities(split)
    return Embeddings(rows[0], rows[1], text_ids, image_ids, model, source)
