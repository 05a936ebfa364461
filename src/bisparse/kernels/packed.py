"""An N:M matrix in half the memory: its kept values and one bit per entry."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bisparse import _core
from bisparse.pattern import NM, TransposableNM, parse_pattern

__all__ = ["PackedMatrix", "free_bytes", "pack_matrix", "packed_sizes"]

STEP_BYTES = 4
_DTYPES = (
    torch.float32,
    torch.bfloat16,
    torch.float16,
    torch.float64,
    torch.int8,
    torch.uint8,
    torch.int16,
    torch.int32,
    torch.int64,
)


def packed_sizes(columns: int, keep: int, block: int) -> tuple[int, int]:
    """Slots and index bytes of one packed row.

    Every complete group fills exactly ``keep`` slots, a tail group of ``w`` columns ``min(keep, w)``; the index
    has one bit per column, padded to whole steps of 32 columns.
    """
    groups, tail = divmod(columns, block)
    return groups * keep + min(tail, keep), -(-columns // (8 * STEP_BYTES)) * STEP_BYTES


def free_bytes(slots: int) -> int:
    """Bytes of one row of the ``free`` bits."""
    return -(-slots // 8)


@dataclass(frozen=True, slots=True, eq=False)
class PackedMatrix:
    """A (rows, columns) matrix that keeps ``keep`` of every ``block`` columns, packed row by row.

    Attributes:
        values: (rows, slots), contiguous, the kept entries of each row in the order of their columns. Every
            complete group has exactly ``keep`` slots, a tail group of ``w`` columns ``min(keep, w)``.
        index: (rows, index_bytes) uint8, contiguous; bit ``c % 8`` of byte ``c // 8`` says that column ``c`` has
            a slot; rows are padded with zero bits to a multiple of 32 columns.
        shape: (rows, columns) of the dense matrix.
        pattern: the pattern that the rows obey.
        free: (rows, ceil(slots / 8)) uint8 or ``None``; bit ``s % 8`` of byte ``s // 8`` marks a slot that holds
            no kept entry: where a group keeps fewer than ``keep``, it is filled up with slots of value zero,
            which never learn.
    """

    values: Tensor
    index: Tensor
    shape: tuple[int, int]
    pattern: NM | TransposableNM
    free: Tensor | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of all parts together."""
        parts = [self.values, self.index] + ([] if self.free is None else [self.free])
        return sum(part.numel() * part.element_size() for part in parts)

    def unpack(self, threads: int | None = None) -> Tensor:
        """The dense (rows, columns) matrix with zeros, of the dtype of ``values``.

        Raises:
            ValueError: sizes or index do not belong to this shape and pattern.
        """
        self.check()
        dense = torch.empty(self.shape, dtype=self.values.dtype)
        keep, block = self.pattern.keep, self.pattern.block
        _core.unpack(self.values.detach(), self.index, keep, block, dense, _threads(threads))
        return dense

    def check(self) -> None:
        """Refuse parts that do not belong together, before any product touches memory through them.

        Raises:
            ValueError: wrong shape, dtype or device of a part, or a row whose index does not hold exactly the
                slots of its groups.
        """
        rows, columns = self.shape
        keep, block = self.pattern.keep, self.pattern.block
        slots, index_bytes = packed_sizes(columns, keep, block)
        _expect("values", self.values, (rows, slots), self.values.dtype, self)
        _expect("index", self.index, (rows, index_bytes), torch.uint8, self)
        if self.free is not None:
            _expect("free", self.free, (rows, free_bytes(slots)), torch.uint8, self)
        threads = torch.get_num_threads()
        bad = _core.first_bad_row(self.values.detach(), self.index, columns, keep, block, threads)
        if bad >= 0:
            raise ValueError(
                f"row {bad} of the index of a {rows} x {columns} matrix does not mark exactly {keep} of every "
                f"{block} columns: the data is damaged or belongs to another pattern; pack the weight again"
            )


