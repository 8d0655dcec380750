"""Finding the position of the local rows among the gathered columns."""

import pytest
import torch

from tbps.losses import itc, nt_xent
from tbps.losses.similarity import find_rows

IMAGE, TEXT = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("start", range(5))
def test_rows_are_found_at_any_column(start):
    assert find_rows(IMAGE[start : start + 2], TEXT[start : start + 2], (IMAGE, TEXT), None) == start


def test_without_gathered_columns_the_position_is_0():
    assert find_rows(IMAGE, TEXT, None, None) == 0


def test_a_first_row_that_occurs_twice():
    image, text = IMAGE.clone(), TEXT.clone()
    image[1], text[1] = image[3], text[3]
    assert find_rows(image[3:5], text[3:5], (image, text), None) == 3


def test_rows_that_were_rounded_are_not_found():
    rounded = IMAGE[:2].bfloat16().float()
    with pytest.raises(ValueError, match="row_start"):
        itc(rounded, TEXT[:2], 10.0, gathered=(IMAGE, TEXT))


@pytest.mark.parametrize("start", [-1, 5])
def test_a_row_start_outside_the_columns_is_refused(start):
    with pytest.raises(ValueError, match=rf"row_start {start} is outside 0\.\.4"):
        nt_xent(IMAGE[:2], TEXT[:2], gathered=(IMAGE, TEXT), row_start=start)


def test_fewer_columns_than_rows_are_refused():
    with pytest.raises(ValueError, match="cannot hold"):
        itc(IMAGE, TEXT, 10.0, gathered=(IMAGE[:2], TEXT[:2]), row_start=0)
