"""Conversion of checkpoints of other projects: formats, tensor layouts, position embeddings."""
