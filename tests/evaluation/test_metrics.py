"""Metrics against a full sort, all orders of tied images, scikit-learn, and values calculated by hand.

Percentages are means of fractions in float64; the tolerance of 1e-9 covers the rounding of a few thousand additions.
"""

import json
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from sklearn.metrics import average_precision_score
from threadpoolctl import threadpool_info

from tbps.errors import EvaluationError
from tbps.evaluation import Report, chance, counting, metrics, metrics_from_scores, retrieval_metrics
from tbps.evaluation.counting import on_every_core
from tests.oracles import retrieval as oracle

KS = (1, 2, 3, 5, 10)
# TypeCheckError: with the pytest option that checks shapes and types, annotations refuse some inputs first
REFUSALS = (EvaluationError, TypeCheckError)


def from_matrix(scores, text_ids, image_ids, ks=KS, **options):
    matrix = np.asarray(scores)
    return metrics_from_scores(lambda start, stop: matrix[start:stop], text_ids, image_ids, ks, **options)


def _threads_of_numpys_blas():
    """Thread counts of the BLAS in NumPy's wheel; libraries of other packages may keep one count per thread."""
    return [pool["num_threads"] for pool in threadpool_info() if "numpy.libs" in pool["filepath"]]


def assert_equals(report: Report, expected: oracle.Metrics):
    ours = [*(report.ranks[k] for k in expected.ranks), report.map, report.minp]
    assert ours == pytest.approx([*expected.ranks.values(), expected.map, expected.minp], abs=1e-9)


@st.composite
def tied_scores(draw, most_images):
    """Few distinct scores and identities, so that ties and several relevant images are frequent."""
    image_ids = draw(st.lists(st.integers(0, 3), min_size=1, max_size=most_images))
    text_ids = draw(st.lists(st.sampled_from(image_ids), min_size=1, max_size=5))
    row = st.lists(st.integers(-1, 2), min_size=len(image_ids), max_size=len(image_ids))
    return draw(st.lists(row, min_size=len(text_ids), max_size=len(text_ids))), text_ids, image_ids


class TestAgainstSlowImplementations:
    @settings(max_examples=300, deadline=None)
    @given(tied_scores(most_images=12), st.integers(1, 6))
    def test_ties_against(self, case, block):
        assert_equals(from_matrix(*case, block=block), oracle.ties_against(*case, KS))

    @settings(max_examples=80, deadline=None)
    @given(tied_scores(most_images=6), st.integers(1, 6))
    def test_ties_at_random(self, case, block):
        assert_equals(from_matrix(*case, ties="random", block=block), oracle.ties_at_random(*case, KS))

    @settings(max_examples=100, deadline=None)
    @given(st.data(), st.integers(1, 9))
    def test_embeddings_with_exact_ties(self, data, block):
        # vectors of four signs have length 2, so their cosines are exact multiples of 1/2, with many ties
        signs = st.lists(st.sampled_from([-1.0, 1.0]), min_size=4, max_size=4)
        image = data.draw(st.lists(signs, min_size=1, max_size=20))
        image_ids = data.draw(st.lists(st.integers(0, 4), min_size=len(image), max_size=len(image)))
        text_ids = data.draw(st.lists(st.sampled_from(image_ids), min_size=1, max_size=8))
        text = data.draw(st.lists(signs, min_size=len(text_ids), max_size=len(text_ids)))
        scores = [[sum(Fraction(a) * Fraction(b) for a, b in zip(t, i, strict=True)) for i in image] for t in text]
        report = retrieval_metrics(np.array(text), np.array(image), text_ids, image_ids, KS, block)
        assert_equals(report, oracle.ties_against(scores, text_ids, image_ids, KS))

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @pytest.mark.parametrize("seed", range(3))
    def test_random_embeddings(self, dtype, seed):
        rng = np.random.default_rng(seed)
        image_ids = np.arange(90) % 15
        text_ids = rng.integers(0, 15, 70)
        people = rng.standard_normal((15, 16))
        text, image = ((people[i] + 2 * rng.standard_normal((len(i), 16))).astype(dtype) for i in (text_ids, image_ids))
        wide = [x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True) for x in (text, image)]
        scores = wide[0] @ wide[1].T
        # the library rounds cosines by about 1e-8, so the cosines of one query must differ by more than that
        assert np.diff(np.sort(scores, axis=1), axis=1).min() > 3e-8
        report = retrieval_metrics(text, image, text_ids, image_ids, KS)
        assert_equals(report, oracle.ties_against(scores.tolist(), text_ids.tolist(), image_ids.tolist(), KS))
        precisions = [average_precision_score(image_ids == q, row) for q, row in zip(text_ids, scores, strict=True)]
        assert report.map == pytest.approx(100 * np.mean(precisions), abs=1e-9)


