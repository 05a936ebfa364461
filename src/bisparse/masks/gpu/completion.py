"""Completes tiles to optimality in float64, by successive shortest augmenting paths: a tile across lanes.

For the tiles that the sweeps leave: ties (equal scores, zeros), slow ones, and those that the edge cuts. The invariant
is complementary slackness: kept entries have s >= u + v, dropped ones s <= u + v. Columns may hold more than K; every
path moves one entry from such a column to one with room, and the potentials follow.
"""

from __future__ import annotations

import triton
import triton.language as tl

from bisparse.masks.gpu.counters import FAILED, INVALID, REPAIRED
from bisparse.masks.gpu.lanes import ENOUGH, ROUNDING, UNSPECIALIZED, admit, tile_place

__all__ = ["complete_tiles"]

FAR = tl.constexpr(1e300)


@triton.jit
def row_of(x, pick):
    """Row of each tile: x (T, P, P) and pick (1 or T, P, 1) with one true entry give (T, P)."""
    return tl.sum(tl.where(pick, x, 0), 1)


@triton.jit
def item_of(x, pick):
    """Entry of each tile: x (T, P) and pick (T, P) with one true entry give (T,)."""
    return tl.sum(tl.where(pick, x, 0), 1)


@triton.jit
def row_thresholds(reduced, row, roomy, K: tl.constexpr, M: tl.constexpr):
    """The K-th largest of every row, 0 in tiles whose rows have room for all they hold."""
    u = tl.sum(reduced, 2) * 0.0
    for i in range(M):
        r = row_of(reduced, row[:, :, None] == i)
        larger = tl.sum((r[:, None, :] > r[:, :, None]).to(tl.int32), 2)
        threshold = tl.min(tl.where(larger < K, r, FAR), 1)
        u = tl.where(row == i, threshold[:, None], u)
    return tl.where(roomy[:, None], 0.0, u)


@triton.jit
def take_ties(kept, level, row, column, width, K: tl.constexpr, M: tl.constexpr):
    """Fill rows up to K from the entries at their threshold: least loaded columns first, then by rotated index.

    So equal scores spread over the columns instead of piling up on the first.
    """
    load = tl.sum(kept.to(tl.int32), 1)
    for i in range(M):
        pick = row[:, :, None] == i
        tied = row_of(level.to(tl.int32), pick) > 0
        wanted = K - tl.sum(row_of(kept.to(tl.int32), pick), 1)
        turned = (column - i % width[:, None] + width[:, None]) % width[:, None]
        key = tl.where(tied, load * 64 + turned, 1 << 20)
        ahead = tl.sum((key[:, None, :] < key[:, :, None]).to(tl.int32), 2)
        taken = tied & (ahead < wanted[:, None])
        kept = kept | (pick & taken[:, None, :])
        load += taken.to(tl.int32)
    return kept, load


@triton.jit
def start_rows(s, v, real, tolerance, roomy, row, column, width, K: tl.constexpr, M: tl.constexpr):
    """Each row keeps its best entries for the column potentials: dual feasible, up to ``tolerance``."""
    reduced = tl.where(real, s - v[:, None, :], -FAR)
    u = row_thresholds(reduced, row, roomy, K, M)
    near = tolerance[:, None, None]
    above = real & ((reduced > u[:, :, None] + near) | roomy[:, None, None])
    level = real & ~above & (reduced >= u[:, :, None] - near)
    kept, load = take_ties(above, level, row, column, width, K, M)
    return kept, load, tl.where(tl.sum(real.to(tl.int32), 2) > 0, u, 0.0)


