"""Mean and covariance of a gallery's embeddings, and scores in deviations from that mean."""

import numpy as np
from jaxtyping import Float, Float64

_MOMENT_ROWS = 16_384


class Spread:
    """Mean and covariance of a gallery's embeddings, of evenly spaced rows where there are many."""

    def __init__(self, embeddings: Float[np.ndarray, "N D"]) -> None:
        step = -(-len(embeddings) // _MOMENT_ROWS)
        rows = embeddings[::step]
        self._mean = rows.mean(axis=0, dtype=np.float64)
        self._covariance = (rows.T @ rows) / len(rows) - np.outer(self._mean, self._mean)

    def z(self, query: Float64[np.ndarray, " D"], cosines: Float64[np.ndarray, " N"]) -> Float64[np.ndarray, " N"]:
        """Cosines to a unit query in deviations from the mean over the gallery."""
        variance = float(query @ self._covariance @ query)
        return np.asarray((cosines - self._mean @ query) / np.sqrt(max(variance, 1e-12)))
