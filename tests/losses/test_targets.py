"""Identity-normalised labels and soft labels."""

import numpy as np
import pytest
import torch

from tbps.errors import SettingsError
from tbps.losses import identity_targets
from tbps.losses.targets import soften


def test_hand_computed_targets():
    targets = identity_targets([7, 8, 7], [7, 7, 8, 9, 7])
    third = 1 / 3
    expected = torch.tensor([[third, third, 0, 0, third], [0, 0, 1, 0, 0], [third, third, 0, 0, third]])
    assert targets.dtype == torch.float32
    assert torch.equal(targets, expected)


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor, lambda ids: torch.tensor(ids, dtype=torch.int32)])
def test_every_kind_of_identities(kind):
    assert torch.equal(identity_targets(kind([1, 2, 1]), kind([1, 2, 1])), identity_targets([1, 2, 1], [1, 2, 1]))


def test_rows_sum_to_one():
    ids = torch.randint(0, 20, (100,), generator=torch.Generator().manual_seed(0))
    sums = identity_targets(ids, ids).sum(dim=1)
    torch.testing.assert_close(sums, torch.ones(100), rtol=0, atol=1e-6)  # up to 100 additions in float32 with errors of 6e-8


def test_all_one_identity_is_uniform():
    assert torch.equal(identity_targets([3] * 4, [3] * 4), torch.full((4, 4), 0.25))


MIXED = torch.tensor([[0, 0], [1, 2], [3, 1], [2, 2], [4, 0], [5, 5]])


def test_mixed_pairs_count_both_identities():
    targets = identity_targets(MIXED[:4], MIXED)  # local rows, global columns
    for row, found in zip(MIXED[:4].tolist(), targets, strict=True):
        right = torch.tensor([float(bool(set(row) & set(column))) for column in MIXED.tolist()])
        assert torch.equal(found, right / right.sum())
    assert torch.equal(identity_targets(MIXED[:4], MIXED.flip(1)), targets)
    assert torch.equal(identity_targets(MIXED[:4].flip(1), MIXED), targets)
    with pytest.raises(ValueError, match=r"identity \[3, 1\] of row 2"):
        identity_targets(MIXED, MIXED[[0, 3, 4, 5, 3]])


def test_two_equal_identities_count_once():
    ids = torch.tensor([7, 8, 7, 9])
    twice = torch.stack([ids, ids], 1)
    for rows, columns in ((twice, twice), (twice, ids), (ids, twice)):
        assert torch.equal(identity_targets(rows, columns), identity_targets(ids, ids))


def test_a_row_without_a_column_is_refused():
    with pytest.raises(ValueError, match="identity 5 of row 1"):
        identity_targets([1, 5], [1, 2])


def test_soften_mixes_and_stops_the_gradient():
    logits = torch.tensor([[0.0, np.log(3.0)]], dtype=torch.float64, requires_grad=True)
    mixed = soften(torch.tensor([[1.0, 0.0]]), logits, alpha=0.2)
    torch.testing.assert_close(mixed, torch.tensor([[0.8 + 0.2 * 0.25, 0.2 * 0.75]], dtype=torch.float64))
    assert not mixed.requires_grad


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_soften_refuses_a_weight_outside_0_and_1(alpha):
    with pytest.raises(SettingsError, match="alpha"):
        soften(torch.eye(2), torch.zeros(2, 2), alpha)
