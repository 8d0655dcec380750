"""Kinds of work for the steps of a study: training, measuring cost, probing, compressing."""
