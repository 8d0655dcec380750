"""The total is the weighted sum of the losses; a loss of weight 0 is not computed; soft labels come from the chosen pass."""

import pytest
import torch

from tbps.losses import c_itc, id_loss, identity_targets, itc, n_itc, nt_xent, r_itc, sdm, tal
from tbps.losses.targets import soften
from tbps.model.heads import Heads, IdentityClassifier, ProjectionHead
from tbps.training.objective import Features, Labels, LossSettings, objective

SIZE, DIM = 8, 6
LABELS = Labels(torch.tensor([0, 1, 1, 2, 3, 0, 4, 5]))


def features() -> Features:
    generator = torch.Generator().manual_seed(0)
    return Features(*(torch.randn(SIZE, DIM, generator=generator) for _ in range(8)))


def losses_of(settings: LossSettings, alpha: float = 0.0, heads: Heads | None = None) -> dict[str, torch.Tensor]:
    losses = objective(features(), LABELS, torch.tensor(14.0), alpha, heads or Heads(), settings)
    return {**losses.terms, "total": losses.total}


def test_the_total_is_the_weighted_sum_and_losses_of_weight_0_are_not_computed() -> None:
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


def test_soft_labels_are_the_softmax_of_a_separate_pass() -> None:
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


def test_both_identities_of_a_mixed_pair_are_right() -> None:
    given, mixed = features(), torch.tensor([0, 1, 1, 2, 3, 0, 4, 2])  # the last pair shows identities 5 and 2
    targets = identity_targets(LABELS.identities, LABELS.identities)
    targets[7], targets[3] = 0, 0
    targets[7, [3, 7]] = targets[3, [3, 7]] = 0.5
    settings = LossSettings().override({"r_itc.weight": 0})
    labels = Labels(LABELS.identities, mixed_with=mixed)
    found = objective(given, labels, torch.tensor(14.0), 0.0, Heads(), settings).total
    torch.testing.assert_close(found, n_itc(given.image, given.text, targets, 14.0))


def test_every_loss_over_identities_counts_both_of_a_mixed_pair() -> None:
    given, mixed = features(), torch.tensor([0, 1, 1, 2, 3, 0, 4, 2])
    both, known = torch.stack([LABELS.identities, mixed], 1), torch.arange(6)
    settings = LossSettings().override({"sdm.weight": 1, "tal.weight": 1, "id.weight": 1})
    heads = Heads(classifier=IdentityClassifier(DIM, 6))
    assert heads.classifier is not None
    found = objective(given, Labels(LABELS.identities, known, mixed), torch.tensor(14.0), 0.0, heads, settings).terms
    image, text = given.image, given.text
    torch.testing.assert_close(found["sdm"], sdm(image, text, both))
    torch.testing.assert_close(found["tal"], tal(image, text, both))
    torch.testing.assert_close(found["r_itc"], r_itc(image, text, identity_targets(both, both), 14.0))
    torch.testing.assert_close(found["id"], id_loss(heads.classifier(image), heads.classifier(text), both).detach())
    plain = objective(given, Labels(LABELS.identities, known), torch.tensor(14.0), 0.0, heads, settings).terms
    assert all(not torch.equal(found[name], plain[name]) for name in found)


def test_pair_weights_apply_to_image_text_losses_only() -> None:
    given, weights = features(), torch.tensor([1.0, 0, 1, 1, 0.5, 1, 0, 1])
    changes = {"sdm.weight": 1, "tal.weight": 1, "mvs.views": "image", "ss.weight": 1}
    heads = Heads(ProjectionHead(DIM, 4))
    labels = Labels(LABELS.identities, weights=weights)
    found = objective(given, labels, torch.tensor(14.0), 0.0, heads, LossSettings().override(changes)).terms
    ids, targets = LABELS.identities, identity_targets(LABELS.identities, LABELS.identities)
    assert given.image_second is not None
    for name, wanted in {
        "n_itc": n_itc(given.image, given.text, targets, 14.0, weights=weights),
        "mvs": n_itc(given.image_second, given.text, targets, 14.0, weights=weights),
        "r_itc": r_itc(given.image, given.text, targets, 14.0, weights=weights),
        "sdm": sdm(given.image, given.text, ids, weights=weights),
        "tal": tal(given.image, given.text, ids, weights=weights),
        "ss_i": losses_of(LossSettings().override(changes), heads=heads)["ss_i"],
    }.items():
        torch.testing.assert_close(found[name], wanted, msg=lambda text, name=name: f"{name}: {text}")


def full_features() -> Features:
    generator = torch.Generator().manual_seed(3)
    return Features(*(torch.randn(SIZE, DIM, generator=generator) for _ in range(12)))


@pytest.mark.parametrize("views", ["image", "text", "both"])
def test_a_separate_pass_softens_the_second_view_by_the_second_view(views: str) -> None:
    """As in the reference, soft labels of the second image view come from its own similarities in the separate pass."""
    given, targets, alpha = full_features(), identity_targets(LABELS.identities, LABELS.identities), 0.4
    settings = LossSettings().override({"r_itc.weight": 0, "mvs.views": views, "n_itc.soft_pass": "separate"})
    found = objective(given, LABELS, torch.tensor(14.0), alpha, Heads(), settings).terms["mvs"]
    unit = {name: torch.nn.functional.normalize(getattr(given, name), dim=1) for name in Features.__slots__ if name != "mlm"}
    image, calm_image = ("image_second", "calm_image_second") if views in ("image", "both") else ("image", "calm_image")
    text, calm_text = ("text_second", "calm_text_second") if views in ("text", "both") else ("text", "calm_text")
    i2t = (alpha * (14 * unit[calm_image] @ unit[calm_text].T).softmax(1) + (1 - alpha) * targets) * (
        14 * unit[image] @ unit[text].T
    ).log_softmax(1)
    t2i = (alpha * (14 * unit[calm_text] @ unit[calm_image].T).softmax(1) + (1 - alpha) * targets) * (
        14 * unit[text] @ unit[image].T
    ).log_softmax(1)
    torch.testing.assert_close(found, -(i2t.sum(1).mean() + t2i.sum(1).mean()) / 2)
