"""Mean and covariance of a gallery's embeddings, and cosines standardised by them."""

import numpy as np
from jaxtyping import Float, Float64

_MOST_ROWS = 16_384


class Moments:
    """Mean and covariance of N embeddings, computed from at most 16,384 evenly spaced rows."""

    def __init__(self, embeddings: Float[np.ndarray, "N D"]) -> None:
        step = -(-len(embeddings) // _MOST_ROWS)
        rows = embeddings[::step]
        self._mean = rows.mean(axis=0, dtype=np.float64)
        self._covariance = (rows.T @ rows) / len(rows) - np.outer(self._mean, self._mean)

    def z(self, query: Float64[np.ndarray, " D"], cosines: Float64[np.ndarray, " N"]) -> Float64[np.ndarray, " N"]:
        """Cosines to a unit query, in standard deviations from their mean over the gallery."""
        variance = float(query @ self._covariance @ query)
        return np.asarray((cosines - self._mean @ query) / np.sqrt(max(variance, 1e-12)))
