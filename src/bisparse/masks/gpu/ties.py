"""Decides ties with a tile per lane, on bit words: blocks of up to 8.

Which of the entries that are exactly at the threshold are kept, so that every line holds K? Any such choice is optimal,
and for scores with many zeros a greedy one nearly always exists. What it leaves open goes to the completion.
"""

from __future__ import annotations

import triton
import triton.language as tl

from bisparse.masks.gpu.counters import STUCK, UNDECIDED
from bisparse.masks.gpu.lanes import (
    ENOUGH,
    ROUNDING,
    UNSPECIALIZED,
    append,
    as_word,
    pack,
    scaled,
    spread,
    store_line,
    tile_place,
)
from bisparse.masks.gpu.sweep_tiles import half_sweep, load_line, load_tiles, store_duals

__all__ = ["settle_ties"]


@triton.jit
def tie_words(s, u, v, M: tl.constexpr):
    """Per row, bit by column: entries above the threshold u + v, and those at it, up to rounding."""
    above = ()
    level = ()
    for i in tl.static_range(M):
        higher = tl.zeros(u[0].shape, tl.int32)
        equal = higher
        for j in tl.static_range(M):
            reduced = s[i * M + j] - v[j]
            higher = higher | ((reduced > u[i] + ROUNDING).to(tl.int32) << j)
            equal = equal | ((reduced >= u[i] - ROUNDING).to(tl.int32) << j)
        above = above + (higher,)
        level = level + (equal & ~higher,)
    return above, level


@triton.jit
def count_room(above, M: tl.constexpr, K: tl.constexpr):
    """How many entries each column can still take; negative where it is overfull."""
    room = ()
    for j in tl.static_range(M):
        left = tl.full(above[0].shape, K, tl.int32)
        for i in tl.static_range(M):
            left -= (above[i] >> j) & 1
        room = room + (left,)
    return room


@triton.jit
def take_one(row, free, wanted, room, ROW: tl.constexpr, M: tl.constexpr):
    """A row takes the roomiest of its free columns, ties by rotated index, if it wants one and there is one."""
    best = tl.full(row.shape, -1, tl.int32)
    worth = ()
    for j in tl.static_range(M):
        possible = ((free >> j) & 1 > 0) & (room[j] > 0)
        worth = worth + (tl.where(possible, room[j] * M + (j + ROW) % M, -1),)
        best = tl.maximum(best, worth[j])
    takes = (wanted > 0) & (best >= 0)
    left = ()
    for j in tl.static_range(M):
        hit = (takes & (worth[j] == best)).to(tl.int32)
        left = left + (room[j] - hit,)
        row = row | (hit << j)
        free = free & ~(hit << j)
    return row, free, wanted - takes.to(tl.int32), left


@triton.jit
def fill_greedily(above, level, M: tl.constexpr, K: tl.constexpr):
    """Rows one after the other take what they still need; the kept entries, and the lanes where nothing is missing."""
    room = count_room(above, M, K)
    filled = room[0] >= 0
    for j in tl.static_range(1, M):
        filled = filled & (room[j] >= 0)
    kept = ()
    for i in tl.static_range(M):
        row = above[i]
        free = level[i]
        wanted = tl.full(row.shape, K, tl.int32)
        for j in tl.static_range(M):
            wanted -= (row >> j) & 1
        for _ in range(K):
            row, free, wanted, room = take_one(row, free, wanted, room, i, M)
        filled = filled & (wanted == 0)
        kept = kept + (row,)
    return kept, filled


@triton.jit
def proof(s, u, v, kept, M: tl.constexpr):
    """Objective, and bound - objective by the violations of complementary slackness alone; scaled."""
    total = tl.zeros(u[0].shape, tl.float64)
    slack = total
    for i in tl.static_range(M):
        for j in tl.static_range(M):
            keep = (kept[i] >> j) & 1 > 0
            score = s[i * M + j].to(tl.float64)
            excess = score - u[i].to(tl.float64) - v[j].to(tl.float64)
            total += tl.where(keep, score, 0.0)
            slack += tl.where(keep != (excess > 0.0), tl.abs(excess), 0.0)
    return total, slack


@triton.jit
def store_words(mask, offset, cols, kept, wanted, M: tl.constexpr, WORD: tl.constexpr):
    """Write the mask of each wanted lane."""
    words = ()
    for i in tl.static_range(M):
        keep = ()
        for j in tl.static_range(M):
            keep = keep + ((kept[i] >> j) & 1,)
        if WORD == M:
            words = words + (as_word(keep, 0, mask.dtype.element_ty, WORD),)
        else:
            store_line(mask, offset + i * cols, keep, wanted, M, WORD)
    if WORD == M:
        place = (offset // M)[:, None] + tl.arange(0, M)[None, :] * (cols // M)
        tl.store(mask + place, pack(words, M), mask=wanted[:, None])


@triton.jit(do_not_specialize=UNSPECIALIZED)
def settle_ties(
    scores, batch_stride, row_stride, col_stride, mask, row_duals, column_duals, sums, queue, undecided, counters,
    rows, cols, down, across, tiles, keep_duals,
    M: tl.constexpr, K: tl.constexpr, NETWORK: tl.constexpr, TILES: tl.constexpr, WORD: tl.constexpr,
    MAGNITUDE: tl.constexpr,
):  # fmt: skip
    """Decide the ties of the stuck tiles where that is easy; the others, and those cut by the edge, are queued."""
    count = tl.load(counters + STUCK)
    for chunk in range(tl.program_id(0), tl.cdiv(count, TILES), tl.num_programs(0)):
        lane = chunk * TILES + tl.arange(0, TILES)
        live = lane < count
        tile = tl.load(queue + lane, mask=live, other=0)
        matrix, row, col = tile_place(tile, down, across, M)
        whole = live & (row + M <= rows) & (col + M <= cols)
        first = scores + matrix * batch_stride + row * row_stride + col * col_stride
        s, shrink, restore, _ = load_tiles(first, row_stride, col_stride, whole, M, MAGNITUDE)
        column_dual = (matrix * down + row // M) * cols + col
        v = scaled(load_line(column_duals + column_dual, 1, whole, M), shrink)
        u, _, _, _, _ = half_sweep(s, v, v, count < 0, M, K, NETWORK, M, 1)
        above, level = tie_words(s, u, v, M)
        kept, filled = fill_greedily(above, level, M, K)
        total, slack = proof(s, u, v, kept, M)
        decided = whole & filled & (slack <= ENOUGH * total)

        store_words(mask, (matrix * rows + row) * cols + col, cols, kept, decided, M, WORD)
        factor = restore.to(tl.float64)
        tl.store(sums + tile, total * factor, mask=decided)
        tl.store(sums + tiles + tile, slack * factor, mask=decided)
        row_dual = (matrix * rows + row) * across + col // M
        proved = decided & spread(keep_duals, live)
        store_duals(row_duals + row_dual, across, scaled(u, restore), proved, M)
        append(undecided, counters + UNDECIDED, tile, live & ~decided)
