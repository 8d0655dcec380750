"""Pair weights multiply the loss of each row before the mean over all rows."""

import pytest
import torch

from tbps.losses import identity_targets, n_itc, r_itc, sdm, tal

IDS = torch.tensor([3, 3, 1, 3, 2, 1, 7, 8])
ALL = slice(0, 8)
LOSSES = {
    "n_itc": lambda i, t, rows, **more: n_itc(i, t, identity_targets(IDS[rows], IDS), 12.0, 0.3, **more),
    "r_itc": lambda i, t, rows, **more: r_itc(i, t, identity_targets(IDS[rows], IDS), 12.0, **more),
    "sdm": lambda i, t, rows, **more: sdm(i, t, IDS, 12.0, row_start=rows.start, **more),
    "tal": lambda i, t, rows, **more: tal(i, t, IDS, 0.1, 0.3, row_start=rows.start, **more),
}

pytestmark = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())


def pairs():
    return torch.randn(2, 8, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64).unbind()


def test_the_loss_is_the_weighted_mean_of_the_losses_of_single_rows(loss):
    image, text = pairs()
    weights = torch.tensor([1, 0, 0.5, 2, 1, 0, 1, 0.25], dtype=torch.float64)
    rows = [loss(image[i : i + 1], text[i : i + 1], slice(i, i + 1), gathered=(image, text)) for i in range(8)]
    by_hand = sum(w * row for w, row in zip(weights, rows, strict=True)) / 8
    torch.testing.assert_close(loss(image, text, ALL, weights=weights), by_hand, rtol=1e-12, atol=1e-12)


def test_weights_of_1_give_exactly_the_unweighted_loss(loss):
    image, text = (x.float() for x in pairs())
    assert torch.equal(loss(image, text, ALL, weights=torch.ones(8)), loss(image, text, ALL))


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_a_pair_of_weight_0_does_not_pull_its_image_and_text_together(loss, weight):
    """Pair 6 is the only one of its identity: without its row, the gradient of its image does not depend on its text."""
    image, text = pairs()
    weights = torch.ones(8, dtype=torch.float64)
    weights[6] = weight
    learned = []
    for own in (text[6], -text[6]):
        given, captions = image.clone().requires_grad_(), text.clone()
        captions[6] = own
        learned.append(torch.autograd.grad(loss(given, captions, ALL, weights=weights), given)[0][6])
    assert learned[0].abs().max() > 0
    assert torch.allclose(*learned, rtol=0, atol=1e-12) is (weight == 0)
