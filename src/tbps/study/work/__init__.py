"""Kinds of work that a step of a study does: training, measuring cost, probing, compressing."""
