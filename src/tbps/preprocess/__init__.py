"""Preprocessing of captions, images and metadata lines, identical in training, evaluation, indexing and search."""
