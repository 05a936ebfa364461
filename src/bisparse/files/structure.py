"""Which N:M patterns the zeros of a weight already obey, counted block by block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["BLOCK_SIZES", "GroupCounts", "Structure"]

BLOCK_SIZES = (4, 8, 16, 32)
Flags = npt.NDArray[np.uint8]


class GroupCounts:
    """Non-zeros in the groups of M along one direction.

    Attributes:
        most: the largest number of non-zeros in a group.
        room: the largest number of entries in a group (M, or less where the tensor is narrower).
        groups: how many groups there are.
        over: groups with more than ``keep`` non-zeros.
    """

    def __init__(self, keep: int = 0) -> None:
        self._keep = keep
        self.most = 0
        self.room = 0
        self.groups = 0
        self.over = 0

    def add(self, counts: Flags, room: int) -> None:
        """Take in the counts of more groups, of which the fullest has ``room`` entries."""
        if counts.size:
            self.most = max(self.most, int(counts.max()))
            self.room = max(self.room, room)
            self.groups += counts.size
            self.over += int(np.count_nonzero(counts > self._keep))


class Structure:
    """Counts over all matrices of one weight, along inputs (rows of the matrix) and outputs (its columns).

    Args:
        keep: N of a pattern to check besides; 0 for none.
        block: its M.
    """

    def __init__(self, keep: int = 0, block: int = 0) -> None:
        self._inputs = {size: GroupCounts() for size in BLOCK_SIZES}
        self._outputs = {size: GroupCounts() for size in BLOCK_SIZES}
        self._block = block
        self.asked_inputs = GroupCounts(keep)
        self.asked_outputs = GroupCounts(keep)

    def add(self, flags: npt.NDArray[Any]) -> None:
        """Take in a block of whole tiles.

        Args:
            flags: (batch, rows, columns), True where the weight is not zero.
        """
        counts = flags.view(np.uint8)
        for axis, table, asked in (
            (2, self._inputs, self.asked_inputs),
            (1, self._outputs, self.asked_outputs),
        ):
            length = counts.shape[axis]
            sums, size = counts, 1
            for block in BLOCK_SIZES:
                sums, size = _pool(sums, axis, block // size), block
                table[block].add(sums, min(block, length))
            if self._block:
                asked.add(_pool(counts, axis, self._block), min(self._block, length))

    def inputs(self) -> tuple[str, ...]:
        """Row-wise patterns that hold along the inputs, without those that follow from smaller blocks."""
        return _patterns([(block, counts.most, counts.room) for block, counts in self._inputs.items()], "")

    def outputs(self) -> tuple[str, ...]:
        """The same along the outputs: what the transposed weight obeys."""
        return _patterns([(block, counts.most, counts.room) for block, counts in self._outputs.items()], "")

    def transposable(self) -> tuple[str, ...]:
        """Patterns that hold along both."""
        both = [
            (block, max(a.most, b.most), min(a.room, b.room))
            for (block, a), b in zip(self._inputs.items(), self._outputs.values(), strict=True)
        ]
        return _patterns(both, "t")


def _pool(counts: Flags, axis: int, factor: int) -> Flags:
    """Sums over ``factor`` neighbours along an axis; the last sum may have fewer."""
    length = counts.shape[axis]
    if length == 0:
        return counts
    if length % factor == 0:
        split = (*counts.shape[:axis], length // factor, factor, *counts.shape[axis + 1 :])
        whole: Flags = counts.reshape(split).sum(axis=axis + 1, dtype=np.uint8)
        return whole
    ragged: Flags = np.add.reduceat(counts, np.arange(0, length, factor), axis=axis, dtype=np.uint8)
    return ragged


def _patterns(found: Sequence[tuple[int, int, int]], suffix: str) -> tuple[str, ...]:
    """Texts of the patterns that say something: sparser than dense, and than what smaller blocks imply;
    blocks larger than the weight say nothing.
    """
    texts: list[str] = []
    implied = 1.0
    for block, most, room in found:
        if 0 < most < room == block and most / block < implied:
            texts.append(f"{most}:{block}{suffix}")
            implied = most / block
    return tuple(texts)