def test_equal_embeddings_tie_in_every_block():
    """2,500 equal images, more than are converted to float64 at once: the relevant image ranks last, for every block size."""
    row = np.random.default_rng(0).standard_normal(48, dtype=np.float32)
    for block in (1, 700, 4096):
        report = retrieval_metrics(np.tile(row, (3, 1)), np.tile(row, (2500, 1)), [0, 1, 1], [0] + [1] * 2499, KS, block)
        assert report.minp == pytest.approx(100 * (1 / 2500 + 2 * 2499 / 2500) / 3, abs=1e-9)


@pytest.mark.parametrize("ties", ["against", "random"])
@pytest.mark.parametrize("levels", [3, 40, 10**9])
def test_many_relevant_images(levels, ties):
    """Identities of 3, 200 and 300 images: few relevant images per query are counted by comparison, many by bisection."""
    rng = np.random.default_rng(levels)
    image_ids, text_ids = np.repeat([0, 1, 2], [300, 3, 200]), [0, 1, 2, 0]
    scores = rng.integers(0, levels, (4, 503))
    reports = [from_matrix(scores, text_ids, image_ids, ties=ties, block=block) for block in (1, 4)]
    assert reports[0] == reports[1]
    if ties == "against":
        assert_equals(reports[0], oracle.ties_against(scores.tolist(), text_ids, image_ids.tolist(), KS))
    else:  # the mean over random orders of equal scores, within five standard errors
        names = ("r1", "r5", "map", "minp")
        drawn = [from_matrix(scores + rng.random(scores.shape), text_ids, image_ids).as_dict() for _ in range(300)]
        for name in names:
            values = np.array([d[name] for d in drawn])
            error = values.std(ddof=1) / np.sqrt(len(values))
            assert values.mean() == pytest.approx(reports[0].as_dict()[name], abs=5 * error + 1e-9), name


class TestByHand:
    def test_one_query(self):
        # order by score: wrong, right, wrong, right; AP = (1/2 + 2/4) / 2, INP = 2/4
        report = from_matrix([[0.9, 0.8, 0.7, 0.6]], [1], [0, 1, 0, 1])
        assert report.ranks == {1: 0.0, 2: 100.0, 3: 100.0, 5: 100.0, 10: 100.0}
        assert (report.r1, report.r5, report.map, report.minp) == (0.0, 100.0, 50.0, 50.0)

    def test_equal_scores_give_the_worst_rank(self):
        report = from_matrix(np.zeros((1, 4)), [1], [1, 0, 0, 0])
        assert (report.ranks[3], report.ranks[5], report.map) == (0.0, 100.0, 25.0)

    def test_relevant_images_do_not_tie_among_themselves(self):
        assert from_matrix(np.zeros((1, 3)), [1], [1, 1, 1]).map == 100.0

    def test_random_ties_of_three(self):
        # the right one of three equal images is first, second or third; one wrong image is above them
        report = from_matrix([[2, 1, 1, 1]], [1], [0, 1, 0, 0], ties="random")
        assert [report.ranks[k] for k in (1, 2, 3)] == pytest.approx([0, 100 / 3, 200 / 3])
        assert report.map == pytest.approx(100 * (1 / 2 + 1 / 3 + 1 / 4) / 3)

    def test_cutoffs_larger_than_the_gallery(self):
        assert from_matrix([[1.0, 0.0]], [1], [0, 1], ks=(1, 100)).ranks == {1: 0.0, 5: 100.0, 10: 100.0, 100: 100.0}