def pack_matrix(
    dense: Tensor,
    pattern: str | NM | TransposableNM,
    mask: Tensor | None = None,
    *,
    threads: int | None = None,
) -> PackedMatrix:
    """Pack a masked matrix.

    Args:
        dense: (rows, columns) on the CPU, any strides; float or integer of 8 to 64 bits.
        pattern: ``keep:block``, transposable or not. Each group of ``block`` columns may keep fewer than ``keep``.
        mask: boolean of the same shape; without it, the non-zero entries are the kept ones.
        threads: default: PyTorch's.

    Returns:
        The packed matrix; its parts share no memory with ``dense``. ``unpack()`` gives ``dense`` with zeros where the
        mask is false, bit by bit (negative zeros outside a given mask become zeros).

    Raises:
        TypeError: a dtype that cannot be packed, or a mask that is not boolean.
        ValueError: not a CPU matrix, an unstructured pattern, a mask of another shape, or a group with more than
            ``keep`` entries.
    """
    wanted = parse_pattern(pattern)
    if not isinstance(wanted, (NM, TransposableNM)):
        raise ValueError(f"{wanted}: only keep:block patterns such as 2:4 or 4:8t can be packed for products")
    _check_dense(dense, mask)
    rows, columns = dense.shape
    keep, block = wanted.keep, wanted.block
    slots, index_bytes = packed_sizes(columns, keep, block)
    values = dense.new_empty((rows, slots), requires_grad=False)
    index = torch.empty((rows, index_bytes), dtype=torch.uint8)
    free = torch.empty((rows, free_bytes(slots)), dtype=torch.uint8)
    kept = None if mask is None else mask.detach().contiguous().view(torch.uint8)
    bad, count = _core.pack(dense.detach(), kept, keep, block, values, index, free, _threads(threads))
    if bad >= 0:
        raise ValueError(_too_many(dense.detach(), mask, bad, wanted))
    return PackedMatrix(values, index, (rows, columns), wanted, free if count else None)


def _threads(threads: int | None) -> int:
    return torch.get_num_threads() if threads is None else threads


def _check_dense(dense: Tensor, mask: Tensor | None) -> None:
    if dense.dtype not in _DTYPES:
        raise TypeError(f"a matrix of {dense.dtype} cannot be packed: use a float or integer of 8 to 64 bits")
    if dense.dim() != 2:
        raise ValueError(f"a weight of shape {tuple(dense.shape)} is no matrix: pack one matrix at a time")
    if dense.device.type != "cpu":
        raise ValueError(
            f"packing works on the CPU, the weight is on {dense.device}: move it with .cpu() first"
        )
    if mask is None:
        return
    if mask.dtype != torch.bool:
        raise TypeError(f"the mask must be boolean (True = kept), got {mask.dtype}")
    if mask.shape != dense.shape:
        raise ValueError(f"the mask has shape {tuple(mask.shape)}, the weight {tuple(dense.shape)}")


def _too_many(dense: Tensor, mask: Tensor | None, row: int, pattern: NM | TransposableNM) -> str:
    """What is wrong with a row, in words."""
    kept = (dense[row] != 0) if mask is None else mask[row]
    for start in range(0, dense.shape[1], pattern.block):
        count = int(kept[start : start + pattern.block].sum())
        if count > pattern.keep:
            break
    kind = "non-zeros" if mask is None else "kept entries"
    return (
        f"the {dense.shape[0]} x {dense.shape[1]} weight does not obey {pattern}: row {row}, columns {start} to "
        f"{min(start + pattern.block, dense.shape[1]) - 1} hold {count} {kind}, at most {pattern.keep} are allowed. "
        f"Prune the layer first (bisparse.prune_(model, '{pattern}')) or name the pattern that it has"
    )


def _expect(
    name: str, part: Tensor, shape: tuple[int, int], dtype: torch.dtype, matrix: PackedMatrix
) -> None:
    good = part.shape == shape and part.dtype == dtype and part.device.type == "cpu" and part.is_contiguous()
    if not good:
        rows, columns = matrix.shape
        raise ValueError(
            f"{name} of a {rows} x {columns} matrix packed {matrix.pattern} must be a contiguous {dtype} CPU tensor of "
            f"shape {shape}, got {part.dtype} {tuple(part.shape)} on {part.device}: pack the weight again"
        )
