"""Preparation of captions, images and metadata lines, the same for every use of a model."""
