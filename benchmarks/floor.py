"""Lower bound on the time of a training step, from the towers' operations and the bytes that must be moved.

    tower    layers * (24 T w^2 + 4 T^2 w) floating-point operations forward, for T tokens of width w
             (24: queries, keys, values and output 8, the feed-forward layer of four times the width 16; 4: scores and sums)
    image    tower, T = 1 + patches; 2 * patches * 3 p^2 * w for the patches of p pixels; 2 w D for the embedding
    text     tower, T = the caption's own length; 2 w D
    step     three times the forward pass (the backward pass multiplies twice as much), but once for the locked patch projection,
             the lowest layer; each pair once as text and once per image view that the losses need
    bytes    40 per parameter: weights read forward and backward, gradients written, then AdamW reads weights, gradients and two
             moments and writes three of them, all float32; 9 per image value: uint8 in, float32 out, and read by the tower

Operations are divided by the machine's measured matrix rate, bytes by its measured bandwidth. Attention is counted in full although
text attention is causal. Losses, heads, norms and activations are left out, so an implementation of this method takes longer than
the bound. `python benchmarks/floor.py [--toy]` measures the machine's rates.
"""

from functools import partial
from typing import NamedTuple

import torch
from measuring import Measurement, in_turn, rates, timed
from results import Benchmark, run_alone
from subjects import MEAN_TOKENS, published_shape

from tbps.model import ModelShape, TowerShape

BYTES_PER_PARAMETER = 40
BYTES_PER_VALUE = 9
SMALLEST_MATRIX = 1024
"""Rates of smaller matrices are not meaningful."""


class Machine(NamedTuple):
    """Measured rates: operations of matrix products per second, bytes copied per second (read and written)."""

    float32: float
    bfloat16: float
    bandwidth: float

    def seconds(self, operations: float, moved: float, precision: str) -> float:
        """Returns the lower bound in seconds of a step that updates the weights after the backward pass."""
        return operations / (self.bfloat16 if precision == "bfloat16" else self.float32) + moved / self.bandwidth


def tower_operations(tower: TowerShape, tokens: float) -> float:
    """Returns the forward operations of a tower for one input."""
    return tower.layers * (24 * tokens * tower.width**2 + 4 * tokens**2 * tower.width)


def patch_operations(shape: ModelShape) -> float:
    """Returns the operations of the patch projection of one image."""
    return 2 * (shape.image_size // shape.patch) ** 2 * 3 * shape.patch**2 * shape.image.width


def image_operations(shape: ModelShape) -> float:
    """Returns the forward operations of one image."""
    tokens = 1 + (shape.image_size // shape.patch) ** 2
    return tower_operations(shape.image, tokens) + patch_operations(shape) + 2 * shape.image.width * shape.embedding


def text_operations(shape: ModelShape, tokens: float) -> float:
    """Returns the forward operations of one caption."""
    return tower_operations(shape.text, tokens) + 2 * shape.text.width * shape.embedding


def step_operations(shape: ModelShape, batch: int, views: int, tokens: float) -> float:
    """Returns the operations of one training step with a locked patch projection; `tokens`: mean length of the captions."""
    pictures = 3 * image_operations(shape) - 2 * patch_operations(shape)
    return batch * (views * pictures + 3 * text_operations(shape, tokens))


def step_bytes(shape: ModelShape, parameters: int, batch: int, views: int) -> float:
    """Returns the bytes that one training step must move."""
    return BYTES_PER_PARAMETER * parameters + BYTES_PER_VALUE * batch * views * 3 * shape.image_size**2


def machine(device: str, size: int, runs: int) -> tuple[Machine, list[Measurement]]:
    """Measures products of square matrices of `size` in both precisions and copying, in turn; returns the median rates and the
    rows.
    """
    one = torch.randn(size, size, device=device)
    half = one.bfloat16()
    real = size >= SMALLEST_MATRIX
    many = torch.empty(max(size * size, 2**25) if real else size * size, device=device)  # at least 128 MB: larger than any cache
    target = torch.empty_like(many)
    work = (2**31 if torch.device(device).type == "cpu" else 2**43) if real else 0
    products = 1 + work // size**3

    def multiply(matrix: torch.Tensor) -> None:
        for _ in range(products):
            matrix @ matrix

    def copy() -> None:
        for _ in range(8):
            target.copy_(many)

    ways = {"float32": partial(multiply, one), "bfloat16": partial(multiply, half), "copy": copy}
    spent = in_turn(ways, runs, partial(timed, device=device))
    operations, moved = products * 2 * size**3 / 1e9, 8 * 2 * many.nbytes / 1e9
    rows = [
        rates("matrices, float32", "GFLOP/s", operations, spent["float32"]),
        rates("matrices, bfloat16", "GFLOP/s", operations, spent["bfloat16"]),
        rates("memory copied, read and written", "GB/s", moved, spent["copy"]),
    ]
    return Machine(*(1e9 * row.median for row in rows)), rows


def measure(toy: bool, runs: int) -> Benchmark:
    found, rows = machine("cpu", 64 if toy else 2048, runs)
    for patch in (32, 16):
        shape, name = published_shape(patch), f"ViT-B/{patch}"
        rows.append(Measurement(f"{name}: one picture forward", "GFLOP", (image_operations(shape) / 1e9,)))
        for views in (1, 2, 4):
            operations = step_operations(shape, 320, views, MEAN_TOKENS)
            moved = step_bytes(shape, PARAMETERS[patch], 320, views)
            what = f"{name}, batch 320, image views {views}"
            rows.append(Measurement(f"{what}: operations", "TFLOP a step", (operations / 1e12,)))
            rows.append(Measurement(f"{what}: moved", "GB a step", (moved / 1e9,)))
            for precision in ("float32", "bfloat16"):
                floor = found.seconds(operations, moved, precision)
                rows.append(Measurement(f"{what}: floor of this machine, {precision}", "s a step", (floor,)))
    rows.insert(3, Measurement("one caption forward", "GFLOP", (text_operations(published_shape(16), MEAN_TOKENS) / 1e9,)))
    return Benchmark("floor", rows, {"tokens of a caption": MEAN_TOKENS, "threads": torch.get_num_threads()})


PARAMETERS = {32: 151_277_313, 16: 149_620_737}
"""Parameters of both towers of the published CLIP models."""

if __name__ == "__main__":
    run_alone(measure, __doc__)
