"""Mannequins: a synthetic pedestrian data set, drawn by the project, with true captions and known attributes."""
