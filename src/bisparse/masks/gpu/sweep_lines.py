"""Alternating midpoints with a line per lane: blocks above 8, whose tiles do not fit into one thread's registers.

Lane (t, l) holds row l and column l of tile t, M scores each. The potentials of the lines across are fetched from the
lanes that own them, one after the other: shuffles inside a warp.
"""

from __future__ import annotations

import triton
import triton.language as tl

from bisparse.masks.gpu.counters import INVALID, ROUNDS, STUCK
from bisparse.masks.gpu.lanes import (
    ROUNDING,
    UNSPECIALIZED,
    admit,
    append,
    shrink_and_restore,
    spread,
    straddle,
    tile_place,
    unpack,
)

__all__ = ["sweep_lines"]


@triton.jit
def load_lines(
    scores, row_stride, col_stride, live,
    M: tl.constexpr, LINES: tl.constexpr, MAGNITUDE: tl.constexpr,
):  # fmt: skip
    """Scaled scores as tuples of rows' and of columns' entries, the scale and its inverse; which tiles are bad."""
    line = tl.arange(0, LINES)
    inside = (line < M)[None, :, None] & (line < M)[None, None, :]
    place = scores[:, None, None] + line[None, :, None] * row_stride + line[None, None, :] * col_stride
    x, bad = admit(tl.load(place, mask=live[:, None, None] & inside, other=0.0), MAGNITUDE)
    shrink, restore = shrink_and_restore(tl.max(tl.max(x, 2), 1))
    x *= shrink[:, None, None]
    bad = tl.max(tl.max(bad.to(tl.int32), 2), 1) > 0
    return unpack(x, LINES), unpack(tl.permute(x, (0, 2, 1)), LINES), shrink, restore, bad


@triton.jit
def fetch(potentials, line: tl.constexpr):
    """The potential that lane ``line`` of each tile owns, in all lanes of the tile."""
    return tl.gather(potentials, tl.full(potentials.shape, line, tl.int32), 1)


@triton.jit
def half_sweep(s, across, old, real, relax, M: tl.constexpr, K: tl.constexpr, NETWORK: tl.constexpr):
    """Move each line's potential between its K-th and (K+1)-th largest of s - across, overshooting the midpoint.

    Returns the new potentials and, per tile, the least distance of the old and of the new ones from the two order
    statistics, the largest change and the number of lines whose two order statistics are equal.
    """
    x = ()
    for e in tl.static_range(M):
        x = x + (s[e] - fetch(across, e),)
    above, below = straddle(x, NETWORK, K)
    spread = above - below
    point = below + 0.5 * spread
    margin = 0.125 * spread
    far = tl.minimum(tl.maximum(old + 1.6 * (point - old), below + margin), above - margin)
    point = tl.where(relax, far, point)
    old_slack = tl.where(real, tl.minimum(above - old, old - below), 1.0)
    new_slack = tl.where(real, tl.minimum(above - point, point - below), 1.0)
    moved = tl.where(real, tl.abs(point - old), 0.0)
    ties = (real & (spread <= 0.0)).to(tl.int32)
    return point, tl.min(old_slack, 1), tl.min(new_slack, 1), tl.max(moved, 1), tl.sum(ties, 1)


@triton.jit
def sweep(
    by_row, by_column, u, v, real, idle, rounds, stage,
    M: tl.constexpr, K: tl.constexpr, NETWORK: tl.constexpr,
):  # fmt: skip
    """Sweep until every tile is proved or tied, at most ``rounds`` times; finished tiles are frozen."""
    proved = idle & ~idle
    tied = idle
    columns_hold = proved
    many_before = proved
    t = 0
    while (t < rounds) & (tl.min((proved | tied).to(tl.int32), 0) == 0):
        relax = t + stage > 0
        new, old_slack, new_slack, _, _ = half_sweep(by_row, v, u, real, relax, M, K, NETWORK)
        row_proof = columns_hold & (old_slack > 0.0)
        proved = proved | (row_proof & ~tied)
        u = tl.where((proved | tied)[:, None], u, new)

        new, column_slack, after, moved, ties = half_sweep(by_column, u, v, real, relax, M, K, NETWORK)
        proved = proved | ((new_slack > 0.0) & (column_slack > 0.0) & ~row_proof & ~tied)
        columns_hold = after > 0.0
        many = ties * 4 > M
        still = (ties > 0) & (moved < 16 * ROUNDING)
        held = proved | tied
        tied = tied | (((many & many_before) | still) & ~proved)
        many_before = many
        v = tl.where(held[:, None], v, new)
        t += 1
    return u, v, proved, tied & ~idle, t


