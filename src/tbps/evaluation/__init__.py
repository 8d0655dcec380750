"""How well text queries find the images of their person."""

from tbps.evaluation.metrics import Report, chance, metrics_from_scores, retrieval_metrics

__all__ = ["Report", "chance", "metrics_from_scores", "retrieval_metrics"]
