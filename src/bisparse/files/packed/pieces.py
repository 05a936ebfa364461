"""Cutting a tensor into pieces that are packed and unpacked one by one: whole rows, or parts of one very long row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bisparse.files.blocks import BLOCK_BYTES

__all__ = ["Piece", "View", "pieces"]


@dataclass(frozen=True, slots=True)
class View:
    """A tensor as (outer, length, inner), contiguous; groups of ``block`` run along ``length``.

    Attributes:
        outer: rows.
        length: entries along the groups' axis.
        inner: entries beside one another in memory that belong to different groups.
        block: M; 1 where there are no groups.
        itemsize: bytes of an entry.
        divisible: whether a row may be cut (every eighth group begins with a whole byte).
    """

    outer: int
    length: int
    inner: int
    block: int
    itemsize: int
    divisible: bool = True

    @property
    def slab(self) -> int:
        """Entries of one outer row."""
        return self.length * self.inner


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows ``row`` to ``row + rows``, of these the entries ``start`` to ``start + count`` along the groups' axis.

    Either all of several rows, or part of one, which begins with a group whose number is a multiple of 8.
    """

    row: int
    rows: int
    start: int
    count: int

    def begin(self, view: View) -> int:
        """Its first entry in the tensor."""
        return self.row * view.slab + self.start * view.inner

    def size(self, view: View) -> int:
        """Its entries."""
        return self.rows * self.count * view.inner


def pieces(view: View, begin: int = 0, end: int | None = None, limit: int = BLOCK_BYTES) -> Iterator[Piece]:
    """Pieces in order that together cover the entries from ``begin`` to ``end``, each of about ``limit`` bytes."""
    end = view.outer * view.slab if end is None else end
    if begin >= end:
        return
    first, last = begin // view.slab, -(-end // view.slab)
    if view.slab * view.itemsize <= limit or not view.divisible:
        step = max(1, limit // (view.slab * view.itemsize))
        for row in range(first, last, step):
            yield Piece(row, min(step, last - row), 0, view.length)
        return
    unit = 8 * view.block
    step = max(1, limit // (unit * view.inner * view.itemsize)) * unit
    for row in range(first, last):
        start = max(begin - row * view.slab, 0) // view.inner // unit * unit
        stop = min(-(-(end - row * view.slab) // view.inner), view.length)
        for place in range(start, stop, step):
            yield Piece(row, 1, place, min(step, view.length - place))
