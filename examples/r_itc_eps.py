"""Effect of R-ITC's eps on the minimum of the loss, per batch size, and on Rank-1 after thirty updates.

    tbps data mannequins people --train 240 --val 60 --test 200 --seed 41
    python examples/another_domain.py people evening
    python examples/r_itc_eps.py evening 3

First the loss is minimised over all distributions p; the minimum over N pairs has a share of (1 + eps) / (1 + N eps) on the correct
column. Then the bundled model is trained with the settings of the study's row `r_itc` (table `losses`, one epoch of batches of 64),
with every eps and without R-ITC. The second argument is the number of seeds.

Cost: one minute per seed and eps on two cores. Result with one seed: Rank-1 of 11.6, 16.6 and 21.6 % with eps
0.05, 0.01 and 0.0025, and 31.0 % without R-ITC (docs/study/README.md).
"""

import sys
import tempfile
from pathlib import Path

import torch

from tbps.data import read_dataset
from tbps.losses import identity_targets, r_itc
from tbps.study.ablations import losses
from tbps.training.observer import Silent
from tbps.training.start import start_model
from tbps.training.trainer import train

MODEL = Path(__file__).parents[1] / "models" / "mannequin-tiny"
EPS = (0.05, 0.01, 0.0025, None)
CHANGES = {"schedule.epochs": 1, "schedule.peak_rate": 1e-3, "batch_size": 64, "precision": "bfloat16"}


def best_share(pairs: int, eps: float) -> float:
    """Returns the share of p on the correct column at the minimum of R-ITC, by bisection.

    All correct pairs have the same similarity; the similarity of all others is 0.
    """
    identity, targets = torch.eye(pairs, dtype=torch.float64), identity_targets(range(pairs), range(pairs))
    low, high = 0.0, 50.0
    while high - low > 1e-6:
        middle = torch.tensor((low + high) / 2, dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(r_itc(identity, identity, targets, middle, eps), middle)
        low, high = (low, middle.item()) if slope > 0 else (middle.item(), high)
    return float((low * identity).softmax(dim=1)[0, 0])


def rank_1_after_one_epoch(root: Path, eps: float | None, seed: int) -> float:
    """Returns Rank-1 on the test split in percent; None trains without R-ITC."""
    table = losses()
    settings = table.row("clip*+aug" if eps is None else "r_itc").work.train.override(CHANGES | {"seed": seed})
    settings = settings if eps is None else settings.override({"losses.r_itc.eps": eps})
    dataset = read_dataset("folder", root)
    with tempfile.TemporaryDirectory() as folder:
        outcome = train(settings, start_model(settings, dataset, MODEL, "cpu"), dataset, Path(folder) / "run", Silent())
    assert outcome.standing is not None
    return outcome.standing.model.r1


def main(root: Path, seeds: int) -> None:
    """Prints the minima and the Rank-1 values."""
    for pairs in (16, 64, 320):
        shares = ", ".join(f"{100 * best_share(pairs, eps):.0f} % with {eps}" for eps in EPS if eps)
        print(f"least R-ITC of {pairs} people puts on the right column: {shares}")
    for eps in EPS:
        found = [rank_1_after_one_epoch(root, eps, seed) for seed in range(seeds)]
        print(
            f"Rank-1 after one epoch, {'without R-ITC' if eps is None else f'eps {eps}'}: {sum(found) / len(found):.1f} {found}",
            flush=True,
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
