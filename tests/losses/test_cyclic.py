"""C-ITC against loops and against values calculated by hand."""

import pytest
import torch
from jaxtyping import TypeCheckError

from tbps.errors import SettingsError
from tbps.losses import c_itc
from tests.oracles import losses as oracle


def pairs(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, n, 5, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("weights", [(0.25, 0.25), (1.0, 0.0), (0.0, 1.0), (0.3, 2.0)])
@pytest.mark.parametrize("n", [1, 2, 7])
def test_against_loops(n, weights):
    image, text = pairs(n)
    expected = oracle.c_itc(image.tolist(), text.tolist(), *weights)
    assert c_itc(image, text, *weights).item() == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_by_hand():
    # s(I_i, I_j) - s(T_i, T_j) is 0 on the diagonal and -1 off it; s(I_i, T_j) - s(I_j, T_i) is [[0, 1], [-1, 0]]
    image, text = torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert c_itc(image, text).item() == pytest.approx(0.25 * 0.5 + 0.25 * 0.5)
    assert c_itc(image, text, variant="paper").item() == pytest.approx(2 / 2 + 2 / 2)


@pytest.mark.parametrize("n", [1, 5])
def test_the_variant_paper_is_n_times_the_unweighted_mean(n):
    image, text = pairs(n)
    expected = n * oracle.c_itc(image.tolist(), text.tolist(), 1.0, 1.0)
    assert c_itc(image, text, variant="paper").item() == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_equal_modalities_have_loss_0():
    image, _ = pairs(6)
    assert c_itc(image, 3.0 * image).item() == pytest.approx(0.0, abs=1e-28)  # (1e-16)^2 per entry


def test_the_variant_paper_takes_no_weights():
    with pytest.raises(SettingsError, match=r"in_modal 1\.0"):
        c_itc(*pairs(2), in_modal=1.0, variant="paper")


def test_unknown_variant():
    with pytest.raises((SettingsError, TypeCheckError), match="'mine'"):
        c_itc(*pairs(2), variant="mine")