@triton.jit
def distances(s, u, v, kept, real, load, K: tl.constexpr):
    """Shortest paths from the overfull columns, with predecessors (-1 at a source), by reduced cost.

    A column reaches the rows that keep it (they would drop it), a row the columns that it does not keep. All rows, then
    all columns relax at once until nothing improves. Only strict improvements count, and costs are not negative, so
    predecessors never form a cycle.
    """
    cost = s - u[:, :, None] - v[:, None, :]
    leave = tl.where(kept, tl.maximum(cost, 0.0), FAR)
    enter = tl.where(real & ~kept, tl.maximum(-cost, 0.0), FAR)
    to_row = u * 0.0 + FAR
    to_column = tl.where(load > K, 0.0, FAR).to(tl.float64)
    row_from = load * 0 - 1
    column_from = load * 0 - 1
    going = 1
    while going > 0:
        best, source = tl.min(to_column[:, None, :] + leave, 2, return_indices=True)
        better = best < to_row
        to_row = tl.where(better, best, to_row)
        row_from = tl.where(better, source, row_from)
        best, source = tl.min(to_row[:, :, None] + enter, 1, return_indices=True)
        better = best < to_column
        to_column = tl.where(better, best, to_column)
        column_from = tl.where(better, source, column_from)
        going = tl.max(tl.max(better.to(tl.int32), 1), 0)
    return to_row, to_column, row_from, column_from


@triton.jit
def augment(s, u, v, kept, load, real, cut, row, column, K: tl.constexpr):
    """One shortest path in every tile that has an overfull column."""
    to_row, to_column, row_from, column_from = distances(s, u, v, kept, real, load, K)
    some_column = tl.max(real.to(tl.int32), 1) > 0
    some_row = tl.max(real.to(tl.int32), 2) > 0
    by_column, end_column = tl.min(tl.where(some_column & (load < K), to_column, FAR), 1, return_indices=True)
    drop = tl.where(
        some_row & cut[:, None], to_row + u, FAR
    )  # a row that just drops an entry, where that is allowed
    by_row, end_row = tl.min(drop, 1, return_indices=True)
    length = tl.minimum(by_row, by_column)
    active = (length < FAR) & (tl.max(load, 1) > K)
    v += tl.where(active[:, None], tl.maximum(length[:, None] - to_column, 0.0), 0.0)
    u -= tl.where(active[:, None], tl.maximum(length[:, None] - to_row, 0.0), 0.0)
    u = tl.where(cut[:, None], tl.maximum(u, 0.0), u)  # below by rounding only

    ends_there = active & (by_column <= by_row)
    at_end = (column == end_column[:, None]) & ends_there[:, None]
    last = tl.where(ends_there, item_of(column_from, column == end_column[:, None]), end_row)
    kept = kept | ((row == last[:, None])[:, :, None] & at_end[:, None, :])
    load += at_end.to(tl.int32)
    walking = active
    while tl.max(walking.to(tl.int32), 0) > 0:
        here = (row == last[:, None]) & walking[:, None]
        before = item_of(row_from, row == last[:, None])
        there = column == before[:, None]
        kept = kept & ~(here[:, :, None] & there[:, None, :])
        last = item_of(column_from, there)
        load -= (there & (walking & (last < 0))[:, None]).to(tl.int32)
        walking = walking & (last >= 0)
        kept = kept | (((row == last[:, None]) & walking[:, None])[:, :, None] & there[:, None, :])
    return u, v, kept, load


@triton.jit
def proof(s, u, v, kept, load, real, K: tl.constexpr):
    """Objective, and bound - objective by the violations of complementary slackness alone."""
    excess = s - u[:, :, None] - v[:, None, :]
    wrong = tl.where(real & ((excess > 0.0) != kept), tl.abs(excess), 0.0)
    filled = tl.sum(kept.to(tl.int32), 2)
    idle_rows = tl.sum(u * (K - filled).to(tl.float64), 1)
    idle_columns = tl.sum(v * (K - load).to(tl.float64), 1)
    slack = tl.sum(tl.sum(wrong, 2), 1) + idle_rows + idle_columns
    return tl.sum(tl.sum(tl.where(kept, s, 0.0), 2), 1), slack


