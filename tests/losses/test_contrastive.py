"""ITC, N-ITC, R-ITC and SDM against loops, values calculated by hand, and the statements of their docstrings.

The tolerance against loops in float64 is 1e-12, for some hundred additions with errors of 1e-16. `identity_targets` is float32
(1/3 is off by 1e-8), so tests in float64 use labels that were computed in float64.
"""

from math import log

import pytest
import torch
from jaxtyping import TypeCheckError

from tbps.errors import SettingsError
from tbps.losses import identity_targets, itc, n_itc, r_itc, sdm
from tests.oracles import losses as oracle

IDS = {"distinct": [4, 1, 3, 0, 2, 9], "shared": [4, 4, 1, 4, 1, 2], "one": [5] * 6}
LOG3 = log(3.0)


def pairs(n, d=5, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    image, text = (torch.randn(n, d, generator=generator, dtype=torch.float64).to(dtype) for _ in range(2))
    return image, text


def exact_targets(ids):
    same = torch.tensor([[float(a == b) for b in ids] for a in ids], dtype=torch.float64)
    return same / same.sum(dim=1, keepdim=True)


def close(ours, expected, tolerance=1e-12):
    assert ours.item() == pytest.approx(expected, rel=tolerance, abs=tolerance)


@pytest.mark.parametrize("ids", IDS.values(), ids=IDS.keys())
@pytest.mark.parametrize("scale", [1.0, 14.3, 100.0])
class TestAgainstLoops:
    def test_itc(self, ids, scale):
        image, text = pairs(len(ids))
        close(itc(image, text, scale), oracle.itc(image.tolist(), text.tolist(), scale))

    @pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
    def test_n_itc(self, ids, scale, alpha):
        image, text = pairs(len(ids))
        ours = n_itc(image, text, exact_targets(ids), scale, alpha)
        close(ours, oracle.n_itc(image.tolist(), text.tolist(), ids, scale, alpha))

    @pytest.mark.parametrize("eps", [1e-2, 1e-6])
    def test_r_itc(self, ids, scale, eps):
        image, text = pairs(len(ids))
        ours = r_itc(image, text, exact_targets(ids), scale, eps)
        close(ours, oracle.r_itc(image.tolist(), text.tolist(), ids, scale, eps))

    def test_sdm(self, ids, scale):
        image, text = pairs(len(ids))
        # labels are float32: 1/3 has a relative error of 3e-8, and its logarithm the same absolute error
        close(sdm(image, text, torch.tensor(ids), scale), oracle.sdm(image.tolist(), text.tolist(), ids, scale), 1e-6)

    def test_float32(self, ids, scale):
        image, text = pairs(len(ids), dtype=torch.float32)
        loss = n_itc(image, text, identity_targets(ids, ids), scale, 0.5)
        assert loss.dtype == torch.float32
        # a cosine is off by 1e-7 and multiplied by a scale of up to 100
        close(loss, oracle.n_itc(image.tolist(), text.tolist(), ids, scale, 0.5), 2e-5)


class TestByHand:
    """Two pairs with orthogonal embeddings and e^scale = 3: p = [[3/4, 1/4], [1/4, 3/4]]."""

    eye = torch.eye(2, dtype=torch.float64)

    def test_itc(self):
        close(itc(self.eye, self.eye, LOG3), -log(0.75))

    def test_n_itc_of_two_people(self):
        close(n_itc(self.eye, self.eye, self.eye, LOG3), -log(0.75))

    def test_n_itc_of_one_person(self):
        close(n_itc(self.eye, self.eye, identity_targets([1, 1], [1, 1]), LOG3), -(log(0.75) + log(0.25)) / 2)

    def test_n_itc_with_soft_labels(self):
        # label of the pair: 0.5 * 3/4 + 0.5 * 1 = 7/8
        close(n_itc(self.eye, self.eye, self.eye, LOG3, alpha=0.5), -(0.875 * log(0.75) + 0.125 * log(0.25)))

    def test_r_itc(self):
        close(r_itc(self.eye, self.eye, self.eye, LOG3), 0.75 * log(0.75 / 1.01) + 0.25 * log(0.25 / 0.01))

    def test_sdm(self):
        one_direction = 0.75 * log(0.75 / (1 + 1e-8)) + 0.25 * log(0.25 / 1e-8)
        close(sdm(self.eye, self.eye, torch.tensor([1, 2]), LOG3), 2 * one_direction)

    def test_labels_of_the_two_directions_are_not_transposed(self):
        # both images equal text 0; row 0 of the labels marks both columns as correct, row 1 only column 1
        image, text = torch.tensor([[1.0, 0.0], [1.0, 0.0]]).double(), self.eye
        targets = torch.tensor([[0.5, 0.5], [0.0, 1.0]]).double()
        i2t = -(0.5 * log(0.75) + 0.5 * log(0.25)) - log(0.25)
        t2i = 2 * log(2.0)
        close(n_itc(image, text, targets, LOG3), (i2t + t2i) / 4)


class TestMixedPairs:
    both = torch.tensor([[0, 0], [1, 2], [3, 1], [2, 2], [4, 0], [5, 5]])

    def test_sdm_and_itc_against_loops(self):
        image, text = pairs(6)
        ids = [tuple(row) for row in self.both.tolist()]
        lists = image.tolist(), text.tolist()
        close(sdm(image, text, self.both, 7.0), oracle.sdm(*lists, ids, 7.0), 1e-6)  # float32 labels, as above
        targets = identity_targets(self.both, self.both)
        close(n_itc(image, text, targets, 7.0, 0.3), oracle.n_itc(*lists, ids, 7.0, 0.3), 1e-6)
        close(r_itc(image, text, targets, 7.0), oracle.r_itc(*lists, ids, 7.0), 1e-6)

    def test_the_order_of_the_two_identities_is_irrelevant_and_equal_ones_count_once(self):
        image, text = pairs(6)
        assert torch.equal(sdm(image, text, self.both.flip(1)), sdm(image, text, self.both))
        plain = torch.tensor(IDS["shared"])
        assert torch.equal(sdm(image, text, torch.stack([plain, plain], 1)), sdm(image, text, plain))

    def test_rows_of_a_part_among_all_columns(self):
        image, text = pairs(6)
        parts = [sdm(image[s], text[s], self.both, gathered=(image, text), row_start=s.start) for s in (slice(0, 3), slice(3, 6))]
        close(sum(parts) / 2, sdm(image, text, self.both).item())


def test_itc_is_n_itc_of_distinct_identities():
    image, text = pairs(6)
    assert torch.equal(itc(image, text, 20.0), n_itc(image, text, torch.eye(6), 20.0))


def test_soft_labels_carry_no_gradient():
    image, text = pairs(5)
    image.requires_grad_(), text.requires_grad_()
    targets = exact_targets([1, 1, 2, 3, 3])
    ours = torch.autograd.grad(n_itc(image, text, targets, 10.0, alpha=0.4), (image, text))

    cosines = torch.nn.functional.cosine_similarity(image[:, None], text[None], dim=2) * 10.0
    constant = [0.4 * s.detach().softmax(1) + 0.6 * targets for s in (cosines, cosines.T)]
    by_hand = sum(-(c * s.log_softmax(1)).sum() / 10 for c, s in zip(constant, (cosines, cosines.T), strict=True))
    torch.testing.assert_close(ours, torch.autograd.grad(by_hand, (image, text)))


class TestLabelsOfRItc:
    def test_normalised_labels_change_the_loss_by_a_constant(self):
        image, text = pairs(6)
        image.requires_grad_()
        targets = exact_targets(IDS["shared"])
        reference, normalised = (r_itc(image, text, targets, 20.0, labels=name) for name in ("reference", "normalised"))
        close(normalised - reference, log(1 + 6 * 1e-2))
        torch.testing.assert_close(torch.autograd.grad(reference, image), torch.autograd.grad(normalised, image))

    def test_the_minimum_with_normalised_labels_is_zero(self):
        # p = (q^ + eps) / (1 + N eps) when e^scale = (1 + eps) / eps
        eye = torch.eye(8, dtype=torch.float64)
        assert r_itc(eye, eye, eye, log(1.01 / 0.01), labels="normalised").item() == pytest.approx(0.0, abs=1e-12)
        close(r_itc(eye, eye, eye, log(1.01 / 0.01)), -log(1.08))

    @pytest.mark.parametrize("labels", ["reference", "normalised"])
    @pytest.mark.parametrize(("n", "uniform_wins"), [(96, False), (97, True), (320, True)])
    def test_uniform_scores_have_a_smaller_loss_than_perfect_ones_from_97_pairs(self, n, labels, uniform_wins):
        eye = torch.eye(n, dtype=torch.float64)
        uniform, perfect = (r_itc(eye, eye, eye, scale, labels=labels).item() for scale in (0.0, 1e4))
        assert (uniform < perfect) is uniform_wins

    def test_perfect_scores_have_a_smaller_loss_with_a_smaller_eps(self):
        eye = torch.eye(320, dtype=torch.float64)
        uniform, perfect = (r_itc(eye, eye, eye, scale, eps=1e-3).item() for scale in (0.0, 1e4))
        assert perfect < uniform


class TestRefusals:
    image, text = pairs(3)

    @pytest.mark.parametrize("eps", [0.0, -1.0, float("nan")])
    def test_eps(self, eps):
        with pytest.raises(SettingsError, match="eps"):
            r_itc(self.image, self.text, torch.eye(3), 1.0, eps)

    def test_labels(self):
        with pytest.raises((SettingsError, TypeCheckError), match="'other'"):
            r_itc(self.image, self.text, torch.eye(3), 1.0, labels="other")

    @pytest.mark.parametrize("loss", [n_itc, r_itc])
    def test_targets_of_another_shape_do_not_broadcast(self, loss):
        with pytest.raises((ValueError, TypeCheckError), match=r"targets \(1, 3\)|Type-check error"):
            loss(self.image, self.text, torch.full((1, 3), 1 / 3), 1.0)

    def test_identities_of_another_count(self):
        with pytest.raises(ValueError, match="all 3 columns"):
            sdm(self.image, self.text, torch.tensor([1, 2]))
