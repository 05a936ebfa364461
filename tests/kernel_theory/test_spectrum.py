from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from bisparse.kernel_theory.spectrum import alignment, centred, cka, spectrum


def test_a_kernel_that_can_be_checked_by_eye() -> None:
    kernel = torch.diag(torch.tensor([4.0, 0.0, 1.0, 0.0], dtype=torch.float64))
    found = spectrum(kernel)
    y = torch.tensor([[1.0], [1.0], [1.0], [1.0]], dtype=torch.float64)
    assert found.values.tolist() == [4.0, 1.0, 0.0, 0.0]
    assert (found.rank, found.trace, found.stable_rank) == (2, 5.0, 1.25)
    assert found.effective_dimension(1.0) == pytest.approx(4 / 5 + 1 / 2)
    assert found.effective_dimension(0.0) == 2
    assert found.decay == pytest.approx(-2.0)
    assert found.inside(y) == pytest.approx(0.5)
    assert found.project(y).flatten().tolist() == pytest.approx([1.0, 0.0, 1.0, 0.0])
    assert found.solve(y).flatten().tolist() == pytest.approx([0.25, 0.0, 1.0, 0.0])
    assert found.solve(y, 1.0).flatten().tolist() == pytest.approx([0.2, 1.0, 0.5, 1.0])


def test_the_zero_kernel_represents_nothing() -> None:
    found = spectrum(torch.zeros(3, 3))
    assert (found.rank, found.stable_rank, found.inside(torch.ones(3, 1))) == (0, 0.0, 0.0)
    assert math.isnan(found.decay)
    assert found.inside(torch.zeros(3, 1)) == 1.0
    assert spectrum(torch.eye(3, dtype=torch.bfloat16)).rank == 3


def test_alignment_is_that_of_centred_kernels() -> None:
    rng = np.random.default_rng(0)
    A, y = rng.normal(size=(20, 5)), rng.normal(size=20)
    C = np.eye(20) - 1 / 20
    first, second = C @ A @ A.T @ C, C @ np.outer(y, y) @ C
    expected = (first * second).sum() / np.linalg.norm(first) / np.linalg.norm(second)
    kernel = torch.from_numpy(A @ A.T)
    assert alignment(kernel, torch.from_numpy(y)) == pytest.approx(expected)
    assert cka(kernel, 3 * kernel) == pytest.approx(1.0)
    assert torch.allclose(centred(kernel), torch.from_numpy(first))
    assert cka(kernel, torch.ones_like(kernel)) == 0.0
    assert alignment(torch.from_numpy(np.outer(y, y)), torch.from_numpy(y)) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (torch.ones(2, 3), "square"),
        (torch.tensor([[1.0, math.nan], [math.nan, 1.0]]), "NaN"),
        (torch.tensor([[1.0, 2.0], [0.0, 1.0]]), "symmetric"),
    ],
)
def test_what_is_no_kernel_is_refused(kernel: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        spectrum(kernel)
