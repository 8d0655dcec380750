"""TAL against its formula row by row, and as an upper bound of the triplet loss."""

import math

import pytest
import torch
import torch.nn.functional as F

from tbps.errors import SettingsError
from tbps.losses import tal


def by_hand(image: torch.Tensor, text: torch.Tensor, ids: list[int] | list[list[int]], tau: float, margin: float) -> float:
    people = [{i} if isinstance(i, int) else set(i) for i in ids]
    image, text = F.normalize(image, dim=1), F.normalize(text, dim=1)
    total = 0.0
    for rows, columns in ((image, text), (text, image)):
        for i, row in enumerate(rows):
            s = [float(row @ column) for column in columns]
            right = [j for j in range(len(s)) if people[j] & people[i]]
            wrong = [j for j in range(len(s)) if not people[j] & people[i]]
            weights = [math.exp(s[j] / tau) for j in right]
            mean = sum(w * s[j] for w, j in zip(weights, right, strict=True)) / sum(weights)
            total += max(0.0, margin - mean + tau * math.log(sum(math.exp(s[j] / tau) for j in wrong))) / len(ids)
    return total


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(6, 5, dtype=torch.float64, generator=generator), torch.randn(6, 5, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize(("tau", "margin"), [(0.015, 0.1), (0.1, 0.3)])
def test_tal_is_its_formula(tau: float, margin: float) -> None:
    image, text = batch()
    ids = [0, 1, 1, 2, 0, 3]
    assert float(tal(image, text, torch.tensor(ids), tau, margin)) == pytest.approx(
        by_hand(image, text, ids, tau, margin), abs=1e-12
    )


def test_both_identities_of_a_mixed_pair_are_right() -> None:
    image, text = batch()
    ids = torch.tensor([[0, 0], [1, 2], [3, 1], [2, 2], [4, 0], [5, 5]])
    wanted = by_hand(image, text, ids.tolist(), 0.1, 0.3)
    assert float(tal(image, text, ids, 0.1, 0.3)) == pytest.approx(wanted, abs=1e-12)
    assert torch.equal(tal(image, text, ids.flip(1), 0.1, 0.3), tal(image, text, ids, 0.1, 0.3))
    plain = torch.tensor([0, 1, 1, 2, 0, 3])
    assert torch.equal(tal(image, text, torch.stack([plain, plain], 1)), tal(image, text, plain))


def test_tal_bounds_the_triplet_loss_with_the_hardest_negative() -> None:
    image, text = batch()
    s = F.normalize(image, dim=1) @ F.normalize(text, dim=1).T
    others = s.masked_fill(torch.eye(6, dtype=torch.bool), -2)
    hardest = (0.1 - s.diag() + others.max(1).values).clamp(min=0) + (0.1 - s.diag() + others.max(0).values).clamp(min=0)
    assert float(tal(image, text, torch.arange(6))) >= float(hardest.mean())


def test_separated_pairs_and_a_single_identity_have_loss_0() -> None:
    assert float(tal(torch.eye(5), torch.eye(5), torch.arange(5))) == 0
    image, text = batch()
    assert float(tal(image, text, torch.zeros(6, dtype=torch.int64))) == 0


def test_a_gradient_is_finite_where_a_row_has_no_other_identity() -> None:
    image, text = (tensor.requires_grad_() for tensor in batch())
    torch.autograd.backward(tal(image, text, torch.zeros(6, dtype=torch.int64)))
    assert image.grad is not None and torch.isfinite(image.grad).all()


def test_the_weights_of_the_own_identity_are_constants_for_the_gradient() -> None:
    image, text = (tensor.requires_grad_() for tensor in batch())
    torch.autograd.backward(tal(image, text, torch.arange(6), 0.1, 0.3))
    # With distinct identities the only weight is 1, so the gradient equals finite differences of the formula.
    step = 1e-6 * torch.eye(5, dtype=torch.float64)
    for row in range(6):
        for column in range(5):
            nudged = [image.detach().clone() for _ in range(2)]
            nudged[0][row] += step[column]
            nudged[1][row] -= step[column]
            above, below = (by_hand(one, text.detach(), list(range(6)), 0.1, 0.3) for one in nudged)
            assert image.grad is not None
            assert float(image.grad[row, column]) == pytest.approx((above - below) / 2e-6, abs=1e-6)


def test_temperature_must_be_positive() -> None:
    with pytest.raises(SettingsError, match="temperature"):
        tal(*batch(), torch.arange(6), temperature=0.0)
