"""Linear and bilinear interpolation of position embeddings, one number at a time, with aligned pixel centres."""

import math
from collections.abc import Sequence

import torch


def _neighbours(new: int, old: int, at: int) -> list[tuple[int, float]]:
    """(old index, weight) of the two old samples around the centre of new sample `at`; outside the border, the border's sample."""
    point = max((at + 0.5) * old / new - 0.5, 0.0)
    low = math.floor(point)
    high = min(low + 1, old - 1)
    return [(low, 1 - (point - low)), (high, point - low)]


def linear(rows: Sequence[float], length: int) -> list[float]:
    """Interpolate a row to `length` numbers; the first and the last are copied."""
    inner = rows[1:-1]
    made = [sum(weight * inner[i] for i, weight in _neighbours(length - 2, len(inner), at)) for at in range(length - 2)]
    return [rows[0], *made, rows[-1]]


def bilinear(positions: torch.Tensor, old: tuple[int, int], new: tuple[int, int]) -> torch.Tensor:
    """Interpolate (1 + h * w, D) position embeddings to (1 + h' * w', D); the first is copied."""
    rows = [positions[0]]
    for y in range(new[0]):
        for x in range(new[1]):
            row = torch.zeros_like(positions[0])
            for i, down in _neighbours(new[0], old[0], y):
                for j, across in _neighbours(new[1], old[1], x):
                    row = row + down * across * positions[1 + i * old[1] + j]
            rows.append(row)
    return torch.stack(rows)
