"""Where the non-zeros of a sparse matrix lie, by rows and by columns: 12 bytes per non-zero and no dense tensor."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bisparse import _core

__all__ = ["SparseIndex", "check_rows", "row_starts", "sorted_distinct"]

LARGEST = 2**31 - 1


@dataclass(frozen=True, slots=True, eq=False)
class SparseIndex:
    """Positions of the non-zeros of a (rows, columns) matrix, in both orders. All parts are int32 and contiguous.

    The values themselves are one vector in the order of the rows, shared by both orders.

    Attributes:
        crow: (rows + 1): how many non-zeros lie before each row.
        col: (nnz): their columns, increasing within a row.
        ccol: (columns + 1): how many lie before each column.
        row_t: (nnz): their rows, in the order of the columns.
        perm: (nnz): for each entry in the order of the columns, its place in the order of the rows.
    """

    crow: Tensor
    col: Tensor
    ccol: Tensor
    row_t: Tensor
    perm: Tensor

    @classmethod
    def from_keys(cls, keys: Tensor, shape: tuple[int, int]) -> SparseIndex:
        """Build both orders from flat keys.

        Args:
            keys: (nnz) int64, ``row * columns + column``, sorted and distinct.
            shape: (rows, columns).

        Raises:
            ValueError: a size of 2^31 or more, or keys that are out of range, repeated or not sorted.
        """
        rows, columns = shape
        _check_sizes(rows, columns, keys.numel())
        if keys.dim() != 1 or keys.dtype != torch.int64:
            raise ValueError(f"keys must be one vector of int64, got {tuple(keys.shape)} of {keys.dtype}")
        if keys.numel() and (
            int(keys[0]) < 0 or int(keys[-1]) >= rows * columns or not sorted_distinct(keys)
        ):
            raise ValueError(f"keys must be increasing, from 0 to below {rows} * {columns}")
        row = keys // columns
        return cls.from_rows(row_starts(row, rows), (keys - row * columns).int(), columns)

    @classmethod
    def from_rows(cls, crow: Tensor, col: Tensor, columns: int) -> SparseIndex:
        """Add the order by columns to a checked order by rows. Cost: one counting sort, linear in the non-zeros.

        Raises:
            ValueError: a size of 0, or of 2^31 or more.
        """
        _check_sizes(crow.numel() - 1, columns, col.numel())
        if crow.device.type == "cpu":
            return cls(crow, col, *_order_by_columns(crow.contiguous(), col.contiguous(), columns))
        perm = torch.argsort(col, stable=True)
        row = torch.repeat_interleave(
            torch.arange(crow.numel() - 1, dtype=torch.int32, device=crow.device), crow.diff()
        )
        return cls(crow, col, row_starts(col, columns), row[perm], perm.int())

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self.crow.numel() - 1, self.ccol.numel() - 1

    @property
    def nnz(self) -> int:
        """How many entries are stored."""
        return self.col.numel()

    @property
    def nbytes(self) -> int:
        """Bytes of all parts together."""
        return sum(part.numel() * part.element_size() for part in self.parts)

    @property
    def parts(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """``crow, col, ccol, row_t, perm``, as operators take them."""
        return self.crow, self.col, self.ccol, self.row_t, self.perm

    def rows(self) -> Tensor:
        """(nnz) int64: the row of each entry."""
        every = torch.arange(self.shape[0], device=self.crow.device)
        return torch.repeat_interleave(every, self.crow.diff())

    def keys(self) -> Tensor:
        """(nnz) int64: ``row * columns + column``, increasing. Never stored: 8 bytes per entry."""
        return self.rows().mul_(self.shape[1]).add_(self.col)


def _order_by_columns(crow: Tensor, col: Tensor, columns: int) -> tuple[Tensor, Tensor, Tensor]:
    """``ccol, row_t, perm`` by the core's counting sort."""
    ccol = torch.empty(columns + 1, dtype=torch.int32, device="cpu")
    row_t, perm = torch.empty_like(col), torch.empty_like(col)
    order = (crow.data_ptr(), col.data_ptr(), 0, crow.numel() - 1, columns)
    _core.sparse_order_by_columns(order, ccol.data_ptr(), row_t.data_ptr(), perm.data_ptr())
    return ccol, row_t, perm


def check_rows(crow: Tensor, col: Tensor, columns: int) -> None:
    """Refuse an order by rows that would lead a product out of its memory.

    Raises:
        ValueError: the first rule that is broken.
    """
    _check_sizes(crow.numel() - 1, columns, col.numel())
    if crow.dtype != torch.int32 or col.dtype != torch.int32 or crow.dim() != 1 or col.dim() != 1:
        raise ValueError(f"crow and col must be vectors of int32, got {crow.dtype} and {col.dtype}")
    falls = bool((crow[1:] < crow[:-1]).any())  # a difference of int32 could wrap around
    if crow.numel() < 2 or int(crow[0]) != 0 or int(crow[-1]) != col.numel() or falls:
        raise ValueError(f"crow must grow from 0 to the number of non-zeros, {col.numel()}")
    if col.numel() == 0:
        return
    if int(col.min()) < 0 or int(col.max()) >= columns:
        raise ValueError(f"a column index is not in 0 to {columns - 1}")
    starts = torch.zeros(col.numel() + 1, dtype=torch.bool, device=col.device)
    starts[crow.long()] = True
    if bool(((col.diff() <= 0) & ~starts[1:-1]).any()):
        raise ValueError("columns must increase within each row: an entry is repeated or out of order")


def row_starts(row: Tensor, rows: int) -> Tensor:
    """(rows + 1) int32: how many of the entries lie before each row; they need not be sorted."""
    starts = torch.zeros(rows + 1, dtype=torch.int32, device=row.device)
    starts[1:] = torch.bincount(row, minlength=rows).cumsum(0)
    return starts


def sorted_distinct(keys: Tensor) -> bool:
    """Whether keys increase strictly."""
    return bool((keys[1:] > keys[:-1]).all())


def _check_sizes(rows: int, columns: int, nnz: int) -> None:
    if min(rows, columns) < 1 or max(rows, columns, nnz) > LARGEST:
        raise ValueError(
            f"a {rows} x {columns} matrix with {nnz} non-zeros: sizes must be at least 1 and below 2^31"
        )
