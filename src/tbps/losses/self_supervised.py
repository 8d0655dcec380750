"""NT-Xent, the self-supervised loss between two views of one image or caption (SimCLR, Chen et al., ICML 2020).

-1/(2N) sum_v log [exp(s(v, v') / tau) / sum_{u != v} exp(s(v, u) / tau)]

v     one of the 2N views; v' is the other view of the same image or caption
s     cosine
tau   `temperature`
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from tbps.errors import SettingsError
from tbps.losses.similarity import find_rows, similarity, unit_sides


def nt_xent(
    view_a: Float[Tensor, "n D"],
    view_b: Float[Tensor, "n D"],
    temperature: float = 0.1,
    *,
    gathered: tuple[Float[Tensor, "N D"], Float[Tensor, "N D"]] | None = None,
    row_start: int | None = None,
) -> Float[Tensor, ""]:
    """NT-Xent: -1/(2N) sum_v log [exp(s(v, v') / tau) / sum_{u != v} exp(s(v, u) / tau)] over the 2N views.

    Row i of `view_a` and row i of `view_b` are views of the same image or caption. gathered: (view_a_all, view_b_all). row_start as
    in `contrastive.itc`.
    """
    if not temperature > 0.0:
        raise SettingsError(f"temperature must be positive, not {temperature}")
    start = find_rows(view_a, view_b, gathered, row_start)
    sides = unit_sides(view_a, view_b, gathered)
    columns = len(sides.image_all)
    here = torch.arange(start, start + len(view_a), device=view_a.device)
    itself = torch.cat([here, here + columns])  # columns: first view a of all rows, then view b
    other = torch.cat([here + columns, here])
    logits = similarity(torch.cat([sides.image, sides.text]), torch.cat([sides.image_all, sides.text_all])) / temperature
    logits = logits.scatter(1, itself[:, None], float("-inf"))  # (2n, 2N), a view is not its own candidate
    return F.cross_entropy(logits, other)
