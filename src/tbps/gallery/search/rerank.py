"""Re-ranking of the best candidates by k-reciprocal neighbours.

Zhong, Zheng, Cao, Li: "Re-ranking Person Re-identification with k-reciprocal Encoding" (CVPR 2017), with its k1 = 20, k2 = 6 and
lambda = 0.3, over the query and its candidates alone.

A text lies apart from all images, so it would be nobody's neighbour, and its reciprocal set empty. Its cosines are therefore moved
and stretched to the mean and deviation of the candidates' cosines among each other before they are compared with these.
"""

import numpy as np
from jaxtyping import Float64, Integer

K1, K2, LAMBDA = 20, 6, 0.3


def reranked(to_query: Float64[np.ndarray, " N"], among: Float64[np.ndarray, "N N"], by_text: bool) -> Integer[np.ndarray, " N"]:
    """The order of N candidates, best first, from their cosines to the query and among each other."""
    if by_text:
        to_query = _moved(to_query, among[~np.eye(len(among), dtype=np.bool_)])
    cosines = np.block([[np.ones((1, 1)), to_query[None]], [to_query[:, None], among]])
    distances = 2 - 2 * np.clip(cosines, -1, 1)  # squared Euclidean
    np.fill_diagonal(distances, 0)
    return np.argsort(final_distances(distances, K1, K2, LAMBDA), kind="stable")


def final_distances(distances: Float64[np.ndarray, "M M"], k1: int, k2: int, weight: float) -> Float64[np.ndarray, " N"]:
    """lambda d + (1 - lambda) d_Jaccard of node 0, the query, to the N = M - 1 others; `weight` is lambda.

    distances: squared Euclidean, symmetric. As in the authors' code each column is divided by its largest value first.
    """
    distances = (distances / np.maximum(distances.max(axis=0), 1e-12)).T
    ranking = np.argsort(distances, axis=1, kind="stable")
    size = len(distances)
    wide = _reciprocal(ranking, k1 + 1)
    narrow = _reciprocal(ranking, round(k1 / 2) + 1)
    # A neighbour's own (half as wide) set joins when more than two thirds of it are there already.
    shared = narrow.astype(np.int32) @ wide.T.astype(np.int32)  # [neighbour, node]
    joins = (shared > 2 / 3 * narrow.sum(axis=1, keepdims=True)).T & wide  # [node, neighbour]
    expanded = wide | (joins.astype(np.int32) @ narrow.astype(np.int32) > 0)
    encoding = np.where(expanded, np.exp(-distances), 0.0)
    encoding /= encoding.sum(axis=1, keepdims=True)
    encoding = encoding[ranking[:, : min(k2, size)]].mean(axis=1)  # local query expansion
    overlap = np.minimum(encoding[0], encoding[1:]).sum(axis=1)
    final: np.ndarray = weight * distances[0, 1:] + (1 - weight) * (1 - overlap / (2 - overlap))
    return final


def _reciprocal(ranking: np.ndarray, k: int) -> np.ndarray:
    """[i, j]: i and j are each among the other's first k, itself included."""
    near = np.zeros(ranking.shape, np.bool_)
    np.put_along_axis(near, ranking[:, :k], True, axis=1)
    return near & near.T


def _moved(cosines: np.ndarray, among: np.ndarray) -> np.ndarray:
    if len(cosines) < 2:
        return cosines
    spread = max(float(cosines.std()), 1e-12)
    moved: np.ndarray = (cosines - cosines.mean()) / spread * among.std() + among.mean()
    return moved
