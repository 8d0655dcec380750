"""The losses as loops over Python floats: slow, simple and independent of the library."""

import math

Rows = list[list[float]]
Ids = list[int] | list[tuple[int, int]]  # a pair mixed from two pairs has two identities


def cosine(a: list[float], b: list[float]) -> float:
    dot = math.fsum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(math.fsum(x * x for x in a)) / math.sqrt(math.fsum(y * y for y in b))


def log_softmax(values: list[float]) -> list[float]:
    top = max(values)
    log_sum = top + math.log(math.fsum(math.exp(v - top) for v in values))
    return [v - log_sum for v in values]


def alike(a: int | tuple[int, int], b: int | tuple[int, int]) -> bool:
    both = [{ids} if isinstance(ids, int) else set(ids) for ids in (a, b)]
    return bool(both[0] & both[1])


def q_hat(ids: Ids, i: int, j: int) -> float:
    """q^_ij = q_ij / sum_k q_ik."""
    return alike(ids[i], ids[j]) / sum(alike(ids[i], ids[k]) for k in range(len(ids)))


def log_p(rows: Rows, columns: Rows, scale: float) -> Rows:
    """log p_ij: log-softmax of each row over all columns."""
    return [log_softmax([scale * cosine(r, c) for c in columns]) for r in rows]


def n_itc(image: Rows, text: Rows, ids: Ids, scale: float, alpha: float = 0.0) -> float:
    n, total = len(ids), 0.0
    for log_probabilities in (log_p(image, text, scale), log_p(text, image, scale)):
        for i in range(n):
            for j in range(n):
                label = alpha * math.exp(log_probabilities[i][j]) + (1 - alpha) * q_hat(ids, i, j)
                total -= label * log_probabilities[i][j]
    return total / (2 * n)


def itc(image: Rows, text: Rows, scale: float) -> float:
    return n_itc(image, text, list(range(len(image))), scale)


def _divergences(image: Rows, text: Rows, ids: Ids, scale: float, eps: float) -> float:
    """Sum over both directions of sum_ij p_ij log(p_ij / (q^_ij + eps))."""
    n, total = len(ids), 0.0
    for log_probabilities in (log_p(image, text, scale), log_p(text, image, scale)):
        for i in range(n):
            for j in range(n):
                log_ratio = log_probabilities[i][j] - math.log(q_hat(ids, i, j) + eps)
                total += math.exp(log_probabilities[i][j]) * log_ratio
    return total


def r_itc(image: Rows, text: Rows, ids: Ids, scale: float, eps: float = 1e-2) -> float:
    return _divergences(image, text, ids, scale, eps) / (2 * len(ids))


def sdm(image: Rows, text: Rows, ids: Ids, scale: float = 50.0) -> float:
    return _divergences(image, text, ids, scale, 1e-8) / len(ids)


def c_itc(image: Rows, text: Rows, in_modal: float = 0.25, cross_modal: float = 0.25) -> float:
    n = len(image)
    within = across = 0.0
    for i in range(n):
        for j in range(n):
            within += (cosine(image[i], image[j]) - cosine(text[i], text[j])) ** 2
            across += (cosine(image[i], text[j]) - cosine(image[j], text[i])) ** 2
    return in_modal * within / n**2 + cross_modal * across / n**2


def nt_xent(view_a: Rows, view_b: Rows, temperature: float = 0.1) -> float:
    views, n = view_a + view_b, len(view_a)
    total = 0.0
    for v in range(2 * n):
        others = [u for u in range(2 * n) if u != v]
        log_probabilities = log_softmax([cosine(views[v], views[u]) / temperature for u in others])
        total -= log_probabilities[others.index((v + n) % (2 * n))]
    return total / (2 * n)


def distill(image: Rows, text: Rows, teacher_image: Rows, teacher_text: Rows, scale: float) -> float:
    n, total = len(image), 0.0
    for own, other, teacher_own, teacher_other in (
        (image, text, teacher_image, teacher_text),
        (text, image, teacher_text, teacher_image),
    ):
        student, teacher = log_p(own, other, scale), log_p(teacher_own, teacher_other, scale)
        for i in range(n):
            total += math.fsum(math.exp(t) * (t - p) for t, p in zip(teacher[i], student[i], strict=True))
    return total / (2 * n)
