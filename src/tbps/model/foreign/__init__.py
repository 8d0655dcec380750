"""Checkpoints of other projects: formats, pickles, layouts, position tables."""
