"""The one place where views, losses and weights meet: from embeddings and labels of a batch to one total loss."""

from tbps.training.objective.features import Features, Labels
from tbps.training.objective.settings import LossSettings
from tbps.training.objective.total import Losses, objective

__all__ = ["Features", "Labels", "LossSettings", "Losses", "objective"]