class TestBlocks:
    """The report is exactly the same for all block sizes."""

    rng = np.random.default_rng(7)
    image_ids, text_ids = rng.integers(0, 40, 257), rng.integers(0, 40, 131)
    image_ids[:40] = np.arange(40)
    text = rng.standard_normal((131, 48)).astype(np.float32)
    image = rng.standard_normal((257, 48)).astype(np.float32)

    @pytest.mark.parametrize("block", [1, 2, 7, 63, 64, 65, 130, 1000])
    def test_embeddings(self, block):
        whole = retrieval_metrics(self.text, self.image, self.text_ids, self.image_ids)
        assert retrieval_metrics(self.text, self.image, self.text_ids, self.image_ids, block=block) == whole

    @pytest.mark.parametrize("cores", [1, 3, 64])
    def test_number_of_cores(self, cores, monkeypatch):
        whole = retrieval_metrics(self.text, self.image, self.text_ids, self.image_ids)
        for module in (metrics, counting):
            monkeypatch.setattr(module, "available_cores", lambda: cores)
            monkeypatch.setattr(module, "PART", 8)
        assert retrieval_metrics(self.text, self.image, self.text_ids, self.image_ids, block=32) == whole

    def test_the_number_of_blas_threads_is_restored(self):
        before = threadpool_info()
        if not _threads_of_numpys_blas():
            pytest.skip("this NumPy multiplies by another library than the wheels' own OpenBLAS")
        assert on_every_core(lambda part: _threads_of_numpys_blas(), 3, 1) == [[1]] * 3
        with pytest.raises(ZeroDivisionError):
            on_every_core(lambda part: 1 // part.start, 3, 1)
        assert threadpool_info() == before

    @pytest.mark.parametrize("ties", ["against", "random"])
    @pytest.mark.parametrize("block", [1, 65, 1000])
    def test_scores(self, block, ties):
        scores = np.round(self.text @ self.image.T / 8)
        whole = from_matrix(scores, self.text_ids, self.image_ids, ties=ties)
        assert from_matrix(scores, self.text_ids, self.image_ids, ties=ties, block=block) == whole

    @pytest.mark.parametrize("gallery", [3, 17, 64, 257, 1001])
    @pytest.mark.parametrize("block", [1, 5, 512])
    def test_a_copy_of_the_relevant_image_ties_at_any_column(self, gallery, block):
        # every image occurs twice, once with a wrong identity, at columns that a matrix product may round differently
        rng = np.random.default_rng(gallery)
        people = rng.standard_normal((gallery, 37)).astype(np.float32)
        image = np.concatenate([people, people[::-1]])
        image_ids = np.concatenate([np.arange(gallery), np.full(gallery, -1)])
        report = retrieval_metrics(people, image, np.arange(gallery), image_ids, KS, block)
        assert (report.r1, report.ranks[2], report.map) == (0.0, 100.0, 50.0)

    def test_length_and_order_are_irrelevant(self):
        whole = retrieval_metrics(self.text, self.image, self.text_ids, self.image_ids)
        order = np.random.default_rng(0).permutation(257)
        shuffled = retrieval_metrics(self.text * 0.5, self.image[order] * 4.0, self.text_ids, self.image_ids[order])
        assert shuffled == whole  # exact, because the factors are powers of two and metrics depend on counts only

    def test_inputs_are_not_changed(self):
        text, image = self.text.astype(np.float64), self.image.astype(np.float64)
        copies = text.copy(), image.copy()
        retrieval_metrics(text, image, self.text_ids, self.image_ids)
        assert np.array_equal(text, copies[0]) and np.array_equal(image, copies[1])


class TestInputs:
    text, image = np.random.default_rng(0).standard_normal((2, 6, 4)).astype(np.float32)
    ids = (1, 2, 3, 1, 2, 3)

    def test_tensors_arrays_and_lists_agree(self):
        arrays = retrieval_metrics(self.text, self.image, np.array(self.ids), list(self.ids))
        tensors = torch.from_numpy(self.text).requires_grad_(), torch.from_numpy(self.image)
        assert retrieval_metrics(*tensors, torch.tensor(self.ids), self.ids) == arrays

    def test_bfloat16(self):
        halves = [torch.from_numpy(x).bfloat16() for x in (self.text, self.image)]
        wide = [x.float() for x in halves]
        assert retrieval_metrics(*halves, self.ids, self.ids) == retrieval_metrics(*wide, self.ids, self.ids)

    def test_identities_may_be_words(self):
        words = [f"person {i}" for i in self.ids]
        assert retrieval_metrics(self.text, self.image, words, words) == retrieval_metrics(
            self.text, self.image, self.ids, self.ids
        )

    def test_identities_are_compared_exactly(self):
        # 2^53 and 2^53 + 1 are the same number in float64
        large = [2**53, 2**53 + 1]
        assert from_matrix([[1.0, 0.0]], large[1:], large).r1 == 0.0

    def test_as_dict_is_json(self):
        report = retrieval_metrics(self.text, self.image, self.ids, self.ids, ks=(1, 20))
        flat = json.loads(json.dumps(report.as_dict()))
        assert list(flat) == ["r1", "r5", "r10", "r20", "map", "minp", "queries", "gallery"]
        assert (flat["r20"], flat["queries"], flat["gallery"]) == (100.0, 6, 6)


class TestRefusals:
    text, image = TestInputs.text, TestInputs.image
    ids = TestInputs.ids

    def refused(self, match, **changes):
        given = {"text": self.text, "image": self.image, "text_ids": self.ids, "image_ids": self.ids} | changes
        with pytest.raises(REFUSALS, match=f"{match}|Type-check error"):
            retrieval_metrics(**given)

    def test_queries_without_a_relevant_image(self):
        self.refused("2 of 6 queries have no relevant image .* query 1, identity 9", text_ids=[1, 9, 3, 1, 8, 3])

    def test_chance_of_queries_without_a_relevant_image(self):
        with pytest.raises(EvaluationError, match="query 0, identity 5"):
            chance([5], [1, 2])

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("side", ["text", "image"])
    def test_not_finite(self, side, bad):
        rows = getattr(self, side).copy()
        rows[4, 2] = bad
        self.refused(f"1 {side} embeddings are zero or not finite, the first is row 4", **{side: rows})

    def test_zero_embeddings(self):
        self.refused("image embeddings are zero", image=np.zeros((6, 4)))

    def test_dimensions(self):
        self.refused("4 dimensions and image embeddings 3", image=self.image[:, :3])

    @pytest.mark.parametrize("shape", [(0, 4), (6, 0), (6,), (2, 3, 4)])
    def test_shapes(self, shape):
        self.refused("text embeddings are a non-empty", text=np.ones(shape))

    def test_count_of_identities(self):
        self.refused("6 image embeddings but 5 image identities", image_ids=self.ids[:5])

    def test_kind_of_identities(self):
        self.refused("give both one type", image_ids=[str(i) for i in self.ids])

    @pytest.mark.parametrize("k", [0, -1, 1.5])
    def test_cutoffs(self, k):
        self.refused("Rank-k", ks=(1, k))

    def test_block(self):
        self.refused("block", block=0)

    def test_scores_of_another_shape(self):
        with pytest.raises(EvaluationError, match=r"scores\(0, 2\) gave shape \(2, 2\) instead of \(2, 3\)"):
            from_matrix(np.zeros((2, 2)), [1, 1], [1, 2, 3])

    def test_scores_that_are_not_numbers(self):
        with pytest.raises(EvaluationError, match="query 1 has a score"):
            from_matrix([[1.0, 0.0], [0.0, np.nan]], [1, 1], [1, 2])

    def test_unknown_ties(self):
        with pytest.raises(REFUSALS, match="'for'"):
            from_matrix([[1.0]], [1], [1], ties="for")
