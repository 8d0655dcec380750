"""The objective of two processes has the gradient of one process with the whole batch; a loss of weight 0 is not computed."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from tbps.losses import identity_targets, n_itc, r_itc
from tbps.training.objective import Features, LossSettings, objective

SIZE, DIM, ALPHA = 8, 6, 0.3


def batch() -> Features:
    generator = torch.Generator().manual_seed(0)
    image, text = (torch.randn(SIZE, DIM, generator=generator) for _ in range(2))
    return Features(image, text, torch.tensor([0, 1, 1, 2, 3, 0, 4, 5]))


def gradients(features: Features, scale: torch.Tensor) -> list[torch.Tensor]:
    leaves = [features.image.requires_grad_(), features.text.requires_grad_(), scale.requires_grad_()]
    losses = objective(features, scale, ALPHA, LossSettings(r_itc_labels="normalised"))
    torch.autograd.backward(losses.total)
    return [leaf.grad for leaf in leaves if leaf.grad is not None]


def _worker(rank: int, world: int, rendezvous: str, out: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=world)
    whole, share = batch(), SIZE // world
    rows = slice(rank * share, (rank + 1) * share)
    local = Features(whole.image[rows].clone(), whole.text[rows].clone(), whole.identities[rows])
    torch.save(gradients(local, torch.tensor(14.0)), f"{out}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 4])
def test_processes_together_have_the_gradient_of_the_whole_batch(world: int, tmp_path: Path) -> None:
    expected = gradients(batch(), torch.tensor(14.0))
    mp.spawn(_worker, args=(world, str(tmp_path / "rendezvous"), str(tmp_path)), nprocs=world)
    parts = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(world)]
    # Each process minimises the mean over its own rows, so averaging over processes gives the whole; float32 sums differ by 1e-6.
    for position in (0, 1):
        together = torch.cat([part[position] for part in parts]) / world
        torch.testing.assert_close(together, expected[position], atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(sum(part[2] for part in parts) / world, expected[2], atol=1e-6, rtol=1e-4)


def test_the_total_is_the_weighted_sum_and_off_means_not_computed() -> None:
    features = batch()
    targets = identity_targets(features.identities, features.identities)
    settings = LossSettings(n_itc=0.5, r_itc=2.0)
    losses = objective(features, torch.tensor(14.0), 0.0, settings)
    first, second = n_itc(features.image, features.text, targets, 14.0), r_itc(features.image, features.text, targets, 14.0)
    torch.testing.assert_close(losses.total, 0.5 * first + 2 * second)
    assert set(objective(features, torch.tensor(14.0), 0.0, LossSettings(r_itc=0)).terms) == {"n_itc"}
