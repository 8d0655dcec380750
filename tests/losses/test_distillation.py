"""Distillation against loops in float64; the tolerance of 1e-12 covers some hundred additions with errors of 1e-16."""

import pytest
import torch

from tbps.losses import distill
from tests.oracles import losses as oracle


def drawn(seed: int, n: int = 6, width: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    image, text = (torch.randn(n, width, generator=generator, dtype=torch.float64) for _ in range(2))
    return image, text


@pytest.mark.parametrize("scale", [1.0, 20.0, 100.0])
def test_against_loops_with_a_wider_teacher(scale: float) -> None:
    image, text = drawn(0)
    teacher = drawn(1, width=9)
    expected = oracle.distill(image.tolist(), text.tolist(), *(side.tolist() for side in teacher), scale)
    assert distill(image, text, (*teacher, None), scale).item() == pytest.approx(expected, rel=1e-12)


def test_equal_similarities_have_loss_0_and_no_gradient() -> None:
    image, text = (side.requires_grad_() for side in drawn(0))
    turn = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)).Q
    loss = distill(image, text, (3 * image.detach() @ turn, text.detach() @ turn, None))
    loss.backward()
    assert abs(loss.item()) < 1e-12 and image.grad is not None and image.grad.abs().max() < 1e-12
    assert distill(*drawn(0), (*drawn(1), None)) > 0.01


def test_gradients_are_those_of_the_values_and_none_reach_the_teacher() -> None:
    image, text = (side.requires_grad_() for side in drawn(0, 4))
    teacher = tuple(side.requires_grad_() for side in drawn(1, 4))
    assert torch.autograd.gradcheck(
        lambda i, t: distill(i, t, (teacher[0].detach(), teacher[1].detach(), None), 5.0), (image, text)
    )
    distill(image, text, (*teacher, None)).backward()
    assert all(side.grad is None for side in teacher)


def test_the_mean_over_processes_is_the_loss_of_the_whole_batch() -> None:
    everyone, teachers = drawn(0), drawn(1)

    def part(rows: slice) -> torch.Tensor:
        own, taught = [side[rows] for side in everyone], [side[rows] for side in teachers]
        return distill(own[0], own[1], (taught[0], taught[1], teachers), gathered=everyone)

    torch.testing.assert_close((part(slice(0, 3)) + part(slice(3, 6))) / 2, distill(*everyone, (*teachers, None)))


def test_a_teacher_of_other_pairs_is_refused() -> None:
    with pytest.raises(ValueError, match="are not of the student's pairs"):
        distill(*drawn(0), (*drawn(1, n=5), None))
