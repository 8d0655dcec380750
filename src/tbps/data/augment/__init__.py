"""Augmentation of images, captions and pairs."""
