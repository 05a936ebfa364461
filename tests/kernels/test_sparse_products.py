"""Sparse products of the core: those of PyTorch's own operators and of dense matrices, for every instruction set."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from bisparse import _core
from bisparse.kernels import SparseIndex, sparse_gradient, sparse_multiply
from bisparse.kernels.sparse_torch import torch_gradient, torch_multiply

SETS = _core.sparse_instruction_sets()
BATCHES = [0, 1, 3, 8, 17, 64, 100]


def case(rows: int = 50, columns: int = 70, density: float = 0.1) -> tuple[Tensor, SparseIndex, Tensor]:
    """A dense matrix, where its non-zeros are, and these."""
    torch.manual_seed(rows)
    mask = torch.rand(rows, columns) < density
    mask[3] = False
    mask[5] = True
    index = SparseIndex.from_keys(mask.flatten().nonzero().squeeze(1), (rows, columns))
    dense = torch.randn(rows, columns) * mask
    return dense, index, dense[mask]


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("instruction_set", SETS)
def test_products_and_gradients_are_those_of_the_dense_matrix(batch: int, instruction_set: str) -> None:
    dense, index, values = case()
    crow, col, ccol, row_t, perm = index.parts
    x, y, bias = torch.randn(batch, 70), torch.randn(batch, 50), torch.randn(50)
    product = sparse_multiply(x, values, bias, crow, col, 70, instruction_set=instruction_set)
    torch.testing.assert_close(product, x @ dense.T + bias, rtol=1e-4, atol=1e-4)
    product = sparse_multiply(y, values, None, ccol, row_t, 50, perm, instruction_set=instruction_set)
    torch.testing.assert_close(product, y @ dense, rtol=1e-4, atol=1e-4)
    gradient = sparse_gradient(y, x, values, crow, col, instruction_set=instruction_set)
    wanted = (y.T @ x).flatten()[index.keys()]
    torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_core_and_pytorch_agree(dtype: torch.dtype) -> None:
    _, index, values = case()
    crow, col, ccol, row_t, perm = index.parts
    values, x, y = values.to(dtype), torch.randn(9, 70, dtype=dtype), torch.randn(9, 50, dtype=dtype)
    torch.testing.assert_close(
        sparse_multiply(x, values, None, crow, col, 70), torch_multiply(x, values, crow, col)
    )
    torch.testing.assert_close(
        sparse_multiply(y, values, None, ccol, row_t, 50, perm),
        torch_multiply(y, values, ccol, row_t, perm),
    )
    torch.testing.assert_close(
        sparse_gradient(y, x, values, crow, col), torch_gradient(y, x, values, crow, col)
    )


@pytest.mark.parametrize("batch", [1, 5, 70])
def test_the_number_of_threads_changes_no_bit(batch: int) -> None:
    _, index, values = case(400, 500, 0.2)
    crow, col, ccol, row_t, perm = index.parts
    x, y = torch.randn(batch, 500), torch.randn(batch, 400)
    calls: list[Callable[[int], Tensor]] = [
        lambda threads: sparse_multiply(x, values, None, crow, col, 500, threads=threads),
        lambda threads: sparse_multiply(y, values, None, ccol, row_t, 400, perm, threads=threads),
        lambda threads: sparse_gradient(y, x, values, crow, col, threads=threads),
    ]
    for call in calls:
        assert call(1).equal(call(2))
        assert call(1).equal(call(5))


def test_an_unknown_instruction_set_is_refused() -> None:
    _, index, values = case()
    with pytest.raises(ValueError, match="not available here: mmx"):
        sparse_multiply(torch.ones(1, 70), values, None, index.crow, index.col, 70, instruction_set="mmx")


def test_parts_that_do_not_belong_together_are_refused() -> None:
    _, index, values = case()
    x = torch.ones(2, 70)
    for call, message in (
        (
            lambda: sparse_multiply(x, values[1:], None, index.crow, index.col, 70),
            "do not belong to an index",
        ),
        (lambda: sparse_multiply(x, values, torch.ones(3), index.crow, index.col, 70), "bias"),
        (
            lambda: sparse_multiply(x, values, None, index.crow.long(), index.col, 70),
            "starts must be contiguous int32",
        ),
        (
            lambda: sparse_gradient(torch.ones(3, 50), x, values, index.crow, index.col),
            "differ in their batch",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_keys_and_rows_give_the_same_index() -> None:
    _, index, _ = case()
    again = SparseIndex.from_keys(index.keys(), index.shape)
    assert all(one.equal(other) for one, other in zip(index.parts, again.parts, strict=True))
    assert index.nbytes == 4 * (3 * index.nnz + 50 + 1 + 70 + 1)
    with pytest.raises(ValueError, match="keys must be increasing"):
        SparseIndex.from_keys(torch.tensor([3, 2]), (2, 2))
