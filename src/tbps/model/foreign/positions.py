"""Interpolation of position embeddings to another number of patches or tokens.

Image positions are rows (1 + h * w, D): the class token, then the patches of the grid row by row from the top left.
"""

import torch
from jaxtyping import Float
from torch.nn.functional import interpolate

PatchGrid = tuple[int, int]  # patches down, patches across


def resize_image_positions(positions: Float[torch.Tensor, "n d"], old: PatchGrid, new: PatchGrid) -> Float[torch.Tensor, "m d"]:
    """Interpolates image positions bilinearly on the 2-d grid, as TBPS-CLIP and IRRA do; that of the class token is unchanged."""
    if old == new:
        return positions
    grid = interpolate(_as_grid(positions, old), size=new, mode="bilinear", align_corners=False)
    return _as_rows(positions[:1], grid)


def resize_text_positions(positions: Float[torch.Tensor, "n d"], length: int) -> Float[torch.Tensor, "length d"]:
    """Interpolates text positions linearly; the first and the last are unchanged. Both lengths must be at least 3."""
    if len(positions) == length:
        return positions
    inner = interpolate(positions[1:-1].T[None], size=length - 2, mode="linear", align_corners=False)[0].T
    return torch.cat([positions[:1], inner, positions[-1:]])


def square_image_positions(positions: Float[torch.Tensor, "n d"], grid: PatchGrid) -> Float[torch.Tensor, "m d"]:
    """Returns a square grid of side max(h, w) from which transformers' bicubic interpolation to (h, w) restores `positions`.

    `CLIPModel` stores square grids only. Bicubic interpolation is separable and linear: a square grid P of side n becomes
    A P B' with A (h, n) and B (w, n), both of full row rank because no side of the grid is longer than n. So P exists;
    this function returns the solution nearest to the bilinear enlargement G of the wanted grid T: P = G + A^+ (T - A G B') B^+'.
    """
    height, width = grid
    side = max(grid)
    if height == width:
        return positions
    wanted = _as_grid(positions.double(), grid)
    near = interpolate(wanted, size=(side, side), mode="bilinear", align_corners=False)
    down, across = _bicubic(side, height), _bicubic(side, width)
    lacking = wanted - down @ near @ across.T
    exact = near + torch.linalg.pinv(down) @ lacking @ torch.linalg.pinv(across).T
    return _as_rows(positions[:1], exact.to(positions.dtype))


def _bicubic(old: int, new: int) -> torch.Tensor:
    """Returns bicubic interpolation along one side as a matrix (new, old) float64."""
    units = torch.eye(old, dtype=torch.float64).view(1, old, old, 1)
    return interpolate(units, size=(new, 1), mode="bicubic", align_corners=False)[0, :, :, 0].T


def _as_grid(positions: torch.Tensor, grid: PatchGrid) -> torch.Tensor:
    return positions[1:].T.reshape(1, -1, *grid)  # (1, D, h, w)


def _as_rows(first: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    return torch.cat([first, grid[0].flatten(1).T]).contiguous()
