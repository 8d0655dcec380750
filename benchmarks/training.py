"""What a training step costs, and what makes it cheaper on this machine: `python benchmarks/training.py [runs]`.

One step (both towers forward and backward, N-ITC, no optimizer) of the bundled model's shape on random pictures and captions of
mannequins' lengths: fused attention against attention in plain steps, captions padded to the longest of the batch against runs
by length. The settings take turns within one process, so that the ratios hold when the machine's speed drifts.
"""

import json
import platform
import statistics
import sys
import time

import numpy as np
import torch

from tbps.losses import itc
from tbps.model.clip import build, image_features, text_features_in_parts
from tbps.study.recipes import mannequin_start

BATCH, WORDS = 256, (10, 52)  # tokens of a caption: from ten to about fifty, most near 27


def main(runs: int) -> None:
    shape = mannequin_start().shape
    assert shape is not None
    clip = build(shape, seed=0).train()
    rng = np.random.default_rng(0)
    pixels = torch.from_numpy(rng.normal(size=(BATCH, 3, shape.image_size, shape.image_size)).astype(np.float32))
    end = shape.vocabulary - 1
    tokens = torch.full((BATCH, WORDS[1]), end)
    for row, length in zip(tokens, np.clip(rng.normal(27, 9, BATCH), *WORDS).astype(int), strict=True):
        row[: length - 1] = torch.from_numpy(rng.integers(0, end - 1, length - 1))

    def step(attention: str, parts: int) -> float:
        clip.set_attn_implementation(attention)
        started = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16):
            image, text = image_features(clip, pixels), text_features_in_parts(clip, tokens, parts)
        torch.autograd.backward(itc(image, text, clip.logit_scale.exp()))
        clip.zero_grad(set_to_none=True)
        return time.perf_counter() - started

    settings = [(attention, parts) for attention in ("sdpa", "eager") for parts in (1, 4)]
    for setting in settings:
        step(*setting)
    times: dict[tuple[str, int], list[float]] = {setting: [] for setting in settings}
    for _ in range(runs):
        for setting in settings:
            times[setting].append(step(*setting))
    base = statistics.median(times[settings[0]])
    rows = []
    print("| attention | runs by length | seconds a step, median (least to most) | of the first row | pairs a second |")
    print("|---|---|---|---|---|")
    for (attention, parts), values in times.items():
        median = statistics.median(values)
        row = {"attention": attention, "text_parts": parts, "median_s": median, "least_s": min(values), "most_s": max(values)}
        rows.append(row | {"ratio": median / base, "pairs_per_second": BATCH / median})
        spread = f"{median:.3f} ({min(values):.3f} to {max(values):.3f})"
        print(f"| {attention} | {parts} | {spread} | {median / base:.2f} | {BATCH / median:.0f} |")
    print(json.dumps({"benchmark": "training", "machine": platform.processor(), "torch": torch.__version__, "rows": rows}))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
