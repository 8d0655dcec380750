"""Mannequins: the synthetic pedestrian data set that the project draws, with truthful captions and known attributes."""
