"""Score embeddings and compare their metrics with chance and with a ceiling.

Every caption of a split is a query against every image of the split, its own image included (no filter by camera).
"""

from dataclasses import dataclass

from tbps.evaluation.embeddings import Embeddings
from tbps.evaluation.metrics import Report, Scores, chance, metrics_from_scores, retrieval_metrics


@dataclass(frozen=True, slots=True)
class Standing:
    """Metrics of a model, of a random ranking, and of a ranking by known attributes (None if there are none)."""

    model: Report
    chance: Report
    ceiling: Report | None

    @property
    def share_of_ceiling(self) -> float | None:
        """The model's Rank-1 divided by the ceiling's."""
        return None if self.ceiling is None else self.model.r1 / self.ceiling.r1


def score(embeddings: Embeddings, ceiling: Scores | None = None) -> Standing:
    """Compute the metrics of embeddings, of chance, and of the ceiling if there is one.

    `ceiling`: scores of a ranking by known attributes (`tbps.data.ceiling_scores`), whose ties are broken at random.
    """
    text_ids, image_ids = embeddings.text_ids, embeddings.image_ids
    return Standing(
        model=retrieval_metrics(embeddings.text, embeddings.image, text_ids, image_ids),
        chance=chance(text_ids, image_ids),
        ceiling=None if ceiling is None else metrics_from_scores(ceiling, text_ids, image_ids, ties="random"),
    )
