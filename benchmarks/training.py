"""What a training step costs, and what makes it cheaper on this machine: `python benchmarks/training.py [--batch 256] [--runs 5]`.

One step (both towers forward and backward, N-ITC, no optimizer) of the bundled model's shape on random pictures and captions of
mannequins' lengths: fused attention against attention in plain steps, captions padded to the longest of the batch against runs
by length. The settings take turns within one process, so that the ratios hold when the machine's speed drifts.
"""

import argparse
import time

import numpy as np
import torch
from measuring import RUNS, Row, publish, rates, ratios

from tbps.losses import itc
from tbps.model.clip import build, image_features, text_features_in_parts
from tbps.study.recipes import mannequin_start

WORDS = (10, 52)  # tokens of a caption: from ten to about fifty, most near 27


def main(batch: int, runs: int) -> None:
    shape = mannequin_start().shape
    assert shape is not None
    clip = build(shape, seed=0).train()
    rng = np.random.default_rng(0)
    pixels = torch.from_numpy(rng.normal(size=(batch, 3, shape.image_size, shape.image_size)).astype(np.float32))
    end = shape.vocabulary - 1
    tokens = torch.full((batch, WORDS[1]), end)
    for row, length in zip(tokens, np.clip(rng.normal(27, 9, batch), *WORDS).astype(int), strict=True):
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
    rows = []
    for (attention, parts), values in times.items():
        name = f"{attention} attention, captions in {parts} run{'s' * (parts > 1)} by length"
        rows.append(Row(name, "s a step", tuple(values)))
        rows.append(rates(name, "pairs a second", batch, values))
        if (attention, parts) != settings[0]:
            rows.append(ratios(f"{rows[0].what} / {name}", values, times[settings[0]]))
    publish("training", rows, {"batch": batch, "threads": torch.get_num_threads()})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=256, help="pairs of a step")
    parser.add_argument("--runs", type=int, default=RUNS)
    main(**vars(parser.parse_args()))
