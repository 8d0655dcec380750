"""Re-ranking of the first hits by k-reciprocal neighbours.

Zhong, Zheng, Cao, Li: "Re-ranking Person Re-identification with k-reciprocal Encoding" (CVPR 2017), with the paper's k1 = 20,
k2 = 6 and lambda = 0.3, applied to the query and its candidates only.

Texts lie apart from images in the embedding space, so a text would not be among the neighbours of any image, and its reciprocal
set would be empty. Its cosines are therefore scaled to the mean and standard deviation of the cosines between candidates.
"""

import numpy as np
from jaxtyping import Float64, Integer

K1, K2, LAMBDA = 20, 6, 0.3


def reranked(to_query: Float64[np.ndarray, " N"], among: Float64[np.ndarray, "N N"], by_text: bool) -> Integer[np.ndarray, " N"]:
    """The order of N candidates, best first. to_query: their cosines with the query; among: their cosines with each other."""
    if by_text:
        to_query = _moved(to_query, among[~np.eye(len(among), dtype=np.bool_)])
    cosines = np.block([[np.ones((1, 1)), to_query[None]], [to_query[:, None], among]])
    distances = 2 - 2 * np.clip(cosines, -1, 1)  # squared Euclidean
    np.fill_diagonal(distances, 0)
    return np.argsort(final_distances(distances, K1, K2, LAMBDA), kind="stable")


def final_distances(distances: Float64[np.ndarray, "M M"], k1: int, k2: int, weight: float) -> Float64[np.ndarray, " N"]:
    """lambda d + (1 - lambda) d_Jaccard between node 0, the query, and the N = M - 1 candidates; `weight` is lambda (eq. 12).

    distances: squared Euclidean, symmetric. As in the authors' code each column is first divided by its largest value.
    """
    distances = (distances / np.maximum(distances.max(axis=0), 1e-12)).T
    ranking = np.argsort(distances, axis=1, kind="stable")
    size = len(distances)
    wide = _reciprocal(ranking, k1 + 1)
    narrow = _reciprocal(ranking, round(k1 / 2) + 1)
    # A neighbour's own set of half the size is added if more than two thirds of it are in the set already (eq. 4).
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
    """[i, j]: whether i and j are among each other's first k neighbours, counting themselves."""
    near = np.zeros(ranking.shape, np.bool_)
    np.put_along_axis(near, ranking[:, :k], True, axis=1)
    return near & near.T


def _moved(cosines: np.ndarray, among: np.ndarray) -> np.ndarray:
    if len(cosines) < 2:
        return cosines
    spread = max(float(cosines.std()), 1e-12)
    moved: np.ndarray = (cosines - cosines.mean()) / spread * among.std() + among.mean()
    return moved
