"""Retrieval metrics without a full sort against the usual full argsort: `python benchmarks/metrics.py [--help]`.

Both ways get the same scores in the same run, in turn; both must report the same figures. Then ours alone, from embeddings, at
the size of ICFG-PEDES' test split (19,848 captions and as many images of 1,000 people), where the full argsort holds several
numbers for each of 394 million pairs. Memory is what a run takes beyond embeddings and scores.
"""

import argparse
from functools import partial

import numpy as np
import torch
from measuring import RUNS, Row, megabytes, publish, ratios, seconds

from tbps.evaluation import metrics_from_scores, retrieval_metrics
from tbps.seeding import generator

PEOPLE, DIMENSIONS = 1000, 512


def sampled(rows: int, people: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit embeddings of texts and of images (rows, DIMENSIONS) float32, and who each row shows."""
    rng = generator(0, "benchmark", "metrics", rows)
    ids = np.arange(rows) % people
    centres = rng.standard_normal((people, DIMENSIONS), dtype=np.float32)
    text, image = (centres[ids] + 4 * rng.standard_normal((rows, DIMENSIONS), dtype=np.float32) for _ in range(2))
    return *(side / np.linalg.norm(side, axis=1, keepdims=True) for side in (text, image)), ids


def by_argsort(scores: np.ndarray, ids: np.ndarray) -> tuple[float, float, float]:
    """(Rank-1, mAP, mINP) in percent from every ranking in full, as published evaluation code does it."""
    order = torch.argsort(torch.from_numpy(scores), dim=1, descending=True)
    right = torch.from_numpy(ids)[order] == torch.from_numpy(ids)[:, None]  # (Q, G)
    place = torch.arange(1, right.shape[1] + 1)
    relevant = right.sum(dim=1)
    precision = (right.cumsum(dim=1) / place * right).sum(dim=1) / relevant
    last = (right * place).amax(dim=1)
    return tuple(100 * value.double().mean().item() for value in (right[:, 0], precision, relevant / last))


def by_counting(scores: np.ndarray, ids: np.ndarray) -> tuple[float, float, float]:
    """The same without a sort."""
    report = metrics_from_scores(lambda start, stop: scores[start:stop], ids, ids)
    return report.r1, report.map, report.minp


def main(rows: int, large: int, runs: int) -> None:
    text, image, ids = sampled(rows, min(PEOPLE, rows // 4))
    scores = text @ image.T
    plain, ours = partial(by_argsort, scores, ids), partial(by_counting, scores, ids)
    assert np.allclose(plain(), ours(), atol=0.01), f"the two ways disagree: {plain()} and {ours()}"
    pairs = [(seconds(ours, 1)[0], seconds(plain, 1)[0]) for _ in range(runs)]
    ours_s, plain_s = tuple(a for a, _ in pairs), tuple(b for _, b in pairs)
    size = f"{rows:,} x {rows:,}"
    found = [
        Row(f"full argsort, {size}", "s", plain_s),
        Row(f"ours, {size}", "s", ours_s),
        ratios(f"full argsort / ours, {size}", ours_s, plain_s),
        Row(f"full argsort, {size}, memory", "MB", megabytes(plain, runs)),
        Row(f"ours, {size}, memory", "MB", megabytes(ours, runs)),
    ]
    if large:
        text, image, ids = sampled(large, min(PEOPLE, large // 4))
        whole = partial(retrieval_metrics, text, image, ids, ids)
        size = f"{large:,} x {large:,} x {DIMENSIONS} from embeddings"
        found += [
            Row(f"ours, {size}", "s", seconds(whole, runs)),
            Row(f"ours, {size}, memory", "MB", megabytes(whole, runs)),
        ]
    publish("metrics", found, {"rows": rows, "large": large, "threads": torch.get_num_threads()})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2000, help="queries, and images, where both ways are compared")
    parser.add_argument("--large", type=int, default=19_848, help="queries, and images, of ours alone; 0: not at all")
    parser.add_argument("--runs", type=int, default=RUNS)
    main(**vars(parser.parse_args()))
