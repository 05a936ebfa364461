"""Matrices as stacks of square tiles and back, with the edge handled once for all approximate methods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

__all__ = ["TileGrid", "by_tiles"]

_CHUNK = 1 << 20  # entries per call: large enough to hide call overheads, small enough for the caches


@dataclass(frozen=True, slots=True)
class TileGrid:
    """How ``batch`` matrices of ``rows`` x ``columns`` fall into M x M tiles, M = ``block``.

    Tiles are numbered matrix by matrix, then row by row; T is their number. Those cut by the edge are
    filled up with entries that are not real.
    """

    batch: int
    rows: int
    columns: int
    block: int

    @property
    def down(self) -> int:
        """Tiles along a column."""
        return -(-self.rows // self.block)

    @property
    def across(self) -> int:
        """Tiles along a row."""
        return -(-self.columns // self.block)

    def split(self, matrices: Tensor) -> Tensor:
        """(B, R, C) -> (T, M, M), contiguous; zero (or False) where an entry is not real."""
        edge = (0, self.across * self.block - self.columns, 0, self.down * self.block - self.rows)
        grid = pad(matrices, edge).reshape(self.batch, self.down, self.block, self.across, self.block)
        return grid.transpose(2, 3).reshape(-1, self.block, self.block)

    def join(self, tiles: Tensor) -> Tensor:
        """(T, M, M) -> (B, R, C), contiguous; entries that are not real are dropped."""
        grid = tiles.reshape(self.batch, self.down, self.across, self.block, self.block).transpose(2, 3)
        matrices = grid.reshape(self.batch, self.down * self.block, self.across * self.block)
        return matrices[:, : self.rows, : self.columns].contiguous()

    def real(self) -> Tensor:
        """Which entries are real: boolean (T, M, M)."""
        return self.split(torch.ones(self.batch, self.rows, self.columns, dtype=torch.bool))


def by_tiles(
    scores: Tensor, block: int, method: Callable[[Tensor, Tensor], Tensor], *, chunk: int = _CHUNK
) -> Tensor:
    """Apply a method for stacks of tiles to matrices.

    Args:
        scores: (B, R, C).
        block: tile size M.
        method: maps scores (T, M, M) and the real entries (T, M, M) to a boolean mask (T, M, M). It must
            treat tiles independently, so that the division into chunks cannot be seen in the result.
        chunk: entries per call.

    Returns:
        Boolean mask (B, R, C).
    """
    batch, rows, columns = scores.shape
    grid = TileGrid(batch, rows, columns, block)
    tiles, real = grid.split(scores), grid.real()
    mask = torch.zeros(tiles.shape, dtype=torch.bool)
    step = max(1, chunk // (block * block))
    for start in range(0, len(tiles), step):
        part = slice(start, start + step)
        mask[part] = method(tiles[part], real[part]) & real[part]
    return grid.join(mask)
