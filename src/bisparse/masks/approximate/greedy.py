"""Greedy masks: take the largest scores first, as long as they fit."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from bisparse.masks.approximate.repair import fill_short_lines
from bisparse.masks.tiles import by_tiles
from bisparse.pattern import TransposableNM

__all__ = ["greedy_walk", "solve_greedy"]


def solve_greedy(scores: Tensor, pattern: TransposableNM, *, repair: bool = True) -> Tensor:
    """Keep the largest entries first, each if its row and its column still have room.

    Problem: per M x M tile, maximise the kept score with at most N kept per row and column.

    Guarantee: at least half of the optimum (greedy on the intersection of two partition matroids), and tight:
    [[1, .999], [.999, 0]] with N = 1 gives 1 of 1.998. The walk alone may end with short lines; ``repair``
    then makes every line of a complete tile keep exactly N, where a swap may cost score as the price of a
    full line. On Gaussian scores about 1% is lost.

    Cost: one sort of M^2 scores per tile and M^2 steps, each over all tiles of a chunk at once.

    When to use it: as a baseline; it is what the published code of Hubara et al. (2021) runs while
    training, there without repair. The exact solver is faster.

    Args:
        scores: non-negative (B, R, C), any size.
        pattern: transposable pattern.
        repair: complete short lines by additions and swaps.

    Returns:
        Boolean mask (B, R, C).
    """
    return by_tiles(scores, pattern.block, partial(_solve_tiles, keep=pattern.keep, repair=repair))


def _solve_tiles(scores: Tensor, real: Tensor, *, keep: int, repair: bool) -> Tensor:
    kept = greedy_walk(scores, real, keep)
    return fill_short_lines(scores, real, kept, keep) if repair else kept


def greedy_walk(values: Tensor, real: Tensor, keep: int) -> Tensor:
    """Walk down the sorted values of every tile and keep what fits; ties go to the lower index.

    Args:
        values: (T, M, M), non-negative.
        real: boolean (T, M, M), False beyond the edge.
        keep: N.

    Returns:
        Boolean (T, M, M) with at most N per line.
    """
    tiles, block = values.shape[:2]
    # Entries beyond the edge come last and take only room that no real entry wants.
    flat = torch.where(real, values, -1.0).reshape(tiles, block * block)
    order = flat.sort(dim=1, descending=True, stable=True).indices
    first = torch.arange(tiles)
    rows = (order // block + first[:, None] * block).t().contiguous()  # (M^2, T), into row_room
    columns = (order % block + first[:, None] * block).t().contiguous()
    row_room = torch.full((tiles * block,), keep, dtype=torch.int8)
    column_room = row_room.clone()
    fits = torch.empty(block * block, tiles, dtype=torch.bool)
    for step, (row, column) in enumerate(zip(rows, columns, strict=True)):
        room_down, room_across = row_room[row], column_room[column]
        fit = torch.logical_and(room_down > 0, room_across > 0, out=fits[step])
        row_room[row] = room_down - fit.to(torch.int8)
        column_room[column] = room_across - fit.to(torch.int8)
    kept = torch.zeros_like(flat, dtype=torch.bool).scatter_(1, order, fits.t())
    return kept.reshape(values.shape) & real
