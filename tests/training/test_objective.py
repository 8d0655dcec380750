"""The total is the weighted sum of the losses; a loss of weight 0 is not computed; soft labels take the pass they are told to."""

import pytest
import torch

from tbps.losses import c_itc, identity_targets, itc, n_itc, nt_xent, r_itc
from tbps.losses.targets import soften
from tbps.model.heads import Heads, ProjectionHead
from tbps.training.objective import Features, Labels, LossSettings, objective

SIZE, DIM = 8, 6
LABELS = Labels(torch.tensor([0, 1, 1, 2, 3, 0, 4, 5]))


def features() -> Features:
    generator = torch.Generator().manual_seed(0)
    return Features(*(torch.randn(SIZE, DIM, generator=generator) for _ in range(8)))


def losses_of(settings: LossSettings, alpha: float = 0.0, heads: Heads | None = None) -> dict[str, torch.Tensor]:
    losses = objective(features(), LABELS, torch.tensor(14.0), alpha, heads or Heads(), settings)
    return {**losses.terms, "total": losses.total}


def test_the_total_is_the_weighted_sum_and_off_means_not_computed() -> None:
    given, targets = features(), identity_targets(LABELS.identities, LABELS.identities)
    found = losses_of(LossSettings().override({"n_itc.weight": 0.5, "r_itc.weight": 2, "c_itc.weight": 0.1}))
    first, second = n_itc(given.image, given.text, targets, 14.0), r_itc(given.image, given.text, targets, 14.0)
    third = c_itc(given.image, given.text)
    torch.testing.assert_close(found["total"], 0.5 * first + 2 * second + 0.1 * third)
    assert set(found) == {"n_itc", "r_itc", "c_itc", "total"}
    assert set(losses_of(LossSettings().override({"r_itc.weight": 0}))) == {"n_itc", "total"}


@pytest.mark.parametrize(("views", "image", "text"), [("image", "image_second", "text"), ("text", "image", "text_second")])
def test_multi_view_supervision_is_a_mean_with_the_second_view(views: str, image: str, text: str) -> None:
    given, targets = features(), identity_targets(LABELS.identities, LABELS.identities)
    found = losses_of(LossSettings().override({"r_itc.weight": 0, "mvs.views": views}))
    first = n_itc(given.image, given.text, targets, 14.0)
    second = n_itc(getattr(given, image), getattr(given, text), targets, 14.0)
    torch.testing.assert_close(found["total"], (first + second) / 2)
    torch.testing.assert_close(found["mvs"], second)


def test_self_supervision_goes_through_the_head() -> None:
    given, head = features(), ProjectionHead(DIM, 4)
    found = losses_of(LossSettings().override({"ss.weight": 0.4, "n_itc.weight": 0, "r_itc.weight": 0}), heads=Heads(head))
    assert given.strong_one is not None and given.strong_two is not None
    torch.testing.assert_close(found["total"], 0.4 * nt_xent(head(given.strong_one), head(given.strong_two), 0.1))


def test_soft_labels_of_a_separate_pass_are_its_softmax() -> None:
    given, targets = features(), identity_targets(LABELS.identities, LABELS.identities)
    found = losses_of(LossSettings().override({"r_itc.weight": 0}), alpha=0.3)["total"]
    image, text = (torch.nn.functional.normalize(x, dim=1) for x in (given.image, given.text))
    assert given.calm_image is not None and given.calm_text is not None
    calm_image, calm_text = (torch.nn.functional.normalize(x, dim=1) for x in (given.calm_image, given.calm_text))
    i2t = soften(targets, 14 * calm_image @ calm_text.T, 0.3) * (14 * image @ text.T).log_softmax(1)
    t2i = soften(targets, 14 * calm_text @ calm_image.T, 0.3) * (14 * text @ image.T).log_softmax(1)
    torch.testing.assert_close(found, -(i2t.sum(1).mean() + t2i.sum(1).mean()) / 2)


def test_pair_labels_make_the_loss_of_clip() -> None:
    given = features()
    found = losses_of(LossSettings().override({"r_itc.weight": 0, "n_itc.labels": "pair"}))["total"]
    torch.testing.assert_close(found, itc(given.image, given.text, 14.0))


def test_pairs_that_are_two_in_one_have_both_identities_right() -> None:
    given, mixed = features(), torch.tensor([0, 1, 1, 2, 3, 0, 4, 2])  # the last pair, 5, shows 2 too
    targets = identity_targets(LABELS.identities, LABELS.identities)
    targets[7], targets[3] = 0, 0
    targets[7, [3, 7]] = targets[3, [3, 7]] = 0.5
    settings = LossSettings().override({"r_itc.weight": 0})
    labels = Labels(LABELS.identities, mixed_with=mixed)
    found = objective(given, labels, torch.tensor(14.0), 0.0, Heads(), settings).total
    torch.testing.assert_close(found, n_itc(given.image, given.text, targets, 14.0))
