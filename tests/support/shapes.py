"""Shapes of small models for tests."""

from typing import Any

from tbps.model.clip import ModelShape, TowerShape

Tower = tuple[int, int, int]
"""Width, layers, heads."""


def model_shape(image: Tower, text: Tower, **sizes: Any) -> ModelShape:
    """Returns a model shape with these towers and a vocabulary of 100 tokens. `sizes`: other fields of `ModelShape`."""
    return ModelShape(image=_tower(*image), text=_tower(*text), vocabulary=100, **sizes)


def _tower(width: int, layers: int, heads: int) -> TowerShape:
    return TowerShape(width=width, layers=layers, heads=heads)
