"""Training objective: the total loss of a batch, from the embeddings of its views, its labels and the weights of the losses."""

from tbps.training.objective.features import Features, Labels
from tbps.training.objective.settings import LossSettings
from tbps.training.objective.total import Losses, objective

__all__ = ["Features", "Labels", "LossSettings", "Losses", "objective"]
