"""Retrieval metrics of embeddings: how well text queries find images of their identity."""

from tbps.evaluation.embeddings import Embeddings
from tbps.evaluation.metrics import Report, chance, metrics_from_scores, retrieval_metrics
from tbps.evaluation.standing import Standing, score

__all__ = ["Embeddings", "Report", "Standing", "chance", "metrics_from_scores", "retrieval_metrics", "score"]
