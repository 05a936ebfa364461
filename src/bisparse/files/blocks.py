"""Cutting tensors into blocks of bytes whose masks do not depend on one another.

Every N:M and transposable mask is decided tile by tile, so a tensor can be solved in strips of whole tiles,
and memory does not grow with the tensor. The strips are contiguous in the file: they cut the first axis (or,
for stacked experts, the first two) at multiples of the block size, and never join two parts of a fused
weight.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from bisparse.files.safetensors_header import TensorEntry
from bisparse.weights import Layout

__all__ = ["BLOCK_BYTES", "Block", "copy_blocks", "matrix_blocks"]

BLOCK_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Block:
    """A contiguous piece of one tensor.

    Attributes:
        offset: first byte, counted from the tensor's first.
        nbytes: size.
        shape: its shape as a tensor of the same number of dimensions; ``()`` for bytes that are only copied.
        layout: how that piece is read as matrices; ``None`` where that does not matter, and for copies.
    """

    offset: int
    nbytes: int
    shape: tuple[int, ...] = ()
    layout: Layout | None = None


def copy_blocks(entry: TensorEntry, limit: int = BLOCK_BYTES) -> Iterator[Block]:
    """The pieces of a tensor that is only copied."""
    for offset in range(0, entry.nbytes, limit):
        yield Block(offset, min(limit, entry.nbytes - offset))


def matrix_blocks(entry: TensorEntry, layout: Layout, tile: int, limit: int = BLOCK_BYTES) -> Iterator[Block]:
    """The pieces of a weight, each of whole tiles.

    Args:
        entry: the tensor.
        layout: how it is read; a piece is read in the same way, with one part.
        tile: block size M of the pattern (or a common multiple of several); 1 where rows are independent.
        limit: bytes that a piece should not pass; one strip of ``tile`` rows may.

    Raises:
        ValueError: the rows do not split into the layout's parts.
    """
    if layout.kind in ("experts", "experts_transposed"):
        yield from _expert_blocks(entry, layout, tile, limit)
        return
    rows, *rest = entry.shape
    if rows % layout.parts:
        raise ValueError(f"{entry.name}: {rows} rows do not split into {layout.parts} parts")
    row_bytes = prod(rest) * entry.itemsize
    part = Layout(layout.kind, 1, layout.oriented)
    for start in range(0, rows, rows // layout.parts):
        for first, count in _strips(rows // layout.parts, row_bytes, tile, limit):
            yield Block((start + first) * row_bytes, count * row_bytes, (count, *rest), part)


def _expert_blocks(entry: TensorEntry, layout: Layout, tile: int, limit: int) -> Iterator[Block]:
    experts, rows, columns = entry.shape
    row_bytes = columns * entry.itemsize
    whole = rows * row_bytes
    if whole <= limit:
        for first, count in _strips(experts, whole, 1, limit):
            yield Block(first * whole, count * whole, (count, rows, columns), layout)
        return
    for expert in range(experts):
        for first, count in _strips(rows, row_bytes, tile, limit):
            yield Block(expert * whole + first * row_bytes, count * row_bytes, (1, count, columns), layout)


def _strips(rows: int, row_bytes: int, tile: int, limit: int) -> Iterator[tuple[int, int]]:
    """(first row, number of rows), multiples of ``tile`` except at the end."""
    step = max(1, limit // (row_bytes * tile)) * tile
    for first in range(0, rows, step):
        yield first, min(step, rows - first)
