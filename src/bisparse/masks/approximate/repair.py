"""Completing a mask whose lines are short: additions where a short row meets a short column, else swaps."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["fill_short_lines"]


def fill_short_lines(scores: Tensor, real: Tensor, kept: Tensor, keep: int) -> Tensor:
    """Add entries to feasible tiles until no line of a complete tile is short.

    While a short row i and a short column j are left: keep (i, j) if it is free, best score first.
    Otherwise swap: drop some (p, q), keep (i, q) and (p, j), with the largest s_iq + s_pj - s_pq. In a
    complete tile such a swap always exists: if it did not, every row p free in column j would hold its
    entries only where row i holds some, hence be short itself, and (p, j) would have been added. Tiles cut
    by the edge may stay short and take only what raises the score.

    Args:
        scores: (T, M, M), non-negative.
        real: boolean (T, M, M), False beyond the edge.
        kept: boolean (T, M, M), at most ``keep`` per line, within ``real``.
        keep: N.

    Returns:
        Boolean (T, M, M). Cost: one round over the unfinished tiles per missing entry of the worst tile.
    """
    kept = kept.clone()
    active = torch.arange(len(kept))
    while active.numel():
        tiles, free, held = scores[active], real[active] & ~kept[active], kept[active]
        rows = (held.sum(2) < keep) & real[active].any(2)  # (T', M) short rows
        columns = (held.sum(1) < keep) & real[active].any(1)
        added = _add(tiles, free, held, rows, columns)
        stuck = ~added
        added |= _swap(tiles, free, held, rows, columns, stuck)
        kept[active] = held
        active = active[added]
    return kept


def _add(scores: Tensor, free: Tensor, held: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Keep, in place, the best free entry between a short row and a short column; say which tiles had one."""
    block = scores.shape[1]
    spots = free & rows[:, :, None] & columns[:, None, :]
    best = torch.where(spots, scores, -1.0).flatten(1).max(1)
    found = best.values >= 0.0
    tile, spot = found.nonzero()[:, 0], best.indices[found]
    held[tile, spot // block, spot % block] = True
    return found


def _swap(
    scores: Tensor, free: Tensor, held: Tensor, rows: Tensor, columns: Tensor, wanted: Tensor
) -> Tensor:
    """Exchange, in place, one entry for two in the wanted tiles; say which tiles changed."""
    tile = (wanted & rows.any(1) & columns.any(1)).nonzero()[:, 0]
    changed = torch.zeros(len(scores), dtype=torch.bool)
    if not tile.numel():
        return changed
    block = scores.shape[1]
    row, column = rows[tile].to(torch.uint8).argmax(1), columns[tile].to(torch.uint8).argmax(1)
    # gain[t, p, q] = s[row, q] + s[p, column] - s[p, q]
    gain = scores[tile, row][:, None, :] + scores[tile, :, column][:, :, None] - scores[tile]
    allowed = free[tile, row][:, None, :] & free[tile, :, column][:, :, None] & held[tile]
    best = torch.where(allowed, gain, -torch.inf).flatten(1).max(1)
    complete = (free | held)[tile].flatten(1).all(1)
    use = torch.where(complete, best.values > -torch.inf, best.values > 0.0)
    tile, row, column, spot = tile[use], row[use], column[use], best.indices[use]
    held[tile, spot // block, spot % block] = False
    held[tile, row, spot % block] = True
    held[tile, spot // block, column] = True
    changed[tile] = True
    return changed
