"""Cost of a training step, and optimisations on this machine: `python benchmarks/training.py [--toy]`.

One step is both towers forward and backward with N-ITC, without the optimizer, at the bundled model's shape, on random images and
on captions as long as those of mannequins. Compared are fused and plain attention, and captions padded to the longest of the batch
or encoded in groups of similar length ("runs by length"). The variants alternate within one process, so that ratios stay valid when
the speed of the machine drifts.
"""

from functools import partial

import numpy as np
import torch
from measuring import Measurement, in_turn, rates, ratios
from results import Benchmark, run_alone
from subjects import toy_shape

from tbps.losses import itc
from tbps.model import build, image_features, text_features_in_parts
from tbps.study.recipes import mannequin_start

WORDS = (10, 52)  # range of tokens per caption; most have about 27


def measure(toy: bool, runs: int) -> Benchmark:
    shape, batch = mannequin_start().shape, 8 if toy else 256
    assert shape is not None
    if toy:
        shape = toy_shape()
    clip = build(shape, seed=0).train()
    rng = np.random.default_rng(0)
    pixels = torch.from_numpy(rng.normal(size=(batch, 3, shape.image_size, shape.image_size)).astype(np.float32))
    end = shape.vocabulary - 1
    tokens = torch.full((batch, WORDS[1]), end)
    for row, length in zip(tokens, np.clip(rng.normal(27, 9, batch), *WORDS).astype(int), strict=True):
        row[: length - 1] = torch.from_numpy(rng.integers(0, end - 1, length - 1))

    def step(attention: str, parts: int) -> None:
        clip.set_attn_implementation(attention)
        with torch.autocast("cpu", torch.bfloat16):
            image, text = image_features(clip, pixels), text_features_in_parts(clip, tokens, parts)
        torch.autograd.backward(itc(image, text, clip.logit_scale.exp()))
        clip.zero_grad(set_to_none=True)

    settings = [(attention, parts) for attention in ("sdpa", "eager") for parts in (1, 4)]
    names = {s: f"{s[0]} attention, captions in {s[1]} run{'s' * (s[1] > 1)} by length" for s in settings}
    times = in_turn({names[setting]: partial(step, *setting) for setting in settings}, runs)
    rows, first = [], names[settings[0]]
    for name, values in times.items():
        rows.append(Measurement(name, "s a step", values))
        rows.append(rates(name, "pairs a second", batch, values))
        if name != first:
            rows.append(ratios(f"{name} / {first}", values, times[first]))
    return Benchmark("training", rows, {"batch": batch, "threads": torch.get_num_threads()})


if __name__ == "__main__":
    run_alone(measure, __doc__)