@triton.jit
def complete(s, v, real, live, cut, width, row, column, K: tl.constexpr, M: tl.constexpr):
    """Solve tiles from column potentials.

    The first attempt takes entries for tied that are so up to the rounding of the sweeps: few paths, and nearly always
    no slack worth mentioning. Where there is, the second one is exact.
    """
    largest = tl.max(tl.max(s, 2), 1)
    roomy = cut & (width <= K)
    tolerance = tl.where(cut, 0.0, largest * ROUNDING).to(tl.float64)
    kept, u = real & ~real, tl.sum(s, 2) * 0.0
    load = tl.sum(kept.to(tl.int32), 1)
    paths = load * 0
    pending = live
    attempt = 0
    while (attempt < 2) & (tl.max(pending.to(tl.int32), 0) > 0):
        start = tl.where(
            (cut & (attempt > 0))[:, None], 0.0, v
        )  # a short column of a cut tile has potential 0
        new_kept, new_load, new_u = start_rows(s, start, real, tolerance, roomy, row, column, width, K, M)
        new_v = start
        steps = 0
        while (steps < M * K) & (tl.max(tl.max(new_load, 1), 0) > K):
            paths += (new_load > K).to(tl.int32)
            new_u, new_v, new_kept, new_load = augment(
                s, new_u, new_v, new_kept, new_load, real, cut, row, column, K
            )
            steps += 1
        kept = tl.where(pending[:, None, None], new_kept, kept)
        load = tl.where(pending[:, None], new_load, load)
        u = tl.where(pending[:, None], new_u, u)
        v = tl.where(pending[:, None], new_v, v)
        objective, slack = proof(s, u, v, kept, load, real, K)
        pending = pending & (slack > ENOUGH * objective)
        tolerance = tolerance * 0.0
        attempt += 1
    return u, v, kept, load, tl.max(paths, 1) > 0


@triton.jit(do_not_specialize=UNSPECIALIZED)
def complete_tiles(
    scores, batch_stride, row_stride, col_stride, mask, row_duals, column_duals, sums, queue, waiting,
    counters, rows, cols, down, across, tiles, keep_duals,
    M: tl.constexpr, K: tl.constexpr, TILES: tl.constexpr, LINES: tl.constexpr, MAGNITUDE: tl.constexpr,
):  # fmt: skip
    """Complete the ``waiting`` tiles of a queue from the potentials that the sweeps left, cut ones from 0."""
    count = tl.load(waiting)
    row, column = tl.arange(0, LINES)[None, :], tl.arange(0, LINES)[None, :]
    for chunk in range(tl.program_id(0), tl.cdiv(count, TILES), tl.num_programs(0)):
        slot = chunk * TILES + tl.arange(0, TILES)
        live = slot < count
        tile = tl.load(queue + slot, mask=live, other=0)
        matrix, top, left = tile_place(tile, down, across, M)
        height = tl.minimum(rows - top, M).to(tl.int32)
        width = tl.minimum(cols - left, M).to(tl.int32)
        cut = (height < M) | (width < M)
        is_row, is_column = live[:, None] & (row < height[:, None]), live[:, None] & (column < width[:, None])
        real = is_row[:, :, None] & is_column[:, None, :]
        first = scores + matrix * batch_stride + top * row_stride + left * col_stride
        place = first[:, None, None] + (row * row_stride)[:, :, None] + (column * col_stride)[:, None, :]
        x, bad = admit(tl.load(place, mask=real, other=0.0), MAGNITUDE)
        if tl.max(tl.max(tl.max(bad.to(tl.int32), 2), 1), 0) > 0:
            tl.atomic_max(counters + INVALID, 1)

        s = x.to(tl.float64)
        column_dual = column_duals + ((matrix * down + top // M) * cols + left)[:, None] + column
        v = tl.load(column_dual, mask=is_column & ~cut[:, None], other=0.0).to(tl.float64)
        u, v, kept, load, walked = complete(s, v, real, live, cut, width, row, column, K, M)

        at = (
            ((matrix * rows + top) * cols + left)[:, None, None]
            + (row * cols)[:, :, None]
            + column[:, None, :]
        )
        tl.store(mask + at, kept, mask=real)
        objective, slack = proof(s, u, v, kept, load, real, K)
        tl.store(sums + tile, objective, mask=live)
        tl.store(sums + tiles + tile, slack, mask=live)
        if keep_duals > 0:
            row_dual = row_duals + ((matrix * rows + top) * across + left // M)[:, None] + row * across
            tl.store(row_dual, u, mask=is_row)
            tl.store(column_dual, v, mask=is_column)
        repaired = tl.sum((walked & live).to(tl.int32), 0)
        if repaired > 0:
            tl.atomic_add(counters + REPAIRED, repaired)
        failed = tl.sum((live & (tl.max(load, 1) > K)).to(tl.int32), 0)
        if failed > 0:
            tl.atomic_add(counters + FAILED, failed)
