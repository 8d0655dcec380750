"""Shapes of small models for tests."""

from typing import Any

from tbps.model.clip import ModelShape, TowerShape

Tower = tuple[int, int, int]
"""Width, layers, heads."""


def model_shape(image: Tower, text: Tower, **sizes: Any) -> ModelShape:
    """Returns the shape with these towers and 100 tokens; `sizes`: the other fields of `ModelShape`."""
    return ModelShape(image=_tower(*image), text=_tower(*text), vocabulary=100, **sizes)


def _tower(width: int, layers: int, heads: int) -> TowerShape:
    return TowerShape(width=width, layers=layers, heads=heads)
