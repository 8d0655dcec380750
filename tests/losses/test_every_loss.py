"""Properties of all losses: gradients, invariances, extreme inputs, half precision and gathered columns."""

import pytest
import torch
from jaxtyping import TypeCheckError

from tbps.losses import c_itc, identity_targets, itc, n_itc, nt_xent, r_itc, sdm, tal

# (image, text, scale, local ids, all ids, **columns) -> loss; `columns`: `gathered`, and `row_start` for losses that have it
LOSSES = {
    "itc": lambda i, t, s, own, ids, **c: itc(i, t, s, **c),
    "n_itc": lambda i, t, s, own, ids, row_start=None, **c: n_itc(i, t, identity_targets(own, ids), s, **c),
    "n_itc_soft": lambda i, t, s, own, ids, row_start=None, **c: n_itc(i, t, identity_targets(own, ids), s, 0.5, **c),
    "r_itc": lambda i, t, s, own, ids, row_start=None, **c: r_itc(i, t, identity_targets(own, ids), s, **c),
    "r_itc_normalised": lambda i, t, s, own, ids, row_start=None, **c: r_itc(
        i, t, identity_targets(own, ids), s, labels="normalised", **c
    ),
    "sdm": lambda i, t, s, own, ids, **c: sdm(i, t, torch.as_tensor(ids), s, **c),
    "tal": lambda i, t, s, own, ids, **c: tal(i, t, torch.as_tensor(ids), 1 / s, **c),
    "c_itc": lambda i, t, s, own, ids, row_start=None, **c: c_itc(i, t, **c),
    "c_itc_paper": lambda i, t, s, own, ids, row_start=None, **c: c_itc(i, t, variant="paper", **c),
    "nt_xent": lambda i, t, s, own, ids, **c: nt_xent(i, t, 1 / s, **c),
}
IDS = [3, 3, 1, 3, 2, 1, 7, 8]

pytestmark = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())


def pairs(n=8, dtype=torch.float64, seed=0):
    embeddings = torch.randn(2, n, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)
    return embeddings[0].clone(), embeddings[1].clone()


def whole(loss, image, text, scale=12.0, ids=IDS):
    return loss(image, text, scale, ids, ids)


def test_gradients_are_those_of_the_values(loss, request):
    name = request.node.callspec.id
    if name in ("n_itc_soft", "tal"):
        pytest.skip("soft weights are constants for the gradient and not for finite differences: see test_contrastive, test_tal")
    image, text = (x.requires_grad_() for x in pairs(4))
    if name in ("c_itc", "c_itc_paper", "nt_xent"):  # no learnable scale
        assert torch.autograd.gradcheck(lambda i, t: whole(loss, i, t, 5.0, IDS[:4]), (image, text))
    else:
        scale = torch.tensor(5.0, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda i, t, s: whole(loss, i, t, s, IDS[:4]), (image, text, scale))


def test_order_of_the_batch_is_irrelevant(loss):
    image, text = pairs()
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1))
    shuffled = whole(loss, image[order], text[order], ids=[IDS[i] for i in order])
    torch.testing.assert_close(shuffled, whole(loss, image, text), rtol=1e-12, atol=1e-12)


def test_modalities_can_be_swapped(loss):
    image, text = pairs()
    torch.testing.assert_close(whole(loss, text, image), whole(loss, image, text), rtol=1e-12, atol=1e-12)


def test_length_of_embeddings_is_irrelevant(loss):
    image, text = pairs()
    stretch = torch.linspace(0.01, 100.0, 8, dtype=torch.float64)[:, None]
    torch.testing.assert_close(whole(loss, image * stretch, text / stretch), whole(loss, image, text), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("scale", [1e-3, 100.0, 1e4])
@pytest.mark.parametrize("ids", [IDS, [5] * 8, list(range(8))], ids=["shared", "one", "distinct"])
def test_finite_at_extreme_scales(loss, scale, ids):
    image, text = (x.requires_grad_() for x in pairs(dtype=torch.float32))
    value = whole(loss, image, text, scale, ids)
    value.backward()
    assert value.isfinite() and image.grad.isfinite().all() and text.grad.isfinite().all()


def test_duplicates_and_opposites_are_finite(loss):
    row = torch.tensor([[1.0, 2.0, 3.0]])
    image, text = (x.requires_grad_() for x in (row.repeat(8, 1), -row.repeat(8, 1)))
    value = whole(loss, image, text, 1e4)
    value.backward()
    assert value.isfinite() and image.grad.isfinite().all()


def test_batch_of_one(loss):
    image, text = pairs(1, torch.float32)
    value = whole(loss, image, text, ids=[4])
    assert value.shape == () and value.isfinite()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_embeddings_are_computed_in_float32(loss, dtype):
    image, text = pairs(dtype=dtype)
    value = whole(loss, image, text)
    assert value.dtype == torch.float32
    assert torch.equal(value, whole(loss, image.float(), text.float()))


def test_autocast_changes_nothing(loss):
    image, text = pairs(dtype=torch.float32)
    plain = whole(loss, image, text)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (image @ text.T).dtype == torch.bfloat16
        inside = whole(loss, image, text)
    assert inside.dtype == torch.float32 and torch.equal(inside, plain)


@pytest.mark.parametrize("explicit", [True, False], ids=["row_start", "found"])
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_mean_over_ranks_is_the_whole_batch(loss, ranks, explicit):
    image, text = (x.requires_grad_() for x in pairs())
    one_process = whole(loss, image, text)
    size = 8 // ranks
    parts = []
    for rank in range(ranks):
        own = slice(rank * size, (rank + 1) * size)
        columns = {"gathered": (image, text)} | ({"row_start": rank * size} if explicit else {})
        parts.append(loss(image[own], text[own], 12.0, IDS[own], IDS, **columns))
    mean = torch.stack(parts).mean()
    torch.testing.assert_close(mean, one_process, rtol=1e-12, atol=1e-12)
    gradients = [torch.autograd.grad(value, (image, text)) for value in (mean, one_process)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-12)


def test_rows_found_among_identical_blocks(loss):
    image, text = pairs(4)
    image_all, text_all, ids = image.repeat(2, 1), text.repeat(2, 1), [1, 2, 3, 3] * 2
    one_process = loss(image_all, text_all, 12.0, ids, ids)
    part = loss(image, text, 12.0, ids[:4], ids, gathered=(image_all, text_all))
    torch.testing.assert_close(part, one_process, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("image", "text"),
    [((0, 6), (0, 6)), ((3, 6), (2, 6)), ((3, 6), (3, 5)), ((6,), (6,))],
    ids=["empty", "rows", "dimensions", "vectors"],
)
def test_ill_shaped_embeddings_are_refused(loss, image, text):
    # TypeCheckError: with the pytest option that checks shapes, annotations refuse first
    with pytest.raises((ValueError, TypeCheckError), match=r"equal|Type-check error"):
        loss(torch.ones(image), torch.ones(text), 1.0, IDS[:3], IDS[:3])