@triton.jit
def kept_entries(by_column, u, v, real, M: tl.constexpr):
    """The masks [s - v > u] as one word per column, a bit per row, and what each tile keeps."""
    word = tl.zeros(u.shape, tl.int64)
    total = tl.zeros(u.shape, tl.float64)
    for i in tl.static_range(M):
        kept = real & (by_column[i] - v > fetch(u, i))
        total += tl.where(kept, by_column[i], 0.0).to(tl.float64)
        word = word | (kept.to(tl.int64) << i)
    return word, tl.sum(total, 1)


@triton.jit(do_not_specialize=UNSPECIALIZED)
def sweep_lines(
    scores, batch_stride, row_stride, col_stride, mask, row_duals, column_duals, start, sums, queue, slow,
    stuck, counters, rows, cols, down, across, tiles, stage, last, rounds, rounds_before, warm, keep_duals,
    M: tl.constexpr, K: tl.constexpr, NETWORK: tl.constexpr, TILES: tl.constexpr, LINES: tl.constexpr,
    MAGNITUDE: tl.constexpr,
):  # fmt: skip
    """One stage: sweep the tiles that wait for it (stage 0: all), store the proved ones, queue the others."""
    count = tl.where(stage > 0, tl.load(counters + stage), tiles)
    most = 0
    line = tl.arange(0, LINES)[None, :]  # LINES = M, rounded up to a power of two
    for chunk in range(tl.program_id(0), tl.cdiv(count, TILES), tl.num_programs(0)):
        slot = chunk * TILES + tl.arange(0, TILES)
        live = slot < count
        later = spread(stage, live)
        tile = tl.where(later, tl.load(queue + slot, mask=live & later, other=0), slot)
        matrix, row, col = tile_place(tile, down, across, M)
        whole = live & (row + M <= rows) & (col + M <= cols)
        real = whole[:, None] & (line < M)
        first = scores + matrix * batch_stride + row * row_stride + col * col_stride
        by_row, by_column, shrink, restore, bad = load_lines(
            first, row_stride, col_stride, whole, M, LINES, MAGNITUDE
        )
        if tl.max(bad.to(tl.int32), 0) > 0:
            tl.atomic_max(counters + INVALID, 1)

        row_dual = ((matrix * rows + row) * across + col // M)[:, None] + line * across
        column_dual = ((matrix * down + row // M) * cols + col)[:, None] + line
        u = tl.load(row_duals + row_dual, mask=real & later[:, None], other=0.0) * shrink[:, None]
        v = (
            tl.load(start + column_dual, mask=real & spread(stage + warm, live)[:, None], other=0.0)
            * shrink[:, None]
        )
        v = tl.where(later[:, None] | (tl.abs(v) <= 4.0), v, 0.0)  # it would drown the scores in rounding
        u, v, proved, tied, taken = sweep(by_row, by_column, u, v, real, ~whole, rounds, stage, M, K, NETWORK)
        most = tl.maximum(most, taken)

        word, total = kept_entries(by_column, u, v, real, M)
        place = (
            ((matrix * rows + row) * cols + col)[:, None, None] + line[:, :, None] * cols + line[:, None, :]
        )
        kept = (word[:, None, :] >> line[:, :, None]) & 1
        tl.store(mask + place, kept, mask=(real & proved[:, None])[:, None, :] & (line < M)[:, :, None])
        tl.store(sums + tile, total * restore.to(tl.float64), mask=proved)
        needed = real & (spread(keep_duals, live) | ~proved)[:, None]
        tl.store(row_duals + row_dual, u * restore[:, None], mask=needed)
        tl.store(column_duals + column_dual, v * restore[:, None], mask=needed)
        left = live & ~proved
        give_up = tied | ~whole | spread(last, live)
        append(stuck, counters + STUCK, tile, left & give_up)
        append(slow, counters + stage + 1, tile, left & ~give_up)
    if most > 0:
        tl.atomic_max(counters + ROUNDS, rounds_before + most)
