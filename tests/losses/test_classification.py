"""ID and MLM losses against scikit-learn and sums by hand; the distribution of masked tokens."""

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss

from tbps.losses import id_loss, mask_tokens, mlm_loss
from tbps.losses.classification import UNMASKED


def test_id_loss_is_the_mean_log_loss_of_both_modalities() -> None:
    rng = np.random.default_rng(0)
    image, text = (torch.from_numpy(rng.normal(size=(7, 5))) for _ in range(2))
    labels = torch.tensor([0, 4, 2, 2, 1, 3, 0])
    losses = [log_loss(labels.numpy(), logits.softmax(1).numpy(), labels=list(range(5))) for logits in (image, text)]
    assert float(id_loss(image, text, labels)) == pytest.approx(sum(losses) / 2, abs=1e-12)


def test_a_mixed_pair_has_half_of_its_target_on_each_identity() -> None:
    rng = np.random.default_rng(1)
    image, text = (torch.from_numpy(rng.normal(size=(4, 5))) for _ in range(2))
    labels = torch.tensor([[0, 4], [2, 2], [3, 1], [1, 3]])
    soft = torch.zeros(4, 5, dtype=torch.float64)
    for row, both in enumerate(labels.tolist()):
        for label in both:
            soft[row, label] += 0.5
    by_hand = -sum((soft * logits.log_softmax(1)).sum() / 4 for logits in (image, text)) / 2
    torch.testing.assert_close(id_loss(image, text, labels), by_hand, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(id_loss(image, text, labels.flip(1)), by_hand, rtol=1e-12, atol=1e-12)
    equal = labels[:, :1].repeat(1, 2)
    assert torch.equal(id_loss(image, text, equal), id_loss(image, text, labels[:, 0]))


def test_mlm_loss_is_the_mean_over_masked_words() -> None:
    logits = torch.randn(6, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([3, UNMASKED, 0, UNMASKED, 10, UNMASKED])
    by_hand = [-torch.log(logits[row].exp()[labels[row]] / logits[row].exp().sum()) for row in (0, 2, 4)]
    torch.testing.assert_close(mlm_loss(logits, labels), sum(by_hand) / 3)


def test_mlm_losses_of_parts_add_up() -> None:
    logits = torch.randn(6, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    labels = torch.tensor([3, UNMASKED, 0, UNMASKED, 10, 1])
    parts = [mlm_loss(logits[rows], labels[rows], count=4.0) for rows in (slice(0, 2), slice(2, 6))]
    torch.testing.assert_close(sum(parts), mlm_loss(logits, labels))


def test_without_masked_words_the_loss_is_0() -> None:
    logits = torch.randn(3, 4, requires_grad=True)
    loss = mlm_loss(logits, torch.full((3,), UNMASKED))
    torch.autograd.backward(loss)
    assert float(loss.detach()) == 0 and logits.grad is not None and not logits.grad.any()


def test_masking_leaves_other_tokens_alone_and_splits_80_10_10() -> None:
    words, mask, start, end = 100, 100, 101, 102
    tokens = torch.randint(words, (400, 50), generator=torch.Generator().manual_seed(2))
    tokens[:, 0], tokens[:, 40:] = start, end
    masked, labels = mask_tokens(tokens, words, mask, 0.15, torch.Generator().manual_seed(3))
    chosen = labels != UNMASKED
    assert not chosen[:, 0].any() and not chosen[:, 40:].any()
    assert torch.equal(masked[~chosen], tokens[~chosen]) and torch.equal(labels[chosen], tokens[chosen])
    count = int(chosen.sum())
    # 15,600 words; bounds of four standard errors
    assert count / 15_600 == pytest.approx(0.15, abs=4 * (0.15 * 0.85 / 15_600) ** 0.5)
    to_mask, kept = (masked[chosen] == mask).float().mean(), (masked[chosen] == tokens[chosen]).float().mean()
    assert float(to_mask) == pytest.approx(0.8, abs=4 * (0.16 / count) ** 0.5)
    assert float(kept) == pytest.approx(0.1 + 0.1 / words, abs=4 * (0.09 / count) ** 0.5)
    assert int(masked.max()) <= end
