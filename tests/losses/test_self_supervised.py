"""NT-Xent against loops and against values calculated by hand."""

from math import log

import pytest
import torch

from tbps.errors import SettingsError
from tbps.losses import nt_xent
from tests.oracles import losses as oracle


@pytest.mark.parametrize("temperature", [0.1, 1.0])
@pytest.mark.parametrize("n", [1, 2, 6])
def test_against_loops(n, temperature):
    a, b = torch.randn(2, n, 5, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
    expected = oracle.nt_xent(a.tolist(), b.tolist(), temperature)
    assert nt_xent(a, b, temperature).item() == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_by_hand():
    # e^(1 / temperature) = 3: the softmax has weight 3 for the other view and 1 for each view of the other row
    eye = torch.eye(2, dtype=torch.float64)
    assert nt_xent(eye, eye, temperature=1 / log(3.0)).item() == pytest.approx(-log(3 / 5), rel=1e-12)


def test_a_single_row_has_loss_0():
    assert nt_xent(torch.tensor([[1.0, 2.0]]), torch.tensor([[-3.0, 1.0]])).item() == 0.0


def test_temperature_must_be_positive():
    with pytest.raises(SettingsError, match="temperature"):
        nt_xent(torch.eye(2), torch.eye(2), temperature=0.0)
